import pytest
import torch
from support import make_algorithm, make_minibatches
from torch.nn import functional as F
from torch.testing import assert_close

from dg_batchformer.errors import InputError
from dg_batchformer.networks.mixstyle import StyleMixer, draw_partners, mix_styles
from dg_batchformer.training.loop import seed_everything


def _style(maps):
    return torch.stack([maps.mean(dim=(2, 3)), maps.std(dim=(2, 3), correction=0)])


def test_content_is_kept_and_styles_are_mixed_by_their_weights():
    maps = torch.randn(4, 3, 6, 5) * torch.rand(4, 3, 1, 1) + torch.randn(4, 3, 1, 1)
    partners, shares = torch.tensor([2, 3, 1, 0]), torch.tensor([0.0, 0.25, 0.5, 1.0])

    mixed = mix_styles(maps, partners, shares)

    own, others = _style(maps), _style(maps)[:, partners]
    assert_close(_style(mixed), shares[:, None] * own + (1 - shares[:, None]) * others, rtol=1e-3, atol=1e-4)
    assert_close(F.instance_norm(mixed), F.instance_norm(maps), rtol=1e-3, atol=1e-3)
    assert_close(mixed[3], maps[3])
    assert not torch.allclose(mixed[0], maps[0])


def test_no_gradient_flows_through_styles():
    maps = torch.randn(2, 1, 3, 3, requires_grad=True)
    deviation = maps.detach().std(dim=(2, 3), correction=0)

    mixed = mix_styles(maps, torch.tensor([1, 0]), torch.zeros(2))
    [gradient] = torch.autograd.grad(mixed[0].sum(), maps)

    assert not gradient[1].any()  # only the style comes from the partner
    assert_close(gradient[0], (deviation[1] / deviation[0]).expand(1, 3, 3), rtol=1e-3, atol=1e-4)


def test_bf16_maps_stay_bf16():
    assert mix_styles(torch.randn(2, 1, 3, 3).bfloat16(), torch.tensor([1, 0]), torch.rand(2)).dtype is torch.bfloat16


@pytest.mark.parametrize("domains", [2, 3, 5])
def test_partners_are_of_another_domain_and_each_row_is_a_partner_once(domains):
    for seed in range(20):
        torch.manual_seed(seed)
        partners = draw_partners(4 * domains, 4)

        assert (partners // 4 != torch.arange(4 * domains) // 4).all()
        assert sorted(partners.tolist()) == list(range(4 * domains))


@pytest.mark.parametrize(("rows", "domain_rows"), [(12, None), (4, 4), (6, 4)])
def test_partners_are_of_any_domain_where_there_is_no_other(rows, domain_rows):
    assert sorted(draw_partners(rows, domain_rows).tolist()) == list(range(rows))


@pytest.mark.parametrize(
    ("backbone", "places"), [("resnet18", [1, 2, 3]), ("wrn16_2", [1, 2]), ("small_cnn", [0, 1]), ("tiny", [0])]
)
def test_styles_are_mixed_after_the_first_stages_but_not_after_stem_and_last(backbone, places):
    algorithm = make_algorithm("MixStyle", backbone=backbone)
    [featurizer] = algorithm.styled_featurizers()

    assert list(algorithm.mixer(featurizer, 6).places) == places


@pytest.mark.parametrize("name", ["MixStyle", "MixStyle+BF", "SWAD+MixStyle+MLDG+BF", "MixStyle+ADRMX"])
def test_the_method_trains_on_mixed_maps_of_plain_rows_and_nothing_is_left_afterwards(name, monkeypatch):
    algorithm, x = make_algorithm(name, mixstyle_p=1.0), make_minibatches()[0][0]
    rows, whole = [], StyleMixer.__call__

    def count(mixer, place, maps):
        mixed = whole(mixer, place, maps)
        rows.append((len(maps), torch.equal(mixed, maps)))
        return mixed

    monkeypatch.setattr(StyleMixer, "__call__", count)
    algorithm.update(make_minibatches())

    forwards = 2 if "MLDG" in name else 1
    alone = 6 if "MLDG" in name else 18
    stages = 2  # of tiny: the first is mixed, the last is not; and the domain featurizer of ADRMX is left alone
    assert rows == [(alone, False), (alone, True)] * forwards
    assert len(rows) == stages * forwards
    rows.clear()
    assert_close(algorithm.predict(x), algorithm.predict(x), rtol=0, atol=0)
    assert not rows


def test_a_failing_update_leaves_no_hooks():
    algorithm = make_algorithm("MixStyle")

    with pytest.raises(IndexError):
        algorithm.update([(x, y + 100) for x, y in make_minibatches()])

    assert algorithm.inner.featurizer.after_stage == ()


@pytest.mark.parametrize("name", ["ERM", "BF", "SWAD+DANN+BF"])
def test_with_probability_zero_nothing_changes(name):
    states = []
    no_dropout = {"bf_dropout": 0.0} if "BF" in name else {}  # its random draws would come after those of MixStyle
    for full, hparams in ((name, {}), (f"{name}+MixStyle", {"mixstyle_p": 0.0})):
        algorithm = make_algorithm(full, **hparams, **no_dropout)
        for seed in range(2):
            seed_everything(seed)
            algorithm.update(make_minibatches(seed=seed))
        states.append(algorithm.predictor.state_dict())

    assert_close(states[0], states[1], rtol=0, atol=0)


def test_styles_are_mixed_in_front_of_the_stage_that_twins_are_made_at_or_refused():
    algorithm = make_algorithm("MixStyle+BFv2", backbone="resnet18")
    [featurizer] = algorithm.inner.styled_featurizers()

    assert list(algorithm.inner.mixer(featurizer, 6).places) == [1, 2, 3]
    assert list(featurizer.stages()).index("layer3") == 3
    with pytest.raises(InputError, match=r"twins, which BFv2 adds after layer2; set hparam mixstyle_stages 2 or less"):
        make_algorithm("MixStyle+BFv2", backbone="resnet18", bfv2_insert="layer2")


def test_vectors_are_refused_with_the_reason():
    with pytest.raises(InputError, match=r"none for inputs of shape \(8,\) with backbone auto; use images"):
        make_algorithm("MixStyle", dataset="Toy")

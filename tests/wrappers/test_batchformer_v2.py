import copy

import pytest
import torch
from support import TRAINED, make_algorithm, make_minibatches, quick_spec, resolved, run_quickly
from torch.testing import assert_close

from dg_batchformer.algorithms import get_algorithm_class
from dg_batchformer.errors import InputError
from dg_batchformer.explain.load import load_kept
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.networks.batchformer import BatchFormer, batchformers, without_batchformer
from dg_batchformer.networks.insertion import stage_name
from dg_batchformer.storage.folders import RunFolder, State
from dg_batchformer.training import checkpoint
from dg_batchformer.training.loop import seed_everything

BACKBONES = ["small_cnn", "mnist_cnn", "wrn16_2", "resnet18"]


def _timm(*names):
    """Return test parameters for timm models, skipped without timm."""
    try:
        import timm  # noqa: F401
    except ImportError:
        return [pytest.param(name, marks=pytest.mark.skip(reason="timm is not installed")) for name in names]
    return list(names)


def _updated(name, **hparams):
    algorithm = make_algorithm(name, **hparams)
    for seed in range(3):
        seed_everything(seed)
        loss = algorithm.update(make_minibatches(n=4, seed=seed))["loss"]
    return loss, algorithm.predictor.state_dict()


@pytest.mark.parametrize("hparams", [{}, {"bf_dropout": 0.0, "bf_scope": "per_domain", "bf_layers": 2}])
def test_inserted_at_the_pooled_features_it_is_bf_bit_for_bit(hparams):
    inside, pooled = _updated("BFv2", bfv2_insert="pooled", **hparams), _updated("BF", **hparams)

    assert_close(inside, pooled, rtol=0, atol=0)


def test_behind_a_stage_of_one_position_it_is_bf():
    """At 32 pixels the last stage of a ResNet is a 1 x 1 grid, which pooling does not change."""
    given = {"backbone": "resnet18", "bf_dropout": 0.0}
    inside, pooled = (
        make_algorithm(name, **given, **own) for name, own in (("BFv2", {"bfv2_insert": "layer4"}), ("BF", {}))
    )

    losses = [algorithm.update(make_minibatches(n=4))["loss"] for algorithm in (inside, pooled)]

    assert_close(*losses)
    for mine, its in zip(inside.parameters(), pooled.parameters(), strict=True):
        assert_close(mine.grad, its.grad, rtol=1e-3, atol=1e-6)


def _paired(algorithm, x):
    """Return the features (domains, 2, n, width) of minibatches x (domains, n, ...), and their inputs."""
    featurizer, x = algorithm.inner.featurizer, x.clone().requires_grad_()
    [layer] = batchformers(algorithm)
    layer.paired_rows = x.shape[1]
    try:
        z = featurizer(torch.stack([x, x], dim=1).flatten(0, 2))
    finally:
        layer.paired_rows = None
    return z.unflatten(0, (len(x), 2, -1)), x


@pytest.mark.parametrize("backbone", [*BACKBONES, *_timm("timm/test_vit", "timm/test_convnext", "timm/test_resnet")])
def test_twins_attend_the_batch_inside_and_plain_rows_are_the_features(backbone):
    algorithm = make_algorithm("BFv2", backbone=backbone, bf_dropout=0.0).eval()  # no batch statistics
    z, x = _paired(algorithm, torch.randn(2, 2, 3, 32, 32))

    some = torch.randn(z.shape[-1])  # the sum of normalized features is constant
    plain, twin = (torch.autograd.grad(z[0, stream, 0] @ some, x, retain_graph=True)[0] for stream in (0, 1))

    reached = [gradient.flatten(2).abs().sum(dim=2).flatten() > 0 for gradient in (plain, twin)]
    assert reached[0].tolist() == [True, False, False, False]
    assert reached[1].all()
    assert_close(z[:, 0].flatten(0, 1), algorithm.inner.featurizer(x.flatten(0, 1)), rtol=1e-4, atol=1e-5)


def test_up_to_the_block_the_featurizer_runs_once_and_behind_it_on_both_streams():
    algorithm = make_algorithm("BFv2", backbone="small_cnn", bfv2_insert="blocks.1")
    rows = []
    for block in algorithm.inner.featurizer.blocks:
        block.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))

    algorithm.update(make_minibatches(n=4))

    assert rows == [12, 12, 24]


@pytest.mark.parametrize("base", TRAINED)
def test_every_algorithm_trains_it(base):
    soon = {"linear_steps": 0} if base == "ERMPlusPlus" else {}
    algorithm = make_algorithm(f"{base}+BFv2", **soon)
    [layer] = batchformers(algorithm)
    before = [parameter.detach().clone() for parameter in layer.parameters()]
    for seed in range(2):
        seed_everything(seed)
        for value in algorithm.update(make_minibatches(n=4, seed=seed)).values():
            assert torch.isfinite(torch.as_tensor(value))

    moved = [not torch.equal(one, other) for one, other in zip(before, layer.parameters(), strict=True)]
    assert all(moved)
    assert len(moved) == 12


@pytest.mark.parametrize("base", ["ERM", "CORAL", "IRM", "DANN", "ERMPlusPlus"])
def test_a_state_resumes_exactly_and_its_model_is_the_base_algorithms(base, tmp_path):
    name = f"SWAD+{base}+BFv2"
    one, other = make_algorithm(name), make_algorithm(name, seed=1)
    one.update(make_minibatches(n=4))

    checkpoint.save(tmp_path / "c.pt", checkpoint.capture(one))
    checkpoint.restore(other, checkpoint.load(tmp_path / "c.pt", torch.device("cpu")))
    for algorithm in (one, other):
        seed_everything(3)
        algorithm.update(make_minibatches(n=4, seed=1))

    assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
    plain = make_algorithm(base)
    plain.predictor.load_state_dict(one.predictor.state_dict())
    x = make_minibatches()[0][0]
    assert_close(plain.eval().predict(x), one.eval().predict(x))
    assert_close(one.predict(x[:1]), one.predict(x)[:1])


@pytest.mark.parametrize("backbone", ["tiny", *_timm("timm/test_vit")])
def test_the_view_without_it_has_none_of_its_parameters(backbone):
    network = make_algorithm("BFv2", backbone=backbone).inner.network
    network(torch.randn(2, 3, 32, 32))
    view = copy.deepcopy(without_batchformer(network))
    hooks = [
        hook
        for module in view.modules()
        for kind in (module._forward_hooks, module._forward_pre_hooks)
        for hook in kind.values()
    ]

    assert not hooks
    assert not view[0].inserted
    assert not batchformers(view)
    assert network[0].inserted


def test_a_copy_is_tied_to_its_own_layer(monkeypatch):
    algorithm = copy.deepcopy(make_algorithm("BFv2"))
    attended = []
    whole = BatchFormer.forward
    monkeypatch.setattr(BatchFormer, "forward", lambda layer, z: (attended.append(layer), whole(layer, z))[1])

    algorithm.update(make_minibatches(n=4))

    assert attended == batchformers(algorithm)


def test_it_is_at_two_thirds_of_the_depth_by_default_and_unknown_places_are_answered_with_the_known_ones():
    featurizer = make_algorithm("ERM", backbone="resnet18").featurizer

    assert stage_name(featurizer, "auto") == "layer3"
    with pytest.raises(InputError, match=r"bfv2_insert: 'layer5'; did you mean .*known: auto, layer1, .*, pooled"):
        stage_name(featurizer, "layer5")
    with pytest.raises(InputError, match="both act on the features"):
        get_algorithm_class("BF+BFv2")


def test_a_featurizer_without_positions_is_refused_before_anything_starts():
    with pytest.raises(InputError, match="MLPFeaturizer has none; use BF, which works on pooled features"):
        resolve_hparams(quick_spec(algorithm="BFv2"))


def test_a_run_keeps_the_model_without_it_and_explain_says_why_it_draws_none(image_folder, tmp_path):
    hparams = {"backbone": "tiny", "image_size": 16, "batch_size": 4}
    spec = resolved(dataset="PACS", protocol="quick", algorithm="SWAD+BFv2", steps=2, hparams=hparams)
    folder = RunFolder(tmp_path / "run")

    assert run_quickly(spec, folder.path, data_dir=image_folder()) is State.DONE

    with pytest.raises(InputError, match=r"BatchFormer is inside the featurizer.*; train SWAD\+BF"):
        load_kept(folder, torch.device("cpu"))
    kept = torch.load(folder.model_file, weights_only=True)
    assert not {name for name in kept["hparams"] if name.startswith("bf")}
    rebuilt = get_algorithm_class(kept["algorithm"])((3, 16, 16), kept["num_classes"], 3, kept["hparams"])
    rebuilt.predictor.load_state_dict(kept["predictor"])

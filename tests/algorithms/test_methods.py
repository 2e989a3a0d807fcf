"""Methods compared with their definitions."""

import pytest
import torch
from support import make_algorithm, make_minibatches
from torch.nn import functional as F
from torch.testing import assert_close

from dg_batchformer.algorithms.coral import coral_distance
from dg_batchformer.errors import InputError


def _risks(algorithm, minibatches):
    return torch.stack([F.cross_entropy(algorithm.predict(x), y) for x, y in minibatches])


@pytest.mark.parametrize("n", [6, 7])
def test_irm_penalises_the_gradient_of_a_scale_estimated_on_two_halves(n):
    algorithm, minibatches = make_algorithm("IRM", num_domains=2), make_minibatches(n=n, num_domains=2)
    scale = torch.ones((), requires_grad=True)
    penalties = []
    for x, y in minibatches:
        z = algorithm.predict(x)
        halves = [
            torch.autograd.grad(F.cross_entropy(z[i::2] * scale, y[i::2]), scale, retain_graph=True)[0] for i in (0, 1)
        ]
        penalties.append(halves[0] * halves[1])

    metrics = algorithm.update(minibatches)

    assert_close(metrics["penalty"], torch.stack(penalties).mean().detach())


def test_irms_halves_are_disjoint_under_batchformer_even_for_odd_batches():
    algorithm = make_algorithm("IRM+BF").inner
    samples = torch.arange(7)
    rows = torch.cat([samples, samples])

    first, second = (set(algorithm.take_half(rows, half).tolist()) for half in (slice(0, None, 2), slice(1, None, 2)))

    assert not first & second
    assert first | second == set(range(7))


@pytest.mark.parametrize(("name", "prefix"), [("IRM", "irm"), ("VREx", "vrex")])
def test_the_penalty_jumps_to_its_weight_and_adam_is_reset(name, prefix):
    algorithm = make_algorithm(name, **{f"{prefix}_penalty_anneal_iters": 2, f"{prefix}_lambda": 50.0})
    weights, optimizers = [], []
    for seed in range(4):
        metrics = algorithm.update(make_minibatches(seed=seed))
        weights.append(((metrics["loss"] - metrics["nll"]) / metrics["penalty"]).item())
        optimizers.append(algorithm.optimizer)

    assert weights == pytest.approx([1, 1, 50, 50], rel=1e-3)
    assert optimizers[0] is optimizers[1] is not optimizers[2]
    assert optimizers[2] is optimizers[3]


def test_vrex_penalises_the_variance_of_the_risks():
    algorithm, minibatches = make_algorithm("VREx"), make_minibatches()
    risks = _risks(algorithm, minibatches).detach()

    metrics = algorithm.update(minibatches)

    assert_close(metrics["penalty"], ((risks - risks.mean()) ** 2).mean())


def test_group_dro_raises_the_weight_of_the_worst_environment():
    algorithm, minibatches = make_algorithm("GroupDRO", groupdro_eta=1.0), make_minibatches()
    risks = _risks(algorithm, minibatches).detach()
    q = risks.exp() / risks.exp().sum()

    loss = algorithm.update(minibatches)["loss"]

    assert_close(algorithm.q, q)
    assert_close(loss, (q * risks).sum())


def test_coral_distance_is_zero_for_equal_features_and_by_hand_for_others():
    a = torch.randn(5, 3)

    assert_close(coral_distance(a, a), torch.tensor(0.0))
    assert_close(coral_distance(a, a + 2), torch.tensor(4.0))
    b = torch.tensor([[0.0], [2.0]])  # variance 2
    assert_close(coral_distance(b, 2 * b), torch.tensor(1.0 + 36.0))


def test_coral_with_one_domain_is_erm():
    minibatches = make_minibatches(num_domains=1)
    coral, erm = (make_algorithm(name, num_domains=1) for name in ("CORAL", "ERM"))

    coral.update(minibatches)
    erm.update(minibatches)

    assert_close(coral.predictor.state_dict(), erm.predictor.state_dict())


def test_dann_alternates_and_updates_only_one_player():
    algorithm = make_algorithm("DANN", d_steps_per_g_step=2, grad_penalty=0.5)
    turns = []
    for seed in range(6):
        before = {name: value.clone() for name, value in algorithm.state_dict().items()}
        metrics = algorithm.update(make_minibatches(seed=seed))
        moved = {
            name.split(".")[0] for name, value in algorithm.state_dict().items() if not torch.equal(value, before[name])
        }
        turns.append((*metrics, moved))

    network = {"featurizer", "classifier", "network"}
    assert [turn[0] for turn in turns] == ["disc_loss", "gen_loss", "disc_loss"] * 2
    assert [turn[1] for turn in turns] == [{"discriminator"}, network, {"discriminator"}] * 2


def test_mldg_leaves_a_domain_to_train_on_with_two_domains():
    algorithm = make_algorithm("MLDG", num_domains=2, n_meta_test=2)
    before = algorithm.predictor.state_dict()["1.weight"].clone()

    loss = algorithm.update(make_minibatches(num_domains=2))["loss"]

    assert loss > 0
    assert not torch.equal(algorithm.predictor.state_dict()["1.weight"], before)


def test_mldg_copies_batch_norm_statistics_back_from_its_clones():
    algorithm = make_algorithm("MLDG", backbone="wrn16_2")

    algorithm.update(make_minibatches())

    assert algorithm.featurizer.bn1.running_mean.abs().sum() > 0


def test_mldg_with_one_domain_is_refused():
    with pytest.raises(InputError, match="MLDG needs at least 2 training environments, got 1"):
        make_algorithm("MLDG", num_domains=1)

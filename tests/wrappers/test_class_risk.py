"""Losses for imbalanced classes against their definitions, written out, and against upstream's figures."""

import pytest
import torch
from support import make_algorithm, make_minibatches
from torch.nn import functional as F
from torch.testing import assert_close

from dg_batchformer.algorithms.base import TrainingSet
from dg_batchformer.algorithms.criterion import ReweightedLoss
from dg_batchformer.errors import InputError
from dg_batchformer.training.loop import seed_everything
from dg_batchformer.wrappers.balanced_softmax import BalancedSoftmaxLoss
from dg_batchformer.wrappers.focal import FocalLoss
from dg_batchformer.wrappers.ldam import LDAMLoss
from dg_batchformer.wrappers.logit_adjustment import LogitAdjustedLoss

# Of two environments, four classes; the last class has no image in the second.
COUNTS = torch.tensor([[100, 30, 5, 1], [8, 60, 20, 0]])
WRAPPERS = ("BSoftmax", "Focal", "LDAM", "LogitAdjust", "ReWeight")

# Losses of MDLT's release on the rows below, computed by its own ``update``.
UPSTREAM = {"BSoftmax": 1.7904530, "LDAM": 37.9569511, "ReWeight": 2.0145574}


def _rows():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 4, generator=generator)
    y = torch.tensor([0, 1, 2, 3, 0, 0, 1, 1, 2, 0, 1, 2])
    return logits, y, torch.arange(2).repeat_interleave(6)


def _prepared(loss):
    loss.prepare(TrainingSet(COUNTS, steps=10))
    return loss


def _balanced_softmax(z, y, n):
    shares = n.clamp_min(1) * z.exp() / (n.clamp_min(1) * z.exp()).sum()
    return -shares[y].log()


def _ldam(z, y, n, max_m=0.5, scale=30.0):
    margins = torch.tensor([images**-0.25 if images else 0.0 for images in n.tolist()])
    margins = margins * max_m / margins.max()
    shifted = z.clone()
    shifted[y] -= margins[y]
    return -(scale * shifted).log_softmax(dim=0)[y]


def _mean_by_environment(loss):
    """Return the mean over environments of the mean of a loss of one sample."""
    logits, y, env = _rows()
    losses = torch.stack([loss(z, label, COUNTS[e]) for z, label, e in zip(logits, y, env, strict=True)])
    return losses.view(2, 6).mean(dim=1).mean()


def test_balanced_softmax_multiplies_probabilities_by_counts_as_upstream():
    loss = _prepared(BalancedSoftmaxLoss(4, 2))(*_rows())

    assert_close(loss, _mean_by_environment(_balanced_softmax))
    assert loss.item() == pytest.approx(UPSTREAM["BSoftmax"], abs=1e-5)  # BSoftmax of MDLT's release


def test_ldam_takes_a_margin_from_the_label_as_upstream():
    loss = _prepared(LDAMLoss(4, 2, max_margin=0.5, scale=30.0, beta=0.9999))(*_rows())

    assert_close(loss, _mean_by_environment(_ldam))
    assert loss.item() == pytest.approx(UPSTREAM["LDAM"], rel=1e-6)


def test_ldam_weighs_by_the_effective_number_once_it_reweights():
    loss = _prepared(LDAMLoss(4, 2, max_margin=0.0, scale=1.0, beta=0.9))
    loss.is_reweighting = True
    logits, y, env = _rows()
    expected = []
    for e in (0, 1):
        weights = torch.tensor([0.1 / (1 - 0.9**n) if n else 0.0 for n in COUNTS[e].tolist()])
        expected.append(F.cross_entropy(logits[env == e], y[env == e], weight=weights))

    assert_close(loss(logits, y, env), torch.stack(expected).mean())


def test_reweight_weighs_by_inverse_counts_as_upstream():
    logits, y, env = _rows()
    weights = [torch.tensor([1 / n if n else 0.0 for n in of_env.tolist()]) for of_env in COUNTS]
    expected = [F.cross_entropy(logits[env == e], y[env == e], weight=weights[e]) for e in (0, 1)]

    loss = _prepared(ReweightedLoss(4, 2))(logits, y, env)

    assert_close(loss, torch.stack(expected).mean())
    assert loss.item() == pytest.approx(UPSTREAM["ReWeight"], abs=1e-5)


def test_focal_discounts_samples_that_are_classified_well():
    logits, y, _ = _rows()
    p = logits.softmax(dim=1)[torch.arange(12), y]

    assert_close(FocalLoss(2.0)(logits, y, None), (-((1 - p) ** 2) * p.log()).mean())
    assert_close(FocalLoss(0.0)(logits, y, None), F.cross_entropy(logits, y))
    certain = torch.tensor([[200.0, 0.0], [0.0, 1.0]], requires_grad=True)
    FocalLoss(0.5)(certain, torch.tensor([0, 0]), None).backward()
    assert certain.grad.isfinite().all()


def test_logit_adjustment_adds_the_log_of_the_mean_prior():
    logits, y, env = _rows()
    counts = COUNTS.clamp_min(1)
    prior = (counts / counts.sum(dim=1, keepdim=True)).mean(dim=0)

    assert_close(_prepared(LogitAdjustedLoss(4, 2, 2.0))(logits, y, env), F.cross_entropy(logits + 2 * prior.log(), y))


def test_rows_of_an_unknown_environment_are_weighed_by_all_counts_together():
    logits, y, _ = _rows()
    pooled = COUNTS.sum(dim=0)

    expected = F.cross_entropy(logits + pooled.log(), y)
    assert_close(_prepared(BalancedSoftmaxLoss(4, 2))(logits, y, None), expected)


@pytest.mark.parametrize("wrapper", ["BSoftmax", "LogitAdjust", "ReWeight", "LDAM"])
def test_equal_counts_leave_the_cross_entropy(wrapper):
    equal = {"ldam_max_m": 0.0, "ldam_scale": 1.0} if wrapper == "LDAM" else {}
    algorithm, plain = (
        make_algorithm(f"{wrapper}+CORAL", dataset="Toy", **equal),
        make_algorithm("CORAL", dataset="Toy"),
    )
    algorithm.prepare(TrainingSet(torch.full((3, 3), 7), steps=6))
    for seed in range(2):
        for one in (algorithm, plain):
            seed_everything(seed)
            one.update(make_minibatches(dataset="Toy", seed=seed))

    assert_close(algorithm.predictor.state_dict(), plain.predictor.state_dict())


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_both_streams_of_batchformer_have_the_loss_and_penalties_stay(wrapper):
    algorithm = make_algorithm(f"{wrapper}+CORAL+BF", dataset="Toy")
    coral = algorithm.inner.inner
    rows = {"plain": torch.randn(6, 3), "twin": torch.randn(6, 3)}
    y = torch.tensor([0, 1, 2, 2, 0, 1])
    both = torch.cat([torch.cat([rows["plain"][at : at + 2], rows["twin"][at : at + 2]]) for at in (0, 2, 4)])
    labels = torch.cat([torch.cat([y[at : at + 2]] * 2) for at in (0, 2, 4)])
    env = torch.arange(3).repeat_interleave(2)

    expected = torch.stack([coral.criterion(rows[stream], y, env) for stream in rows]).mean()

    assert_close(coral.risk(both, labels, num_domains=3), expected)


def test_one_name_takes_one_loss_and_what_has_one_of_its_own_takes_none():
    with pytest.raises(InputError, match="BSoftmax and LDAM, which both act on the risk"):
        make_algorithm("BSoftmax+LDAM", dataset="Toy")
    with pytest.raises(InputError, match="Focal replaces the classification loss, and NDCL has one of its own"):
        make_algorithm("Focal+NDCL", dataset="Toy")
    with pytest.raises(InputError, match="class_balanced draws the classes equally often, so ReWeight would balance"):
        make_algorithm("ReWeight+MMD", dataset="Toy", class_balanced=True)
    make_algorithm("Focal", dataset="Toy", class_balanced=True)
    with pytest.raises(InputError, match="class_balanced draws the classes equally often, so CRT would balance them"):
        make_algorithm("CRT", dataset="Toy", class_balanced=True)


def test_counts_that_nobody_gave_are_asked_for():
    with pytest.raises(InputError, match=r"call prepare\(TrainingSet\(...\)\) before the first update"):
        BalancedSoftmaxLoss(4, 2)(*_rows())


def test_a_method_that_computes_its_loss_by_other_means_is_refused():
    algorithm = make_algorithm("BSoftmax", dataset="Toy")
    algorithm.inner.update = lambda minibatches, unlabeled: {}
    for _ in range(2):
        algorithm.update([])

    with pytest.raises(InputError, match=r"BSoftmax has no effect on ERM, which computes its loss by other means"):
        algorithm.observe(1, None, None)


def test_ldam_reweights_from_its_share_of_the_updates_on():
    algorithm, reweighting = make_algorithm("LDAM", dataset="Toy", ldam_defer=0.5), []  # of six updates
    for seed in range(5):
        algorithm.update(make_minibatches(dataset="Toy", seed=seed))
        reweighting.append(algorithm.criterion_inside.is_reweighting)

    assert reweighting == [False] * 3 + [True] * 2

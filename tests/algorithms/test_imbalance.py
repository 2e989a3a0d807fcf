"""Methods for imbalanced classes against their definitions, written out, and against upstream's figures."""

import numpy as np
import pytest
import torch
from support import make_algorithm, make_minibatches
from torch.nn import functional as F
from torch.testing import assert_close

from dg_batchformer.algorithms.base import TrainingSet
from dg_batchformer.algorithms.boda import boda_loss
from dg_batchformer.algorithms.ndcl import (
    HardestLoss,
    hard_negatives,
    negatives_loss,
    numbers_of_negatives,
    prototype_loss,
)
from dg_batchformer.errors import InputError

# Losses of the releases of MDLT (BoDA) and NDCL on the tensors below.
UPSTREAM = {"BoDA": 2.6953058, "margin": 0.4774137, "prototypes": 1.1043891}


def _features():
    generator = torch.Generator().manual_seed(0)
    z, centroids = torch.randn(9, 5, generator=generator), torch.randn(3, 4, 5, generator=generator)
    y = torch.tensor([0, 1, 3, 2, 2, 0, 1, 3, 3])
    counts = torch.tensor([[50.0, 20, 5, 2], [4, 9, 30, 1], [7, 7, 7, 7]])
    return z, y, torch.arange(3).repeat_interleave(3), centroids, counts


def test_boda_aligns_a_sample_with_its_class_in_the_other_environments_as_upstream():
    z, y, env, centroids, counts = _features()
    terms = []
    for sample, label, e in zip(z, y.tolist(), env.tolist(), strict=True):
        own = counts[e, label]
        logits = -(centroids - sample).norm(dim=2) / own * (counts / own) ** 0.7 / 0.5
        others = torch.ones(3, 4, dtype=torch.bool)
        others[e, label] = False
        terms += [logits[e2, label] - logits[others].logsumexp(dim=0) for e2 in range(3) if e2 != e]

    loss = boda_loss(z, y, env, centroids, torch.ones(3, 4, dtype=torch.bool), counts, 0.7, 0.5)

    assert_close(loss, -torch.stack(terms).mean())
    assert loss.item() == pytest.approx(UPSTREAM["BoDA"], abs=1e-5)  # BoDA of MDLT's release


def test_pairs_without_a_centroid_do_not_count_in_boda():
    z, y, env, centroids, counts = _features()
    known = torch.ones(3, 4, dtype=torch.bool)
    known[1] = False
    two = torch.tensor([0, 2])

    loss = boda_loss(z, y, env, centroids, known, counts, 1.0, 1.0)

    there = env != 1
    of_two = boda_loss(z[there], y[there], env[there] // 2, centroids[two], known[two], counts[two], 1.0, 1.0)
    in_one = boda_loss(z[~there], y[~there], env[~there], centroids, known, counts, 1.0, 1.0)
    assert_close(loss, (6 * of_two + 6 * in_one) / 12)
    assert boda_loss(z, y, env, centroids, known & False, counts, 1.0, 1.0) == 0


def test_the_centroids_of_boda_are_running_means_of_plain_features():
    algorithm = make_algorithm("BoDA", dataset="Toy", centroid_share=0.25, lr=0.0)
    first, second = (make_minibatches(dataset="Toy", seed=seed) for seed in (0, 1))
    means = []
    for minibatches in (first, second):
        algorithm.update(minibatches)
        x, y = minibatches[2]
        means.append(algorithm.featurizer(x[y == y[0]]).mean(dim=0))
        label = y[0]
        if minibatches is first:
            assert_close(algorithm.centroids[2, label], means[0].detach())
            kept = label
    if (second[2][1] == kept).any():
        seen = algorithm.featurizer(second[2][0][second[2][1] == kept]).mean(dim=0)
        assert_close(algorithm.centroids[2, kept], (0.75 * means[0] + 0.25 * seen).detach())


def test_crt_learns_features_first_and_then_the_classifier_alone_on_balanced_classes():
    algorithm = make_algorithm("CRT+BF", dataset="Toy", crt_share=0.5, crt_lr=1e-2, lr=1e-2)  # three of six updates
    inner, moved = algorithm.inner, []
    for seed in range(5):
        before = {name: value.clone() for name, value in algorithm.state_dict().items()}
        metrics = algorithm.update(make_minibatches(dataset="Toy", seed=seed))
        changed = {name for name, value in algorithm.state_dict().items() if not torch.equal(value, before[name])}
        moved.append({"featurizer" if "featurizer" in name else "classifier" for name in changed})

    assert moved == [{"featurizer", "classifier"}] * 3 + [{"classifier"}] * 2
    x, y = (torch.cat([batch[part] for batch in make_minibatches(dataset="Toy", seed=9)]) for part in (0, 1))
    env, counts = torch.arange(3).repeat_interleave(6), torch.arange(1, 10).view(3, 3)
    logits = inner.predict(x)
    expected = [F.cross_entropy(logits[env == e], y[env == e], weight=1 / counts[e]) for e in range(3)]
    metrics = algorithm.update(make_minibatches(dataset="Toy", seed=9))
    assert_close(metrics["loss"], torch.stack(expected).mean().detach())


def test_the_hardest_samples_of_a_class_weigh_most_as_upstream():
    generator = torch.Generator().manual_seed(1)
    logits, y, env = (
        torch.randn(8, 3, generator=generator),
        torch.tensor([0, 0, 1, 2, 0, 1, 1, 1]),
        torch.arange(8) // 4,
    )
    counts = torch.tensor([[10, 2, 5], [4, 8, 1]])
    weights = (1 / counts) / (1 / counts).mean(dim=1, keepdim=True)
    losses = F.cross_entropy(logits, y, reduction="none")
    expected = [(losses[y == k] * losses[y == k].softmax(dim=0) * weights[env[y == k], k]).sum() for k in range(3)]
    loss = HardestLoss(3, 2)
    loss.prepare(TrainingSet(counts, steps=1))

    assert_close(loss(logits, y, env), torch.stack(expected).mean())


def test_negatives_dominate_the_contrast_of_a_class_as_upstream():
    generator = torch.Generator().manual_seed(2)
    positives, negatives = (torch.randn(n, 3, generator=generator).softmax(dim=1) for n in (4, 5))
    distances = 1 - F.cosine_similarity(positives[:, None], torch.cat([positives, negatives])[None], dim=2)
    terms = []
    for row in range(4):
        others = [place for place in range(9) if place != row]
        terms.append(-(distances[row, 4:].exp().sum() / distances[row, others].exp().sum()).log())

    assert_close(negatives_loss(positives, negatives), torch.stack(terms).mean())
    assert negatives_loss(positives, negatives).item() == pytest.approx(UPSTREAM["margin"], abs=1e-5)


def test_prototypes_of_a_class_agree_across_environments_as_upstream():
    generator = torch.Generator().manual_seed(3)
    prototypes, classes = torch.randn(6, 4, generator=generator).softmax(dim=1), torch.tensor([0, 1, 2, 0, 1, 0])

    loss = prototype_loss(prototypes, classes)

    assert loss.item() == pytest.approx(UPSTREAM["prototypes"], abs=1e-5)
    alone = prototype_loss(prototypes, torch.arange(6))
    assert alone == 0  # every class in one environment


def test_the_numbers_of_negatives_sum_to_the_batch_and_equal_classes_get_equally_many():
    assert numbers_of_negatives(96, [2] * 48) == [2] * 48
    assert numbers_of_negatives(6, [4, 2]) == [4, 2]  # softmax([4 / 6, 2 / 6]), rounded up, as upstream
    assert sum(numbers_of_negatives(97, [40, 30, 20, 7])) == 97


def test_negatives_are_mixtures_of_hard_samples_with_samples_taken_for_their_class():
    np.random.seed(0)
    x = torch.eye(6)
    y = torch.tensor([0, 0, 0, 0, 1, 1])
    predicted = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6], [0.6, 0.4], [0.1, 0.9]])

    mixtures = dict(hard_negatives(x, y, predicted, alpha=0.2))

    assert [len(mixtures[label]) for label in (0, 1)] == [4, 2]  # of 6, by softmax([4 / 6, 2 / 6]), as upstream
    assert (mixtures[0][:, [1, 3]].sum(dim=1) > 0).all()  # the least confident half of class 0
    assert (mixtures[0][:, 4] > 0).all()  # the one that is taken for class 0
    assert (mixtures[0][:, [0, 2, 5]] == 0).all()
    assert_close(mixtures[1].sum(dim=1), torch.ones(len(mixtures[1])))


@pytest.mark.parametrize(
    ("name", "hparams", "reason"),
    [
        ("NDCL", {"class_balanced": True}, "so NDCL would balance them twice"),
        ("CRT", {"class_balanced": True}, "so CRT would balance them twice"),
        ("NDCL", {"label_smoothing": 0.1}, "so label_smoothing would do nothing"),
    ],
)
def test_hparams_that_would_do_nothing_or_the_same_twice_are_refused(name, hparams, reason):
    with pytest.raises(InputError, match=reason):
        make_algorithm(name, **hparams)

"""Methods that act on features, compared with their definitions."""

import numpy as np
import pytest
import torch
from support import make_algorithm, make_minibatches
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from dg_batchformer.algorithms.adrmx import domain_contrast, pairs_of_classes
from dg_batchformer.algorithms.coral import coral_distance
from dg_batchformer.algorithms.mmd import GAMMAS, gaussian_kernel, mmd_distance
from dg_batchformer.algorithms.selfreg import same_class_partners


def test_mmds_kernel_and_distance_by_hand():
    a, b = torch.randn(4, 3), torch.randn(5, 3)
    by_hand = torch.tensor(
        [[sum(np.exp(-gamma * float((p - q).square().sum())) for gamma in GAMMAS) for q in b] for p in a]
    )

    assert_close(gaussian_kernel(a, b), by_hand.float(), rtol=1e-4, atol=1e-5)
    assert_close(mmd_distance(a, a), torch.tensor(0.0))
    far = sum(np.exp(-gamma * 4.0) for gamma in GAMMAS)  # two points at distance 2
    assert_close(mmd_distance(torch.zeros(1, 1), torch.full((1, 1), 2.0)).item(), 2 * (len(GAMMAS) - far))


def test_causirl_compares_two_pools_that_mix_all_domains(monkeypatch):
    algorithm = make_algorithm("CausIRL_CORAL", dataset="Toy")
    features = [torch.randn(4, 3) for _ in range(2)]
    cuts = iter([1, 3])
    monkeypatch.setattr(np.random, "randint", lambda low, high: next(cuts))

    penalty = algorithm.penalty(features)

    first = torch.cat([features[0][:1], features[1][:3]])
    second = torch.cat([features[0][1:], features[1][3:]])
    assert_close(penalty, coral_distance(first, second))


@pytest.mark.parametrize("name", ["CausIRL_CORAL", "CausIRL_MMD"])
def test_causirl_compares_nothing_if_a_pool_has_one_sample(name, monkeypatch):
    monkeypatch.setattr(np.random, "randint", lambda low, high: 0)

    assert make_algorithm(name, dataset="Toy").penalty([torch.randn(4, 3)] * 2) == 0


@pytest.mark.parametrize("name", ["CORAL+BF", "MMD+BF", "IB_ERM+BF", "BoDA+BF", "CondCAD+BF", "Fishr+BF", "RIDG+BF"])
def test_penalties_are_not_differentiated_up_to_frozen_features_and_updates_stay_the_same(name, tmp_path, monkeypatch):
    torch.save(make_algorithm("ERM", seed=3).featurizer.state_dict(), tmp_path / "weights.pth")
    frozen = {"freeze": "featurizer", "weights": str(tmp_path / "weights.pth")}
    pruned, whole = (make_algorithm(name, **frozen) for _ in range(2))
    inner = whole.inner
    monkeypatch.setattr(inner, "plain_features", lambda z, num_domains=1: inner.split_streams(z, num_domains)[0])
    z = torch.ones(12, 4, requires_grad=True)

    assert not pruned.inner.plain_features(z).requires_grad
    assert make_algorithm(name).inner.plain_features(z).requires_grad
    for seed in range(4):
        minibatches = make_minibatches(seed=seed)
        updates = []
        for algorithm in (pruned, whole):
            np.random.seed(seed), torch.manual_seed(seed)
            updates.append(algorithm.update(minibatches))
        assert_close(*updates, rtol=0, atol=0)
    assert_close(pruned.state_dict(), whole.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["IB_ERM", "IB_IRM"])
def test_the_bottleneck_is_the_variance_of_features_and_starts_at_its_update(name):
    given = {"ib_penalty_anneal_iters": 2, "ib_lambda": 50.0}
    algorithm = make_algorithm(name, dataset="Toy", **given)
    weights = []
    for seed in range(4):
        minibatches = make_minibatches(dataset="Toy", seed=seed)
        variance = torch.stack([algorithm.featurizer(x).var(dim=0).mean() for x, _ in minibatches]).mean().detach()
        metrics = algorithm.update(minibatches)
        assert_close(metrics["IB_penalty"], variance)
        rest = metrics["loss"] - metrics["nll"] - metrics.get("IRM_penalty", 0)  # its weight is 1 until update 500
        weights.append((rest / metrics["IB_penalty"]).item())

    assert weights == pytest.approx([0, 0, 50, 50], rel=1e-2, abs=1e-3)


def test_mixup_trains_on_convex_combinations_of_neighbours_in_a_ring(monkeypatch):
    algorithm, minibatches = make_algorithm("Mixup", dataset="Toy"), make_minibatches(dataset="Toy")
    monkeypatch.setattr(np.random, "beta", lambda a, b: 0.3)
    monkeypatch.setattr(torch, "randperm", lambda n: torch.tensor([2, 0, 1]))
    risks = []
    for first, second in ((2, 0), (0, 1), (1, 2)):
        (x, y), (other_x, other_y) = minibatches[first], minibatches[second]
        logits = algorithm.predict(0.3 * x + 0.7 * other_x)
        risks.append(0.3 * F.cross_entropy(logits, y) + 0.7 * F.cross_entropy(logits, other_y))

    loss = algorithm.update(minibatches)["loss"]

    assert_close(loss, torch.stack(risks).mean().detach())


def test_rsc_mutes_the_features_with_the_largest_gradients_in_the_most_affected_samples():
    algorithm = make_algorithm("RSC", dataset="Toy", rsc_f_drop_factor=0.25, rsc_b_drop_factor=0.5)
    z, y = torch.rand(8, algorithm.featurizer.n_outputs), torch.arange(8) % 3
    classifier = algorithm.classifier
    gradient = classifier.weight[y].detach().numpy()  # of the true logit, whatever z is
    muted = gradient >= np.percentile(gradient, 75, axis=1, keepdims=True)
    with torch.no_grad():
        before, after = (classifier(rows).softmax(dim=1)[range(8), y] for rows in (z, z * ~torch.from_numpy(muted)))
    change = (before - after).numpy()
    challenged = change >= np.percentile(change, 50)

    kept = algorithm.kept_features(z, y)

    assert np.array_equal(kept.numpy() == 0, muted & challenged[:, None])
    assert challenged.sum() == 4


def test_sagnet_keeps_content_and_mixes_style():
    algorithm, z = make_algorithm("SagNet", dataset="Toy"), torch.rand(6, 16)

    mixed = algorithm.with_other_style(z, num_domains=3)

    assert_close(_content(mixed), _content(z), rtol=1e-3, atol=1e-3)
    means, mixed_means = z.mean(dim=1), mixed.mean(dim=1)
    assert not torch.allclose(mixed_means, means)
    assert means.min() - 1e-6 <= mixed_means.min() < mixed_means.max() <= means.max() + 1e-6


def test_sagnets_adversary_sees_style_with_the_content_of_another_sample():
    algorithm, z = make_algorithm("SagNet", dataset="Toy"), torch.rand(6, 16)
    algorithm.style_classifier = nn.Identity()

    seen = algorithm.style_logits(z)

    assert_close(seen.mean(dim=1), z.mean(dim=1))
    assert_close(seen.std(dim=1), z.std(dim=1), rtol=1e-3, atol=1e-3)
    assert_close(_content(seen).sort(dim=0).values, _content(z).sort(dim=0).values, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(_content(seen), _content(z), atol=1e-2)


def _content(z):
    return (z - z.mean(dim=1, keepdim=True)) / z.std(dim=1, keepdim=True)


def test_selfregs_partners_are_a_permutation_within_classes():
    y = torch.tensor([0, 1, 0, 2, 1, 0, 1])
    reached = {sample: set() for sample in range(7)}

    for _ in range(200):
        partners = same_class_partners(y)
        assert partners.sort().values.tolist() == list(range(7))
        assert torch.equal(y[partners], y)
        for sample, partner in enumerate(partners.tolist()):
            reached[sample].add(partner)

    assert all(len(reached[sample]) == int((y == y[sample]).sum()) for sample in reached)


def test_selfreg_equals_erm_if_classes_are_points_and_trains_its_projection_head():
    algorithm = make_algorithm("SelfReg", dataset="Toy")
    z = torch.randn(3, 16)[[0, 1, 2, 0, 1, 2]]
    algorithm.projection = nn.Identity()

    assert_close(algorithm.dissimilarity(z, 2 * z, torch.tensor([0, 1, 2] * 2)), torch.tensor(0.0))
    algorithm = make_algorithm("SelfReg", dataset="Toy")
    before = algorithm.projection[0].weight.detach().clone()
    algorithm.update(make_minibatches(dataset="Toy"))
    assert not torch.equal(algorithm.projection[0].weight, before)


def test_mtl_classifies_with_a_moving_average_of_mean_features_of_domains():
    algorithm = make_algorithm("MTL", dataset="Toy", mtl_ema=0.75)
    embeddings = torch.zeros(3, 16)
    for seed in range(2):
        minibatches = make_minibatches(dataset="Toy", seed=seed)
        loss = torch.zeros(())
        for env, (x, y) in enumerate(minibatches):
            z = algorithm.featurizer(x).detach()
            embeddings[env] = 0.75 * z.mean(dim=0) + 0.25 * embeddings[env]
            loss += F.cross_entropy(algorithm.classifier(torch.cat([z, embeddings[env].expand(6, -1)], dim=1)), y)

        metrics = algorithm.update(minibatches)

        assert_close(metrics["loss"], loss.detach())
        assert_close(algorithm.embeddings, embeddings)


def test_arm_adapts_by_the_context_of_each_group_of_a_batch():
    algorithm = make_algorithm("ARM", dataset="Toy", batch_size=4).eval()
    (one, _), (other, _) = make_minibatches(n=4, num_domains=2, dataset="Toy")

    together = algorithm.predict(torch.cat([one, other]))

    assert_close(together, torch.cat([algorithm.predict(one), algorithm.predict(other)]))
    swapped = algorithm.predict(torch.cat([one[:2], other[2:]]))
    assert not torch.allclose(swapped[:2], together[:2])


@pytest.mark.parametrize("flipped", [True, False])
@pytest.mark.parametrize("name", ["CAD", "CondCAD"])
def test_cads_bottleneck_by_hand(name, flipped):
    algorithm = make_algorithm(name, dataset="Toy", temperature=0.5, is_flipped=flipped)
    z, y, d = torch.randn(7, 4), torch.tensor([0, 0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 1, 1, 0, 1, 1])
    similarity = z @ z.T / 0.5
    terms = []
    for anchor in range(7):
        partners = [j for j in range(7) if j != anchor and y[j] == y[anchor]]
        among = partners if name == "CondCAD" else [j for j in range(7) if j != anchor]
        sought = [j for j in among if (d[j] != d[anchor]) == flipped]
        counts = sought if name == "CondCAD" else partners
        if counts:
            shares = [sum(similarity[anchor, j].exp() for j in rows) for rows in (sought, among)]
            if name == "CAD" and not flipped:
                shares[0] = shares[0] + 1  # the anchor itself, whose similarity is set to 0, as upstream
            terms.append((shares[0] / shares[1]).log())
    expected = (-1 if flipped else 1) * 0.5 / 0.07 * torch.stack(terms).mean()

    assert_close(algorithm.bottleneck_loss(z, y, d), expected, rtol=1e-4, atol=1e-4)


def test_adrmxs_contrast_by_hand():
    z, y = torch.randn(6, 3), torch.tensor([0, 0, 1, 1, 1, 2])
    unit = z / z.norm(dim=1, keepdim=True)
    anchors = []
    for i in range(5):  # the last sample is the only one of its class
        similar = {j: (0.5 * (unit[i] @ unit[j] / 0.07).exp()).item() for j in range(6) if j != i}
        same = [j for j in similar if y[j] == y[i]]
        anchors.append(-np.mean([np.log(similar[j] / (sum(similar.values()) + 1e-5) + 1e-5) for j in same]))

    assert domain_contrast(z, y).item() == pytest.approx(sum(anchors) / (5 + 1), rel=1e-4)


def test_adrmx_mixes_two_samples_of_every_class_with_at_least_two():
    y = torch.tensor([1, 0, 1, 2, 1, 2])
    drawn = set()
    for _ in range(100):
        own, other, enough = pairs_of_classes(y, 4)
        assert enough.tolist() == [False, True, True, False]
        for kind in (1, 2):
            assert own[kind] != other[kind]
            assert y[own[kind]] == y[other[kind]] == kind
        drawn.add((own[1].item(), other[1].item()))
    assert len(drawn) == 6

    algorithm = make_algorithm("ADRMX", dataset="Toy")  # of 3 classes
    difference, domain = (torch.randn(6, 16, requires_grad=True) for _ in range(2))
    algorithm.remixed_loss(difference, domain, y).backward()
    touched = difference.grad.abs().sum(dim=1) > 0
    assert y[touched].sort().values.tolist() == [1, 2]
    assert not (domain.grad.abs().sum(dim=1) > 0)[touched].any()


def test_urm_penalises_features_that_its_adversary_tells_from_noise():
    algorithm = make_algorithm("URM", dataset="Toy", urm_adv_lambda=0.5, urm_discriminator_lr=1e-2, lr=0.0)
    minibatches = make_minibatches(dataset="Toy")
    x, y = (torch.cat([batch[part] for batch in minibatches]) for part in (0, 1))
    z = torch.tanh(algorithm.featurizer(x)).detach()
    taken_for_noise = F.softplus(-algorithm.discriminator(z)).mean()
    expected = F.cross_entropy(algorithm.classifier(z), y) + 0.5 * taken_for_noise

    assert_close(algorithm.update(minibatches)["loss"], expected.detach())
    for _ in range(40):
        algorithm.update(minibatches)

    noise = torch.rand_like(z) * 2 - 1
    assert algorithm.discriminator(noise).mean() > 1 > -1 > algorithm.discriminator(z).mean()


def test_cdann_weights_classes_equally():
    algorithm = make_algorithm("CDANN", dataset="Toy")
    y = torch.tensor([0, 0, 0, 0, 1, 2, 2])

    weights = [algorithm.weigh((y == kind).float(), y).item() for kind in range(3)]

    assert weights == pytest.approx([1 / algorithm.num_classes] * 3)

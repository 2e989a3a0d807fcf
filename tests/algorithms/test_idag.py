"""iDAG: its graph, its prototypes, and what it keeps."""

import math

import pytest
import torch
from support import make_algorithm, make_minibatches
from torch.nn import functional as F
from torch.testing import assert_close

from dg_batchformer.algorithms.idag import Graph, contrast, moved_means


def test_a_new_graph_leads_from_every_feature_to_the_label_without_cycles():
    graph = Graph(3)

    assert_close(graph(torch.tensor([[1.0, 2.0, 3.0]])), torch.tensor([[1.0, 2.0, 3.0]]))
    assert_close(graph.paths().trace(), torch.tensor(4.0))


def test_a_cycle_is_counted_and_edges_to_oneself_are_removed():
    graph = Graph(2)
    with torch.no_grad():
        graph.positive[0, 1] = graph.negative[1, 0] = 1.0
        graph.positive[1, 1] = 5.0
        graph.negative[0, 2] = -1.0

    graph.project()

    with torch.no_grad():
        assert_close(graph.paths().trace(), torch.tensor(1 + 2 * math.cosh(1)))
        assert_close(graph.weights.diagonal(), torch.zeros(3))
        assert min(graph.positive.min(), graph.negative.min()) == 0


def test_means_move_by_one_sample_after_another():
    means, z, cells = F.normalize(torch.randn(3, 4), dim=1), torch.randn(6, 4), torch.tensor([0, 2, 0, 0, 2, 0])
    expected = means.clone()
    for sample, cell in zip(z, cells, strict=True):
        expected[cell] = 0.9 * expected[cell] + 0.1 * sample

    assert_close(moved_means(means, cells, z, 0.9), F.normalize(expected, dim=1))


def test_samples_at_their_prototypes_have_little_contrast():
    prototypes = torch.eye(3)

    assert float(contrast(2 * prototypes, prototypes, torch.arange(3), 0.01)) == pytest.approx(0.0, abs=1e-6)
    assert float(contrast(prototypes, prototypes, torch.tensor([1, 2, 0]), 0.1)) > 9


def test_the_graph_learns_only_after_the_annealing():
    algorithm = make_algorithm("iDAG", dataset="Toy", idag_anneal_steps=2, idag_width=8)
    before, weights = algorithm.graph.weights.detach().clone(), []
    for seed in range(4):
        algorithm.update(make_minibatches(dataset="Toy", seed=seed))
        weights.append(algorithm.graph.weights.detach().clone())

    assert_close(weights[1], before)
    assert not torch.equal(weights[3], before)


def test_rho_grows_while_there_are_not_much_fewer_cycles():
    algorithm = make_algorithm("iDAG", dataset="Toy", idag_width=8, idag_rho_max=100)
    rhos = []
    for cycles in (1.0, 0.5, 0.1, 0.05, 0.04):
        algorithm._adapt(torch.tensor(cycles))
        rhos.append(float(algorithm.rho))

    assert rhos == [1.0, 10.0, 10.0, 100.0, 100.0]
    assert float(algorithm.alpha) == pytest.approx(1 + 10 * 0.5 + 100 * 0.05)


def test_masked_features_are_those_that_predict():
    algorithm = make_algorithm("iDAG", dataset="Toy", idag_width=8)
    algorithm.eval()
    [(x, _), *_] = make_minibatches(dataset="Toy")
    with torch.no_grad():
        algorithm.graph.positive.zero_()

    assert_close(algorithm.predict(x), algorithm.classifier.bias.expand(len(x), -1))

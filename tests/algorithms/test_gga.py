import copy
from itertools import combinations

import pytest
import torch
from support import make_algorithm, make_minibatches
from torch.nn import functional as F
from torch.testing import assert_close

from dg_batchformer.training.loop import seed_everything


def _measured(network, minibatches):
    """Return the least cosine of two environments' gradients, and the risk on all samples."""
    directions = []
    for x, y in minibatches:
        gradients = torch.autograd.grad(F.cross_entropy(network(x), y), list(network.parameters()))
        direction = torch.cat([gradient.flatten() for gradient in gradients])
        directions.append(direction / direction.norm())
    x, y = (torch.cat([batch[part] for batch in minibatches]) for part in (0, 1))
    return min(float(a @ b) for a, b in combinations(directions, 2)), F.cross_entropy(network(x), y).item()


def _searched(network, minibatches, *, trials, radius):
    """Return the network that the search accepts last, and the number of accepted ones."""
    best, accepted, walker = copy.deepcopy(network), 0, copy.deepcopy(network)
    similarity, risk = _measured(network, minibatches)
    for _ in range(trials):
        for weight in walker[0].parameters():  # of the featurizer
            weight.data += radius * (2 * torch.rand(weight.shape) - 1)
        tried = _measured(walker, minibatches)
        if tried[0] > similarity and tried[1] - risk < 0.1:
            (similarity, risk), accepted = tried, accepted + 1
            best, walker = copy.deepcopy(walker), copy.deepcopy(network)
    return best, accepted


def test_an_update_is_made_at_the_weights_that_the_search_accepts_last():
    algorithm = make_algorithm("GGA", dataset="Toy", gga_start_step=0, gga_trials=20, gga_radius=1e-2)
    algorithm.optimizer = torch.optim.SGD(algorithm.network.parameters(), lr=0.0)
    minibatches = make_minibatches(dataset="Toy")
    seed_everything(0)
    expected, accepted = _searched(algorithm.network, minibatches, trials=20, radius=1e-2)

    seed_everything(0)
    metrics = algorithm.update(minibatches)

    assert 1 < accepted < 20
    assert_close(algorithm.network.state_dict(), expected.state_dict())
    assert metrics["similarity"].item() == pytest.approx(_measured(expected, minibatches)[0], abs=1e-5)


def test_it_searches_from_the_first_to_the_last_step_asked_for():
    algorithm = make_algorithm("GGA", dataset="Toy", gga_start_step=1, gga_end_step=2, gga_trials=1)

    searched = ["similarity" in algorithm.update(make_minibatches(dataset="Toy")) for _ in range(4)]

    assert searched == [False, True, True, False]


def test_the_search_leaves_batch_norm_alone():
    algorithm = make_algorithm("GGA", backbone="wrn16_2", gga_start_step=0, gga_trials=1, gga_radius=0.0)
    erm = make_algorithm("ERM", backbone="wrn16_2")
    for one in (algorithm, erm):
        one.update(make_minibatches(n=2))

    assert_close(algorithm.featurizer.bn1.running_mean, erm.featurizer.bn1.running_mean, rtol=0, atol=1e-6)
    assert algorithm.featurizer.bn1.momentum == 0.9

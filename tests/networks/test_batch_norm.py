import torch
from torch import nn
from torch.testing import assert_close

from dg_batchformer.networks import base
from dg_batchformer.networks.batch_norm import has_live_batch_norm, reestimate_batch_norm
from dg_batchformer.networks.cnn import TinyCnn


def test_reestimated_statistics_are_the_means_over_the_batches():
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    network(torch.randn(8, 3) + 100)
    batches = [torch.randn(8, 3) + 5 for _ in range(4)]

    reestimate_batch_norm(network, batches)

    assert_close(network[0].running_mean, torch.stack(batches).mean(dim=(0, 1)))
    assert network[0].momentum == 0.1
    assert has_live_batch_norm(network)


def test_statistics_are_reestimated_uncompiled(monkeypatch):
    def fail(graphs):
        raise AssertionError("a cumulative mean breaks compiled graphs at every layer")

    monkeypatch.setattr(base, "compiled_features", fail)
    network = nn.Sequential(TinyCnn(3), nn.Linear(16, 2))
    network[0].compiles_training = True

    reestimate_batch_norm(network, [torch.randn(4, 3, 16, 16)])

    assert network[0].compiles_training


def test_frozen_statistics_are_left_alone():
    network = nn.Sequential(nn.BatchNorm1d(3)).eval()

    reestimate_batch_norm(network, [torch.randn(8, 3)])

    assert not has_live_batch_norm(network)
    assert_close(network[0].running_mean, torch.zeros(3))

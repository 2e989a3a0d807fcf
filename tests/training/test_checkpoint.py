import random
from collections import deque

import numpy as np
import pytest
import torch
from torch import nn

from dg_batchformer.networks import Featurizer
from dg_batchformer.networks.backbones import BACKBONES
from dg_batchformer.training import checkpoint
from dg_batchformer.training.trust import Refused


class Holder(nn.Module):
    """An algorithm with an attribute of every kind that methods may have."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.parameters_too = list(self.layer.parameters())
        self.optimizer = torch.optim.Adam(self.layer.parameters())
        self.generator = torch.Generator()
        self.python, self.numpy = random.Random(0), np.random.RandomState(0)
        self.count, self.ema = 0, None
        self.queue, self.table, self.pairs = deque(maxlen=2), {}, [(1, {2})]
        self.array = np.zeros(2)
        self.distance = torch.cdist

    def live(self):
        self.optimizer.zero_grad()
        self.layer(torch.randn(3, 2)).sum().backward()
        self.optimizer.step()
        self.count += np.int64(3)
        self.ema = torch.randn(2)
        self.queue.append(torch.randn(2))
        self.table[3, "a"] = [torch.randn(1), "text"]
        self.array += 1
        return torch.rand(1, generator=self.generator).item(), self.python.random(), self.numpy.rand()


def _through_disk(state, path):
    checkpoint.save(path / "c.pt", state)
    return checkpoint.load(path / "c.pt", torch.device("cpu"))


def test_all_changing_state_is_restored(tmp_path):
    one, other = Holder(), Holder()
    one.live()
    checkpoint.restore(other, _through_disk(checkpoint.capture(one), tmp_path))
    torch.manual_seed(1)
    left = one.live()
    torch.manual_seed(1)
    right = other.live()

    assert left == right
    assert one.count == other.count == 6
    assert torch.equal(one.ema, other.ema)
    assert all(torch.equal(a, b) for a, b in zip(one.queue, other.queue, strict=True))
    assert other.queue.maxlen == 2
    assert other.table[3, "a"][1] == "text"
    assert other.pairs == [(1, {2})]
    assert (other.array == 2).all()
    assert torch.equal(one.layer.weight, other.layer.weight)
    assert other.parameters_too[0] is other.layer.weight


@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name != "mlp"])
def test_every_backbone_can_be_kept(backbone, tmp_path):
    size = {"mnist_cnn": 28, "wrn16_2": 32}.get(backbone, 40)
    hparams = {"backbone": backbone, "resnet_dropout": 0.1, "lite_dropout": 0.1}
    one, other = (Featurizer((3, size, size), hparams) for _ in range(2))

    checkpoint.restore(other, _through_disk(checkpoint.capture(one), tmp_path))

    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("value", [object(), [nn.Linear(1, 1)], [torch.cdist, 3], (i for i in "ab")])
def test_state_that_cannot_be_saved_is_named(value):
    holder = Holder()
    holder.layer.odd = value

    with pytest.raises(TypeError, match=r"attribute layer\.odd.* is a .* which a checkpoint cannot save"):
        checkpoint.capture(holder)


def test_state_for_something_not_built_yet_is_named(tmp_path):
    one, other = Holder(), Holder()
    other.optimizer = None

    with pytest.raises(Refused, match="optimizer is the state of an object that does not exist yet"):
        checkpoint.restore(other, _through_disk(checkpoint.capture(one), tmp_path))


class Average:
    """State in an object that is not a module."""

    def __init__(self):
        self.values, self.updates, self.rule = {}, 0, max


def test_objects_in_lists_and_buffers_that_grow_are_kept(tmp_path):
    one, other = Holder(), Holder()
    for holder in (one, other):
        holder.averages = [Average(), Average()]
        holder.layer.register_buffer("weights", torch.Tensor())
    one.averages[1].values["x"], one.averages[1].updates = torch.ones(2), 3
    one.layer.weights = torch.ones(3)
    kept = other.averages[1]

    checkpoint.restore(other, _through_disk(checkpoint.capture(one), tmp_path))

    assert other.averages[1] is kept
    assert (kept.updates, kept.rule, kept.values["x"].tolist()) == (3, max, [1, 1])
    assert other.averages[0].values == {}
    assert other.layer.weights.tolist() == [1, 1, 1]

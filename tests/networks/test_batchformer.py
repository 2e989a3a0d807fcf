import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dg_batchformer.networks import Featurizer
from dg_batchformer.networks.batchformer import BatchFormer, batchformers, without_batchformer

BF = {"bf_heads": 4, "bf_layers": 1, "bf_dropout": 0.0, "bf_scope": "joint"}


def _featurizer(**given):
    return Featurizer((3, 32, 32), {"backbone": "tiny", **BF, **given})


def _paired(featurizer, x, n):
    """Run x, (domains, n, ...), with every minibatch doubled."""
    for layer in batchformers(featurizer):
        layer.paired_rows = n
    try:
        z = featurizer(torch.stack([x, x], dim=1).flatten(0, 2))
    finally:
        for layer in batchformers(featurizer):
            layer.paired_rows = None
    return z.unflatten(0, (len(x), 2, n))


def test_the_layer_is_the_released_one():
    layer = BatchFormer(512, heads=4, layers=1, dropout=0.5, scope="joint")

    assert sum(parameter.numel() for parameter in layer.parameters()) == 6 * 512**2 + 10 * 512 == 1_577_984


def test_heads_divide_the_width():
    assert BatchFormer(6, heads=4, layers=1, dropout=0, scope="joint").layers[0].self_attn.num_heads == 2


def test_layers_do_not_share_an_initialisation():
    first, second = BatchFormer(8, heads=4, layers=2, dropout=0, scope="joint").layers

    assert not torch.equal(first.linear1.weight, second.linear1.weight)


@pytest.mark.parametrize("scope", ["joint", "per_domain", "sample"])
def test_positions_are_attended_one_by_one_by_the_same_layer(scope):
    layer = BatchFormer(8, heads=4, layers=2, dropout=0.0, scope=scope)
    z = torch.randn(3, 4, 2, 5, 8)

    attended = layer(z)

    for row in range(2):
        for column in range(5):
            assert_close(attended[:, :, row, column], layer(z[:, :, row, column]))


@pytest.mark.parametrize(("scope", "reaches"), [("joint", {0, 1, 2, 3}), ("per_domain", {0, 1}), ("sample", {0})])
def test_a_sample_attends_to_its_scope(scope, reaches):
    layer = BatchFormer(8, heads=4, layers=1, dropout=0.0, scope=scope)
    z = torch.randn(2, 2, 8, requires_grad=True)

    gradient = torch.autograd.grad(layer(z)[0, 0].square().sum(), z)[0].flatten(0, 1)

    assert {row for row in range(4) if gradient[row].abs().sum() > 0} == reaches


def test_plain_rows_are_the_features_and_twins_attended_ones_and_the_backbone_runs_once():
    featurizer = _featurizer()
    calls = []
    featurizer.layers[1].register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    x = torch.randn(3, 5, 3, 32, 32)

    z = _paired(featurizer, x, 5)

    assert calls == [15]
    plain = featurizer(x.flatten(0, 1)).unflatten(0, (3, 5))
    assert_close(z[:, 0], plain)
    assert_close(z[:, 1], featurizer.batchformer(plain))


def test_the_order_of_the_batch_does_not_matter():
    layer = BatchFormer(8, heads=4, layers=2, dropout=0.0, scope="joint")
    z, order = torch.randn(1, 6, 8), torch.randperm(6)

    assert_close(layer(z[:, order]), layer(z)[:, order])


def test_a_copy_is_tied_to_its_own_encoder():
    featurizer = nn.Sequential(_featurizer(), nn.Linear(16, 2))
    clone = copy.deepcopy(featurizer)
    with torch.no_grad():
        for parameter in clone[0].batchformer.parameters():
            parameter.zero_()
    x = torch.randn(1, 4, 3, 32, 32)

    assert _paired(clone[0], x, 4)[:, 1].abs().sum() == 0
    assert _paired(featurizer[0], x, 4)[:, 1].abs().sum() > 0


def test_rows_that_are_not_whole_minibatches_are_refused_with_the_reason():
    featurizer = _featurizer()
    featurizer.batchformer.paired_rows = 4

    with pytest.raises(ValueError, match="cannot pair 9 rows: it expects whole minibatches of 4 plain rows"):
        featurizer(torch.randn(9, 3, 32, 32))


def test_the_base_initialisation_is_the_same_with_and_without():
    torch.manual_seed(3)
    plain = nn.Sequential(Featurizer((3, 32, 32), {"backbone": "tiny"}), nn.Linear(16, 2))
    torch.manual_seed(3)
    with_bf = nn.Sequential(_featurizer(), nn.Linear(16, 2))

    assert_close(without_batchformer(with_bf).state_dict(), plain.state_dict(), rtol=0, atol=0)


def test_the_view_without_it_shares_every_other_parameter():
    network = nn.Sequential(_featurizer(), nn.Linear(16, 2))
    view = without_batchformer(network)
    with torch.no_grad():
        network[1].bias.fill_(7)

    assert not batchformers(view)
    assert view[1] is network[1]
    assert len(list(view.parameters())) == len(list(network.parameters())) - 12
    x = torch.randn(2, 3, 32, 32)
    assert_close(view(x), network(x), rtol=0, atol=0)
    assert batchformers(network)

"""Measurements of attention, gradients and features, compared with their definitions."""

import pytest
import torch
from support import make_algorithm, quick_spec
from torch.nn import functional as F
from torch.testing import assert_close

from dg_batchformer.explain.held_out import HeldOut, draw_batches
from dg_batchformer.explain.load import Kept
from dg_batchformer.explain.measure import measure
from dg_batchformer.explain.pairs import OTHER_CLASS, OTHERS, SAME_CLASS
from dg_batchformer.explain.quantities import (
    Projection,
    accounted_for,
    gradient_magnitudes,
    principal_components,
    recorded_attention,
    relative_to_uniform,
    stream_losses,
)
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.networks.batchformer import BatchFormer

ROWS = torch.arange(6)


def _batchformer(scope="joint", layers=2, norm_first=False):
    torch.manual_seed(1)
    batchformer = BatchFormer(8, heads=4, layers=layers, dropout=0.5, scope=scope).eval()
    for layer in batchformer.layers:
        layer.norm_first = norm_first
    return batchformer


@pytest.mark.parametrize(("scope", "shape"), [("joint", (1, 6, 6)), ("per_domain", (2, 3, 3))])
def test_recorded_attention_is_a_distribution_for_each_sample_and_layer(scope, shape):
    with recorded_attention(_batchformer(scope)) as weights:
        pass
    assert weights == []

    batchformer = _batchformer(scope)
    with recorded_attention(batchformer) as weights:
        batchformer(torch.randn(2, 3, 8))
    batchformer(torch.randn(2, 3, 8))

    assert [tuple(of_layer.shape) for of_layer in weights] == [shape, shape]
    for of_layer in weights:
        assert_close(of_layer.sum(dim=-1), torch.ones(shape[:2]))
        assert_close(relative_to_uniform(of_layer).mean(), torch.tensor(1.0))


@pytest.mark.parametrize("norm_first", [False, True])
def test_recording_does_not_change_the_output_of_any_layer(norm_first):
    batchformer, z = _batchformer(norm_first=norm_first), torch.randn(2, 3, 8)
    expected = batchformer(z)

    with recorded_attention(batchformer):
        assert_close(batchformer(z), expected)


@pytest.mark.parametrize("norm_first", [False, True])
def test_recorded_attention_rebuilds_the_output_of_its_layer(norm_first):
    """With one head, attention times values, passed through the rest of the layer, equals its output."""
    torch.manual_seed(2)
    batchformer = BatchFormer(5, heads=1, layers=1, dropout=0.5, scope="joint").eval()
    [layer] = batchformer.layers
    layer.norm_first = norm_first
    z = torch.randn(1, 6, 5)

    with recorded_attention(batchformer) as weights:
        expected = batchformer(z)[0]

    attention, x = layer.self_attn, layer.norm1(z[0]) if norm_first else z[0]
    values = F.linear(x, attention.in_proj_weight[10:], attention.in_proj_bias[10:])
    attended = z[0] + attention.out_proj(weights[0][0] @ values)
    if norm_first:
        got = attended + layer.linear2(F.relu(layer.linear1(layer.norm2(attended))))
    else:
        attended = layer.norm1(attended)
        got = layer.norm2(attended + layer.linear2(F.relu(layer.linear1(attended))))
    assert_close(got, expected)


def test_gradients_between_samples_equal_those_computed_one_by_one():
    batchformer, classify = _batchformer(), torch.nn.Linear(8, 3)
    z, labels, rows = torch.randn(2, 3, 8), torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([4, 1])

    got = gradient_magnitudes(stream_losses(classify, batchformer, labels), z, rows)

    for row, magnitudes in zip(rows, got, strict=True):
        leaf = z.clone().requires_grad_()
        F.cross_entropy(classify(batchformer(leaf).flatten(0, 1))[row], labels[row]).backward()
        assert_close(magnitudes, leaf.grad.flatten(0, 1).abs().mean(dim=1))


def test_without_batchformer_no_gradient_crosses_samples_and_with_it_all_do():
    batchformer, classify, labels = _batchformer(), torch.nn.Linear(8, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    z = torch.randn(2, 3, 8)

    plain = gradient_magnitudes(stream_losses(classify, torch.nn.Identity(), labels), z, ROWS)
    behind = gradient_magnitudes(stream_losses(classify, batchformer, labels), z, ROWS)

    assert torch.equal(plain.bool(), torch.eye(6).bool())
    assert (behind > 0).all()


def test_principal_components_find_the_plane_that_features_lie_in():
    torch.manual_seed(0)
    plane, _ = torch.linalg.qr(torch.randn(7, 2))
    inside = torch.randn(50, 2) * torch.tensor([3.0, 1.0])

    points, shares = principal_components(inside @ plane.T + 5)

    assert_close(shares.sum(), torch.tensor(1.0).double())
    assert shares[0] > shares[1]
    centred = (inside - inside.mean(dim=0)).double()
    assert_close(torch.cdist(points, points), torch.cdist(centred, centred), atol=1e-4, rtol=1e-4)


def test_principal_components_of_the_same_rows_are_not_mirrored():
    z = torch.randn(20, 5)
    first = principal_components(z)

    beside = principal_components(z, Projection(-first.points, first.shares))

    assert_close(beside.points, -first.points)


def test_groups_explain_all_variance_if_they_are_points_and_none_if_they_are_equal():
    groups = torch.tensor([0, 0, 1, 1])
    z = torch.tensor([[0.0, 1], [0, 1], [2, 5], [2, 5]])

    assert accounted_for(z, groups) == pytest.approx(1)
    assert accounted_for(z, torch.tensor([0, 1, 0, 1])) == pytest.approx(0)


def test_batches_hold_equally_many_of_every_domain_no_image_twice_and_are_always_the_same():
    domains = torch.tensor([0] * 5 + [1] * 9 + [2] * 7)

    batches = list(draw_batches(domains, 32, 4))

    for batch in batches:
        assert batch.shape == (3, 5)
        assert len(batch.unique()) == 15
        assert_close(domains[batch], torch.arange(3)[:, None].expand(3, 5))
    assert not torch.equal(batches[0], batches[1])
    assert torch.equal(torch.stack(batches), torch.stack(list(draw_batches(domains, 32, 4))))


def _planted():
    """Return a BatchFormer that attends within classes, and images whose features are their class plus noise."""
    spec = quick_spec(algorithm="ERM+BF")
    predictor = make_algorithm("ERM", dataset="Toy").predictor
    batchformer = BatchFormer(16, heads=1, layers=1, dropout=0.5, scope="joint").eval()
    with torch.no_grad():
        attention = batchformer.layers[0].self_attn
        attention.in_proj_weight[:32] = torch.eye(16).repeat(2, 1) * 3  # query and key: the features
        attention.in_proj_bias.zero_()
    classes, domains = torch.arange(3).repeat(40), torch.arange(4).repeat_interleave(30)
    z = F.one_hot(classes, 16) + 0.1 * torch.randn(120, 16)
    kept = Kept(spec, resolve_hparams(spec), ["a", "b", "c"], (8,), predictor, predictor[0], batchformer)
    return kept, HeldOut(z, classes, domains, torch.arange(120), {})


def test_attention_planted_on_the_own_class_is_found():
    measured = measure(*_planted(), batches=3)

    [attention] = measured.attention
    assert attention.mean(SAME_CLASS) > 2 > 1 > 0.5 > attention.mean(OTHER_CLASS)
    assert (attention.by_class.diagonal() > 2).all()
    assert measured.gradients.mean(SAME_CLASS) > measured.gradients.mean(OTHER_CLASS) > 0
    assert measured.plain_gradients.mean(OTHERS) == 0


def test_attended_features_are_means_over_the_batches_of_an_image():
    kept, held_out = _planted()

    measured = measure(kept, held_out, batches=3)

    batches = list(draw_batches(held_out.domains, kept.hparams["batch_size"], 3))
    for row, attended in zip(measured.rows.tolist(), measured.attended, strict=True):
        found = [kept.batchformer(held_out.z[rows])[rows == row] for rows in batches]
        assert_close(attended[None], torch.cat(found).mean(dim=0, keepdim=True))
    assert set(measured.rows.tolist()) == set(torch.stack(batches).flatten().tolist())

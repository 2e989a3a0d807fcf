from itertools import product
from math import isnan, nan
from statistics import fmean, stdev

import pytest
import torch
from torch.testing import assert_close

from dg_batchformer.explain.pairs import (
    ITSELF,
    OTHER_CLASS,
    OTHER_DOMAIN,
    RELATIONS,
    SAME_CLASS,
    SAME_DOMAIN,
    PairMeans,
)


def _batch(seed, sequences=2, samples=9, rows=(0, 4, 5)):
    torch.manual_seed(seed)
    labels = [torch.randint(3, (sequences, samples)) for _ in range(2)]
    return torch.rand(sequences, len(rows), samples), torch.tensor(rows), *labels


def _pairs(batches):
    """Yield (value, rows of i and j, domains, classes) of each pair."""
    for values, rows, domains, classes in batches:
        for s, (r, i), j in product(range(len(values)), enumerate(rows.tolist()), range(values.shape[2])):
            yield values[s, r, j].item(), i, j, *(labels[s, k].item() for labels in (domains, classes) for k in (i, j))


def _means(batches):
    means = PairMeans(3, 3)
    for batch in batches:
        means.add(*batch)
    return means


def test_means_by_domain_and_class_equal_those_of_a_loop_over_other_samples():
    batches = [_batch(0), _batch(1)]

    means = _means(batches)

    others = [pair for pair in _pairs(batches) if pair[1] != pair[2]]
    for a, b in product(range(3), repeat=2):
        by_domain = fmean(value for value, _, _, *domains, _, _ in others if domains == [a, b])
        by_class = fmean(value for value, _, _, _, _, *classes in others if classes == [a, b])
        assert means.by_domain[a, b].item() == pytest.approx(by_domain)
        assert means.by_class[a, b].item() == pytest.approx(by_class)


@pytest.mark.parametrize("across", [True, False])
def test_means_between_classes_equal_those_of_a_loop(across):
    batches = [_batch(0), _batch(1)]

    mean, pairs = _means(batches).between([0, 2], [1, 2], across=across)

    expected = [p[0] for p in _pairs(batches) if p[1] != p[2] and p[5] != 1 and p[6] != 0 and (p[3] != p[4]) == across]
    assert mean == pytest.approx(fmean(expected))
    assert pairs == len(expected)


def test_relations_equal_those_of_a_loop():
    batches = [_batch(0), _batch(1)]
    means = _means(batches)

    pairs = list(_pairs(batches))
    same_class = [p[0] for p in pairs if p[1] != p[2] and p[5] == p[6]]
    other_domain = [p[0] for p in pairs if p[1] != p[2] and p[3] != p[4]]
    assert means.mean(SAME_CLASS) == pytest.approx(fmean(same_class))
    assert means.mean(OTHER_DOMAIN) == pytest.approx(fmean(other_domain))
    assert means.mean(ITSELF) == pytest.approx(fmean(p[0] for p in pairs if p[1] == p[2]))
    assert means.share(OTHER_DOMAIN) == pytest.approx(sum(other_domain) / sum(p[0] for p in pairs))
    assert means.uniform_share(OTHER_DOMAIN) == pytest.approx(len(other_domain) / len(pairs))
    of_batches = [fmean(p[0] for p in _pairs([batch]) if p[1] == p[2]) for batch in batches]
    assert means.standard_error(0) == pytest.approx(stdev(of_batches) / 2**0.5)


def test_shares_of_relations_sum_to_one():
    means = _means([_batch(2)])

    for parts in (range(len(RELATIONS)), (*ITSELF, *SAME_CLASS, *OTHER_CLASS), (*ITSELF, *SAME_DOMAIN, *OTHER_DOMAIN)):
        assert sum(means.share([part]) for part in parts) == pytest.approx(1)
        assert sum(means.uniform_share([part]) for part in parts) == pytest.approx(1)


def test_pairs_that_never_meet_have_no_mean():
    means = PairMeans(2, 1)
    alone = torch.tensor([[0, 0], [1, 1]])  # two sequences of one domain each

    means.add(torch.ones(2, 2, 2), torch.arange(2), alone, torch.zeros_like(alone))

    assert_close(means.by_domain, torch.tensor([[1, nan], [nan, 1]]).double(), equal_nan=True)
    assert isnan(means.mean(OTHER_DOMAIN))
    assert means.share(OTHER_DOMAIN) == 0

import json

import pytest
import torch
from support import make_algorithm, make_minibatches, quick_spec, run_quickly
from torch.testing import assert_close

from dg_batchformer.storage.folders import RunFolder


def _weights(algorithm):
    return [parameter.detach().clone() for parameter in algorithm.predictor.parameters()]


def _iterates(algorithm, count):
    """Train; return the weights after every update."""
    iterates = []
    for step in range(count):
        torch.manual_seed(step)
        algorithm.update(make_minibatches(seed=step))
        iterates.append(_weights(algorithm))
    return iterates


def _mean(iterates, shares):
    return [
        sum(share * tensor for share, tensor in zip(shares, tensors, strict=True)) / sum(shares)
        for tensors in zip(*iterates, strict=True)
    ]


@pytest.mark.parametrize("name", ["SMA", "SMA+MLDG+BF", "SMA+SAM"])
def test_sma_returns_the_arithmetic_mean_of_the_iterates_after_its_burn_in(name):
    algorithm = make_algorithm(name, sma_burn_in=3)
    iterates = _iterates(algorithm, 8)

    algorithm.finalize([])

    assert_close(_weights(algorithm), _mean(iterates[3:], [1] * 5))
    assert algorithm.summary == {"averaged_from": 3, "averaged_to": 7}


def test_sma_returns_the_last_iterate_of_a_run_that_ends_in_its_burn_in():
    algorithm = make_algorithm("SMA")
    iterates = _iterates(algorithm, 4)

    algorithm.finalize([])

    assert_close(_weights(algorithm), iterates[-1], rtol=0, atol=0)
    assert algorithm.summary == {"averaged_from": 3, "averaged_to": 3}


@pytest.mark.parametrize("decay", [0.0, 0.6, 1.0])
def test_ema_weighs_every_iterate_decay_times_what_the_next_weighs(decay):
    algorithm = make_algorithm("EMA+BF", ema_decay=decay)
    iterates = _iterates(algorithm, 6)

    algorithm.finalize([])

    assert_close(_weights(algorithm), _mean(iterates, [decay ** (5 - t) for t in range(6)]))


@pytest.mark.parametrize("name", ["SMA", "EMA"])
def test_averaging_leaves_training_alone(name):
    plain, averaged = (_iterates(make_algorithm(full), 3) for full in ("ERM", name))

    assert_close(averaged, plain, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "first"), [("SMA", 5), ("EMA", 0)])
def test_the_average_adds_one_record(name, first, tmp_path):
    hparams = {"sma_burn_in": 5} if name == "SMA" else {}

    run_quickly(quick_spec(algorithm=name, hparams=hparams), tmp_path)

    records = [json.loads(line) for line in RunFolder(tmp_path).records_file.read_text().splitlines()]
    assert [record.get("final", False) for record in records] == [False] * 4 + [True]
    assert (records[-1]["averaged_from"], records[-1]["averaged_to"]) == (first, 12)

"""``tools/count_step.py``: what a training step asks of a GPU does not grow."""

import runpy
from pathlib import Path

import pytest
import torch

TOOL = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "count_step.py"))


@pytest.fixture
def step(tmp_path):
    return lambda name="ERM": TOOL["Step"](name, "resnet18", 8, tmp_path)


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "in files"])
def test_the_data_of_a_step_take_one_copy_no_wait_and_few_launches(resident, step):
    launches, copies, waits = step().data(resident)

    assert launches <= 320
    assert (copies, waits) == (1, 0)


def test_a_batch_of_the_evaluation_takes_one_copy_and_no_wait(step):
    _, copies, waits = step().evaluation()

    assert (copies, waits) == (1, 0)


def test_copies_reads_and_launches_are_told_apart():
    meta, host = torch.device("meta"), torch.zeros(3)
    there = host.to(meta)

    with TOOL["Counter"](meta) as counter:
        host.add(1)  # on the host
        there.view(1, 3).add(1).mul_(2)
        host.to(meta, non_blocking=True)
        host.to(meta)
        there.copy_(host)
    with TOOL["Counter"](torch.device("cpu")) as read:
        host.sum().item()

    assert counter.counts == (2, 3, 2)
    assert read.counts == (2, 0, 1)

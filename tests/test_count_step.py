"""``tools/count_step.py``: what a training step asks of a GPU does not grow."""

import runpy
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from dg_batchformer.optim import recipe
from dg_batchformer.registry import ALGORITHMS, WRAPPERS

META = torch.device("meta")
TOOL = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "count_step.py"))


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    return lambda name="ERM": TOOL["Step"](name, "resnet18", 8, folder)


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "in files"])
def test_the_data_of_a_step_take_one_copy_no_wait_and_few_launches(resident, step):
    launches, copies, waits = step().data(resident)

    assert launches <= 330
    assert (copies, waits) == (1, 0)


def test_a_batch_of_the_evaluation_takes_one_copy_no_wait_and_few_launches(step):
    launches, copies, waits = step().evaluation()

    assert launches <= 80
    assert (copies, waits) == (1, 0)


def test_copies_reads_and_launches_are_told_apart():
    host = torch.zeros(3)
    there = host.to(META)

    with TOOL["Counter"](META) as counter:
        host.add(1)  # on the host
        there.view(1, 3).add(1).mul_(2)
        host.to(META, non_blocking=True)
        host.to(META)
        there.copy_(host)
    with TOOL["Counter"](torch.device("cpu")) as read:
        host.sum().item()

    assert counter.counts == (2, 3, 2)
    assert read.counts == (2, 0, 1)


READS = {"NDCL"}  # the numbers of its negatives depend on the classes of a batch


@pytest.mark.parametrize("name", sorted({*ALGORITHMS, *WRAPPERS, "SWAD+BF"} - READS))
def test_updates_copy_nothing_and_never_wait(name, step):
    step = step(name)
    with patch.object(recipe, "_FUSED", ()):
        counts = TOOL["count"](step.updates(step.algorithm("fp32").to("meta"), torch.device("meta")), META)

    assert (counts.copies, counts.waits) == (0, 0)


@pytest.mark.parametrize(("backbone", "most"), [("resnet18", 200), ("resnet50", 370)])  # 20 and 53 convolutions
def test_frozen_batch_norm_takes_few_operations_per_layer(backbone, most, tmp_path):
    assert TOOL["Step"]("ERM", backbone, 8, tmp_path).update().launches <= most

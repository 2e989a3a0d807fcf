"""``tools/gpu_check.py``: what a first contact with a GPU reports; ``tests/system`` rehearses all of it."""

import runpy
import sys
import warnings
from argparse import Namespace
from pathlib import Path

import pytest
import torch

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture
def check(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(TOOLS), *sys.path])
    tool = runpy.run_path(str(TOOLS / "gpu_check.py"))
    options = Namespace(data_dir=tmp_path, out=tmp_path, seconds=100, only=["machine"])
    return tool["Check"](options, torch.device("cuda", 0), tmp_path)


def test_only_operations_that_wait_for_the_gpu_count_as_waits(check, monkeypatch):
    def set_mode(mode):
        if mode == "warn":  # PyTorch warns of the mode itself
            text = (
                "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations"
            )
            warnings.warn(text, stacklevel=2)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)

    with check.watched() as places:
        pass
    assert not places
    with check.watched() as places:
        warnings.warn("called a synchronizing CUDA operation (Triggered internally at ...)", stacklevel=1)
    assert list(places) == [f"{Path(__file__).name}:{TESTED}"]


def test_a_phase_that_takes_too_long_is_cut_off_and_its_figures_stay(check, monkeypatch, capsys):
    def machine():
        check.say("machine", "is", cores=2)
        while True:
            pass

    check.options.seconds = check.left and 0.2 + check.options.seconds - check.left
    check.machine = machine

    assert check.run() == 0
    assert [line.split(":")[0].split("] ")[1] for line in capsys.readouterr().out.splitlines()] == [
        "machine, is",
        "time, is up",
    ]


TESTED = next(
    number for number, line in enumerate(Path(__file__).read_text().splitlines(), 1) if "called a synchronizing" in line
)

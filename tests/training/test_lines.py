import errno

import pytest
from support import quick_spec

from dg_batchformer.cli.main import main
from dg_batchformer.errors import InputError
from dg_batchformer.storage.folders import RunFolder, State
from dg_batchformer.storage.lock import Busy
from dg_batchformer.training import lines as lines_module
from dg_batchformer.training.faults import DeviceFault
from dg_batchformer.training.lines import Lines, ending
from dg_batchformer.training.stop import Interrupted

ACCURACIES = {f"env{env}_{part}_acc": 0.5 for env in range(4) for part in ("in", "out")}


@pytest.mark.parametrize("start", [0, 60])
def test_the_time_left_is_measured_between_evaluations_and_not_extrapolated_from_the_first(start, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(lines_module.time, "monotonic", lambda: now[0])
    lines = Lines(quick_spec(steps=100), "ERM")

    now[0] = 500.0  # of loading and compiling
    first = lines.record({"step": start, "loss": 1.0, **ACCURACIES})
    now[0] = 520.0  # two seconds for each of ten updates
    second = lines.record({"step": start + 10, "loss": 1.0, **ACCURACIES})

    assert "ETA" not in first
    left = {0: "3 min", 60: "58 s"}[start]
    assert f"ETA {left}" in second


def test_the_log_has_every_line_of_the_console(tmp_path, capsys):
    command = ["train", "--dataset", "Toy", "--algorithm", "SWAD+BF", "--protocol", "quick", "--steps", "9"]
    command += ["--checkpoint_freq", "4", "--device", "cpu", "--output_dir", str(tmp_path / "run")]
    assert main([*command, "--hparams", '{"mlp_width": 16, "batch_size": 600}']) == 0

    printed = capsys.readouterr().out.splitlines()
    logged = [line.split(" ", 2)[2] for line in (tmp_path / "run" / "log.txt").read_text().splitlines()]
    assert len(printed) > 8
    assert any(line.startswith("note: ") for line in printed)
    assert [line for line in logged if line in printed] == printed


@pytest.mark.parametrize(
    ("how", "name", "sentence"),
    [
        (State.DIVERGED, "diverged", ""),
        (Interrupted("at step 3"), "interrupted", ""),
        (Busy("node1 trains it"), "busy", "node1 trains it"),
        (OSError(errno.ENOSPC, "No space left on device"), "stopped", "OSError: [Errno 28] No space left on device"),
        (DeviceFault("cuda:0 failed (ECC)"), "stopped", "cuda:0 failed (ECC); rerun the command to resume"),
        (InputError("batch_size is 0"), "failed", "batch_size is 0"),
        (ZeroDivisionError("by zero"), "failed", "ZeroDivisionError: by zero"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_end_of_a_run_is_named_and_explained(how, name, sentence, tmp_path):
    ended, said = ending(quick_spec(), RunFolder(tmp_path), how)

    assert (ended, said[: len(sentence)]) == (name, sentence)

"""Standard streams: closed pipes, full disks, closed streams, old encodings."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TRAIN = "train --dataset Toy --protocol quick --steps 9 --checkpoint_freq 4 --device cpu --output_dir run --hparams"
SMALL = '{"mlp_width": 16, "batch_size": 8}'
READER_LEFT = 128 + signal.SIGPIPE


def _shell(command, cwd, **environment):
    """Run a shell line in which PYTHON stands for the command line of this program."""
    line = command.replace("PYTHON", f"{sys.executable} -m dg_batchformer")
    root = str(Path(__file__).parents[2])
    more = {"PYTHONPATH": root, **environment}
    return subprocess.run(["bash", "-c", line], cwd=cwd, env={**os.environ, **more}, capture_output=True, text=True)


def test_training_continues_after_its_reader_exits(tmp_path):
    done = _shell(f"PYTHON {TRAIN} '{SMALL}' | true; echo ${{PIPESTATUS[0]}}", tmp_path)

    assert done.stdout == "0\n"
    assert done.stderr == ""
    assert (tmp_path / "run" / "done").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.system
def test_training_continues_with_a_full_disk_behind_its_output_and_closed_streams(tmp_path):
    assert _shell(f"PYTHON {TRAIN} '{SMALL}' >/dev/full 2>/dev/full", tmp_path).returncode == 0
    assert (tmp_path / "run" / "done").exists()
    assert _shell(f"PYTHON {TRAIN} '{SMALL}' <&- >&- 2>&-", tmp_path).returncode == 0


@pytest.mark.system
def test_a_sweep_continues_after_its_reader_exits(tmp_path):
    text = f"datasets: [Toy]\nalgorithms: [ERM]\nprotocol: quick\ntrials: 1\ntest_envs: [A]\nsteps: 3\nhparams: {SMALL}"
    (tmp_path / "tiny.yaml").write_text(text)
    done = _shell("PYTHON sweep tiny.yaml --devices cpu | true; echo ${PIPESTATUS[0]}", tmp_path)

    assert (done.stdout, done.stderr) == ("0\n", "")
    assert len(list(tmp_path.glob("results/tiny/runs/*/done"))) == 1


def test_a_printing_command_ends_quietly_with_its_reader(tmp_path):
    done = _shell("PYTHON list hparams SWAD+DANN+BF | true; echo ${PIPESTATUS[0]}", tmp_path)

    assert (done.stdout, done.stderr) == (f"{READER_LEFT}\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_printing_command_reports_lost_output(tmp_path):
    done = _shell("PYTHON list algorithms >/dev/full", tmp_path)

    assert done.returncode == 2
    assert done.stderr == "error: standard output: No space left on device\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_characters_missing_in_an_encoding_are_escaped(encoding, tmp_path):
    code = "from dg_batchformer.text.terminal import *; prepare_streams(); print('1.0 ± 0.2 × 3 … é 狗 \\udcff')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True
    )

    spelled = {"ascii": r"1.0 +/- 0.2 x 3 ... \xe9 \u72d7 \udcff", "latin-1": r"1.0 ± 0.2 × 3 ... é \u72d7 \udcff"}
    assert done.stdout.decode(encoding) == spelled[encoding] + "\n"
    assert done.stderr == b""

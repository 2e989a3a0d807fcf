"""The command line as a person meets it."""

import subprocess
import sys
from pathlib import Path

import pytest

from dg_batchformer.cli import main

SWEEPS = Path(__file__).parents[1] / "sweeps"


def _train(tmp_path, *more):
    small = '{"mlp_width": 16, "batch_size": 8}'
    command = ["train", "--dataset", "Toy", "--protocol", "quick", "--steps", "9", "--checkpoint_freq", "4"]
    return main([*command, "--hparams", small, "--device", "cpu", "--output_dir", str(tmp_path / "out"), *more])


def test_train_says_what_it_does_and_what_came_out(tmp_path, capsys):
    assert _train(tmp_path, "--algorithm", "SWAD+BF", "--test_envs", "D") == 0
    said = capsys.readouterr().out

    assert "BF+SWAD on Toy (quick): trains on A, B, C; 20% of them validate; tests on D" in said
    assert "step      8/8" in said
    assert "final model" in said
    assert "test accuracy on D: " in said
    assert "by training-domain validation set" in said

    assert _train(tmp_path, "--algorithm", "SWAD+BF", "--test_envs", "D") == 0
    assert "holds this run, done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--dataset", "PACS"], "error: unknown"),
        (["train", "--dataset", "PASC"], "error: unknown dataset 'PASC'; did you mean 'PACS'?"),
        (["train", "--algorithm", "CORRAL"], "error: unknown algorithm 'CORRAL'; did you mean 'CORAL'?"),
        (["train", "--test_envs", "sktch"], "did you mean 'sketch'"),
        (["train", "--hparams", "{lr: 1}"], "error: --hparams is not JSON"),
        (["train", "--hparams", "[1]"], "error: --hparams takes a JSON object"),
        (["train", "--hparams", '{"lrr": 1}'], "did you mean 'lr'"),
        (["train", "--device", "tpu"], "error: unknown device 'tpu'"),
        (
            ["train", "--dataset", "PACS", "--data_dir", "/nowhere", "--protocol", "quick"],
            "--data_dir /nowhere has no folder PACS",
        ),
        (["sweep", "nowhere.yaml"], "error: cannot read nowhere.yaml"),
        (["status", "nowhere"], "error: nowhere is no sweep folder"),
        (["tables", "nowhere"], "error: nowhere is no sweep folder"),
        (["list", "algorithms", "ERN"], "did you mean 'ERM'"),
    ],
)
def test_wrong_input_is_one_sentence_and_status_2(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    if arguments[1:] == ["--dataset", "PACS"]:
        message = "error: PACS needs --data_dir"

    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["tarin"], ["train", "--stesp", "3"], ["tables"], ["train", "--steps", "many"], []]
)
def test_wrong_usage_is_one_sentence_and_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "--help" in said


def test_another_run_is_not_written_over(tmp_path, capsys):
    _train(tmp_path)

    assert _train(tmp_path, "--trial_seed", "1") == 2
    assert "holds another run (trial_seed 0, not 1, seed " in capsys.readouterr().err


def test_an_output_that_cannot_be_written_to_is_named(tmp_path, capsys):
    (tmp_path / "out").write_text("a file")

    assert _train(tmp_path) == 2
    assert f"error: cannot write to {tmp_path / 'out'}" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["algorithms", "wrappers", "datasets", "protocols", "backbones", "hparams"])
def test_list_shows_a_line_for_each_and_each_in_full(kind, capsys):
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line.split()) > 1 for line in lines if line)
    if kind != "hparams":
        for line in lines:
            assert main(["list", kind, line.split()[0]]) == 0


def test_a_reader_that_leaves_early_is_no_error():
    command = f"{sys.executable} -m dg_batchformer list hparams SWAD+DANN+BF | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)

    assert done.stderr == ""
    assert done.stdout.startswith("SWAD+DANN+BF on PACS")


@pytest.mark.parametrize("verb", ["train", "sweep", "status", "tables", "list"])
def test_help_reads_without_holes(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])

    assert ended.value.code == 0
    assert "None" not in capsys.readouterr().out

"""The command line, end to end."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dg_batchformer.cli.main import main, parser
from dg_batchformer.cli.train import run_spec
from dg_batchformer.spec.manifest import manifest_content
from dg_batchformer.spec.sweep_file import load_sweep
from dg_batchformer.storage.folders import RunFolder, SweepFolder
from dg_batchformer.sweep.expand import expand

SWEEPS = Path(__file__).parents[2] / "sweeps"


def _train(tmp_path, *more):
    small = '{"mlp_width": 16, "batch_size": 8}'
    command = ["train", "--dataset", "Toy", "--protocol", "quick", "--steps", "9", "--checkpoint_freq", "4"]
    return main([*command, "--hparams", small, "--device", "cpu", "--output_dir", str(tmp_path / "out"), *more])


def test_train_prints_its_settings_and_its_result(tmp_path, capsys):
    assert _train(tmp_path, "--algorithm", "SWAD+BF", "--test_envs", "D") == 0
    said = capsys.readouterr().out

    assert "SWAD+BF on Toy (quick): trains on A, B, C; 20% held out for validation; tests on D" in said
    assert "step      8/8" in said
    assert "final model" in said
    outcome = said[said.index("test accuracy on D: ") :]
    assert "selected by the training-domain validation set" in outcome

    assert _train(tmp_path, "--algorithm", "SWAD+BF", "--test_envs", "D") == 0
    again = capsys.readouterr().out
    assert "already has this run, done" in again
    assert again.endswith(outcome)


def test_runs_without_a_folder_have_one_each_and_the_same_command_finds_its_own(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["train", "--dataset", "Toy", "--protocol", "quick", "--steps", "2", "--device", "cpu"]

    for name in ("SWAD+BF", "ERM", "BF+SWAD"):
        assert main([*command, "--algorithm", name, "--test_envs", "D"]) == 0
    said = capsys.readouterr().out

    folders = sorted(path.name for path in Path("results/train").iterdir())
    assert [name.rpartition("_")[0] for name in folders] == ["Toy_ERM_D", "Toy_SWAD+BF_D"]
    assert said.count(f"run folder: results/train/{folders[1]}\n") == 1
    assert f"results/train/{folders[1]} already has this run, done" in said, "another spelling is the same run"


def test_results_are_not_mixed_with_other_results(tmp_path, capsys):
    sweep = load_sweep(SWEEPS / "quickstart.yaml")
    folder = SweepFolder(tmp_path / "results" / "quickstart")
    folder.write(manifest_content(sweep, expand(sweep)))
    assert _train(tmp_path) == 0

    for place in ("results/quickstart", "results/quickstart/runs/x", "out/inside", "results"):
        assert _train(tmp_path, "--output_dir", str(tmp_path / place)) == 2
    [own, within, inside, around] = capsys.readouterr().err.splitlines()
    quickstart = tmp_path / "results" / "quickstart"
    assert f"error: {quickstart} is the folder of a sweep" in own
    assert f"{quickstart / 'runs' / 'x'} lies in {quickstart}, the folder of a sweep" in within
    assert f"{tmp_path / 'out' / 'inside'} lies in {tmp_path / 'out'}, the folder of a run" in inside
    assert f"{tmp_path / 'results'} holds other results, such as quickstart" in around
    assert main(["sweep", str(SWEEPS / "quickstart.yaml"), "--results_dir", str(tmp_path / "out")]) == 2
    assert "out, the folder of a run" in capsys.readouterr().err


def test_a_wrong_hparam_is_reported_before_an_occupied_folder(tmp_path, capsys):
    assert _train(tmp_path) == 0

    assert _train(tmp_path, "--hparams", '{"lrr": 1}') == 2
    assert "unknown hparam of ERM on Toy: 'lrr'; did you mean 'lr'?" in capsys.readouterr().err


def test_a_diverged_run_is_reported_as_such_each_time(tmp_path, capsys):
    for _ in range(2):
        assert _train(tmp_path, "--algorithm", "SWAD", "--hparams", '{"lr": 1e30}') == 1
        assert "diverged: loss or metrics are not finite; try a smaller lr" in capsys.readouterr().out


def test_a_run_that_another_process_trains_is_left_alone(tmp_path, capsys):
    with RunFolder(tmp_path / "out").lock():
        assert _train(tmp_path) == 1
    assert f"error: {tmp_path / 'out'} is in use by process {os.getpid()} on" in capsys.readouterr().err


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
        (["status", "nowhere"], "error: nowhere is not a sweep folder"),
        (["tables", "nowhere"], "error: nowhere does not exist; give the folder of a sweep"),
        (["compare", "ERM", "ERM+BF", "nowhere"], "error: nowhere is not a folder"),
        (["list", "algorithms", "ERN"], "did you mean 'ERM'"),
        (["train", "--holdout_fraction", "0.001", "--dataset", "Toy"], "both parts need at least one"),
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
    assert not list(tmp_path.iterdir()), "nothing is made"


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["trian"], "'train'"),
        (["STATUS"], "'status'"),
        (["train", "--stesp", "3"], "'--steps'"),
        (["train", "--precision", "FP32"], "'fp32'"),
        (["list", "algoritms"], "'algorithms'"),
    ],
)
def test_misspelled_words_are_answered_with_similar_ones(arguments, near, capsys):
    with pytest.raises(SystemExit):
        main(arguments)

    assert f"did you mean {near}" in capsys.readouterr().err


def test_debug_shows_the_traceback_behind_an_error(capsys, monkeypatch):
    assert main(["list", "algorithms", "ERN"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    for command in (["list", "algorithms", "ERN", "--debug"], ["--debug", "list", "algorithms", "ERN"]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "Traceback" in said
        assert said.splitlines()[-1].startswith("error: unknown algorithm")

    monkeypatch.setattr("dg_batchformer.cli.listing.list_kind", lambda *asked, **where: 1 / 0)
    assert main(["list", "algorithms"]) == 1
    assert capsys.readouterr().err == "error: ZeroDivisionError: division by zero; add --debug to see where\n"


@pytest.mark.parametrize(
    "arguments",
    [["tarin"], ["train", "--stesp", "3"], ["tables"], ["compare", "ERM", "BF"], ["train", "--steps", "many"], []],
)
def test_wrong_usage_is_one_sentence_and_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "--help" in said


def test_another_run_is_not_overwritten(tmp_path, capsys):
    _train(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    assert _train(tmp_path, "--trial_seed", "1", "--seed", "5") == 2
    seed = json.loads((tmp_path / "out" / "spec.json").read_text())["seed"]
    differing = f"trial_seed 0, not 1, seed {seed}, not 5"
    message = f"error: {tmp_path / 'out'} holds another run ({differing}); give another --output_dir, or move it away\n"
    assert capsys.readouterr().err == message
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize("held", ["", "[]", "{", '{"hparams": []}', '{"lrr": 1}', "\N{REPLACEMENT CHARACTER}"])
def test_a_folder_with_an_unreadable_spec_is_not_overwritten(held, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "spec.json").write_text(held)
    (tmp_path / "out" / "results.jsonl").write_text("")

    assert _train(tmp_path) == 2
    assert "spec.json cannot be read; give another --output_dir" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_reported(tmp_path, capsys):
    (tmp_path / "out").write_text("a file")

    assert _train(tmp_path) == 2
    assert f"error: cannot write to {tmp_path / 'out'}" in capsys.readouterr().err


def test_a_failing_file_system_is_one_sentence(tmp_path, capsys, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr("dg_batchformer.storage.folders.Path.exists", fail)

    assert _train(tmp_path) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'out'}")
    assert said.endswith(": Input/output error\n")
    assert said.count("\n") == 1


def test_tables_that_cannot_be_written_are_reported(tmp_path, capsys):
    sweep = load_sweep(SWEEPS / "quickstart.yaml")
    SweepFolder(tmp_path).write(manifest_content(sweep, expand(sweep)))
    (tmp_path / "file").write_text("")

    assert main(["tables", str(tmp_path), "--output", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'file'}: File exists\n"


def test_the_full_view_of_an_algorithm_says_what_predictions_and_batchformer_depend_on(capsys):
    def shown(name):
        assert main(["list", "algorithms", name]) == 0
        return " ".join(capsys.readouterr().out.split())

    assert "prediction sample by sample under BF a sample attends to all training domains" in shown("IRM")
    assert "prediction depends on the other samples of the batch" in shown("ARM")
    assert "under BF a sample attends to its own domain" in shown("Fish+BF")


@pytest.mark.parametrize("kind", ["algorithms", "wrappers", "datasets", "protocols", "backbones", "hparams"])
def test_list_shows_a_line_for_each_and_each_in_full(kind, capsys):
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    if kind != "hparams":
        assert all(len(line.split()) > 1 for line in lines if not line.startswith(" "))
        for name in [line.split()[0] for line in lines if not line.startswith(" ")]:
            assert main(["list", kind, name]) == 0


@pytest.mark.parametrize("protocol", ["domainbed-2020", "domainbed-2024"])
def test_lists_of_hparams_fit_100_columns(protocol, capsys):
    for name in ("SWAD+CORAL+BF", "MixStyle+IIDMax+BFv2+Fishr"):
        assert main(["list", "hparams", name, "--protocol", protocol]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 100
    assert "timm/NAME" in said


def test_globs_search_lists(capsys):
    assert main(["list", "backbones", "timm/VIT_small_patch14*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(line.startswith("timm/vit_small_patch14") and "weights none" in line for line in lines)

    assert main(["list", "algorithms", "*mmd*"]) == 0
    assert re.findall(r"^\S+", capsys.readouterr().out, re.MULTILINE) == ["CausIRL_MMD", "MMD"]
    assert main(["list", "wrappers", "x*"]) == 2
    assert capsys.readouterr().err.startswith("error: none of the wrappers matches 'x*'")


@pytest.mark.parametrize(
    ("given", "hparams"),
    [
        (
            ["--set", "lr=1e-3", "bf_layers=2", "--set", "bf_shared=False"],
            {"lr": 1e-3, "bf_layers": 2, "bf_shared": False},
        ),
        (["--hparams", '{"lr": 0.001}', "--set", "lr=1e-3", "swad_mode=clean"], {"lr": 0.001, "swad_mode": "clean"}),
        (["--backbone", "resnet18", "--set", "weights=none"], {"backbone": "resnet18", "weights": "none"}),
    ],
)
def test_hparams_can_be_set_without_json(given, hparams):
    spec = run_spec(parser("train").parse_args(["train", *given]))

    assert spec.hparams == hparams
    assert spec.id == run_spec(parser("train").parse_args(["train", "--hparams", json.dumps(hparams)])).id


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--set", "lr"], "--set takes NAME=VALUE, such as lr=1e-4, got 'lr'"),
        (["--set", "lr=1", "lr=2"], "hparam lr is given twice, as 1 and as 2; keep one"),
        (["--set", "lr=low"], "hparam lr must be a number, got 'low'"),
        (["--set", "batch_size=2.5"], "hparam batch_size must be a whole number, got 2.5"),
        (["--set", "class_balanced=1"], "hparam class_balanced must be true or false, got 1"),
        (["--set", "rl=1"], "unknown hparam of ERM on Shapes: 'rl'"),
        (["--backbone", "vit_small"], "did you mean 'timm/vit_small_"),
        (["--algorithm", "swad"], "unknown algorithm 'swad'; did you mean 'SWAD'"),
        (["--algorithm", "swad+CORAL"], "did you mean 'SWAD'?"),
        (["--dataset", "pacs"], "did you mean 'PACS'?"),
    ],
)
def test_invalid_input_of_train_is_answered_with_what_is_valid(given, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert main(["train", *given]) == 2
    assert message in capsys.readouterr().err


def test_a_closed_pipe_is_not_an_error():
    command = f"{sys.executable} -m dg_batchformer list hparams SWAD+DANN+BF | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)

    assert done.stderr == ""
    assert done.stdout.startswith("SWAD+DANN+BF on PACS")


@pytest.mark.parametrize("verb", ["train", "sweep", "status", "tables", "compare", "list"])
def test_help_has_no_gaps(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])

    assert ended.value.code == 0
    assert "None" not in capsys.readouterr().out


def test_data_cache_builds_both_planes_once_and_prints_their_paths(image_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    command = ["data", "cache", "PACS", "--data_dir", str(image_folder()), "--image_size", "32"]

    assert main(command) == 0
    first = capsys.readouterr().out
    assert main(command) == 0
    second = capsys.readouterr().out

    assert "pixel cache built" in first
    assert "images decoded" not in second
    for plane in ("train-320", "eval-32"):
        assert re.search(rf"cache/dg_batchformer/pixels/\w+/{plane}: 0.00 GiB", second)


def test_data_cache_of_a_dataset_in_memory_is_refused(capsys):
    assert main(["data", "cache", "Shapes"]) == 2
    assert "Shapes is not read from image folders, so it has no cache" in capsys.readouterr().err

"""Options of sweep: none is ignored in silence, and repeated ones add up."""

import pytest
from support import quick_spec, run_quickly

import dg_batchformer as dg
from dg_batchformer.cli.main import main, parser
from dg_batchformer.errors import InputError
from dg_batchformer.storage.folders import RunFolder, State, SweepFolder
from dg_batchformer.training.lines import ending

SWEEP = """
datasets: [Toy]
algorithms: [ERM]
protocol: quick
test_envs: [A]
trials: 1
steps: 2
hparams: {mlp_width: 8}
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Work in an empty folder with a small sweep file; return the command that trains it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(SWEEP)
    return ["sweep", "mine.yaml", "--devices", "cpu"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (
            ["--slurm", "partition=gpu"],
            "--slurm would be ignored by --launcher local; add --launcher slurm, or drop it",
        ),
        (
            ["--runs_per_task", "3", "--launcher", "dry_run"],
            "--runs_per_task would be ignored by --launcher dry_run; drop it",
        ),
        (["--cluster", "c.yaml", "--slurm", "time=1"], "--slurm and --cluster would be ignored"),
        (
            ["--launcher", "slurm", "--threads", "2"],
            "--devices and --threads would be ignored by --launcher slurm; give --slurm gpus=N or cpus=N instead, or "
            "drop them",
        ),
    ],
)
def test_options_that_a_launcher_would_ignore_are_refused(given, named, command, capsys):
    assert main([*command, *given]) == 2

    assert named in capsys.readouterr().err


def test_repeated_options_add_up(command):
    given = ["--slurm", "cpus=2", "mem=1G", "--retry", "failed", "--log", "a"]
    again = ["--slurm", "time=9", "--retry", "damaged", "--log", "b"]

    options = parser().parse_args([*command, *given, *again])

    assert options.slurm == ["cpus=2", "mem=1G", "time=9"]
    assert options.retry == ["failed", "damaged"]
    assert options.log == ["a", "b"]


def test_a_finished_sweep_says_that_it_has_no_models_or_predictions(command, capsys):
    assert main(command) == 0
    capsys.readouterr()

    assert main([*command, "--keep", "final", "--predictions"]) == 0

    out = capsys.readouterr().out
    assert "note: 1 run finished without --keep; to train them again, delete their folders in results/mine/runs" in out
    assert "note: 1 run finished without --predictions" in out


def test_a_run_that_was_begun_with_another_keep_has_not_failed(tmp_path):
    asked = iter([False, True])
    spec = quick_spec()
    with pytest.raises(BaseException, match="saved; rerun the command to resume"):
        run_quickly(spec, tmp_path, stop=lambda: next(asked), keep="none")
    with pytest.raises(InputError) as refused:
        run_quickly(spec, tmp_path, keep="final")

    how, sentence = ending(spec, RunFolder(tmp_path), refused.value)

    assert how == "not resumed"
    assert "was started with --keep none, not final; restore it" in sentence
    assert RunFolder(tmp_path).state() is State.INTERRUPTED


def test_the_folder_of_train_is_not_the_folder_of_a_sweep(command, tmp_path, capsys):
    (tmp_path / "train.yaml").write_text(SWEEP)

    assert main(["sweep", "train.yaml", "--devices", "cpu"]) == 2

    assert "results/train is where train writes its runs; give the sweep file another name" in capsys.readouterr().err


def test_the_file_of_a_sweep_given_as_a_dict_stays_once_its_runs_are_declared(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")  # without SLURM
    asked = {"datasets": ["Toy"], "algorithms": ["ERM"], "protocol": "quick", "steps": 2, "test_envs": ["A"]}
    asked = {**asked, "hparams": {"mlp_width": 8}, "trials": 1}

    with pytest.raises(InputError, match="scontrol is not on this machine"):
        dg.sweep(asked, name="mine", results_dir=tmp_path, launcher="slurm", slurm="time=30")

    assert SweepFolder(tmp_path / "mine").sweep_file.exists()
    assert (tmp_path / "mine" / "mine.yaml").exists()
    with pytest.raises(InputError, match=r"needs a name for its folder in .*, got name='\.\.'"):
        dg.sweep(asked, name="..", results_dir=tmp_path)

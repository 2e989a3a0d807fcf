"""A sweep that races stops draws, keeps what continues equal to the bit, and can be finished without the race."""

import json

import pytest

from dg_batchformer.cli.main import main
from dg_batchformer.results.collect import collect
from dg_batchformer.spec.manifest import manifest_content, read_sweep_manifest
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.spec.sweep_file import load_sweep
from dg_batchformer.storage.folders import State, SweepFolder
from dg_batchformer.sweep.expand import expand
from dg_batchformer.sweep.plan import plan, run_states
from dg_batchformer.training.follower import Follower
from dg_batchformer.training.in_process import InProcessLauncher

SWEEP = """
datasets: [Toy]
algorithms: [ERM, SWAD]
protocol: quick
trials: 1
draws: 6
test_envs: [A]
steps: 13
checkpoint_freq: 4
hparams: {mlp_width: 16, batch_size: 8}
"""
RACE = "race: {rungs: [4, 8], keep: 0.5}\n"


class _Report:
    """A report that keeps how runs ended."""

    def __init__(self):
        self.ends = []

    def begin(self, run, start):
        pass

    def progress(self, run, done):
        pass

    def ended(self, run, how, sentence):
        self.ends.append((run.label, how, sentence))

    def note(self, run, sentence):
        pass


def _launch(path, text):
    path.mkdir(exist_ok=True)
    (file := path / "mine.yaml").write_text(text)
    asked = load_sweep(file)
    folder, report, runs = SweepFolder(path / "results" / "mine"), _Report(), expand(asked)
    folder.write(manifest_content(asked, runs))
    assert InProcessLauncher(folder, ["cpu"], RunOptions(), report, share=asked.share).launch(plan(folder, runs).due)
    return folder, runs, report


def _records(folder, run):
    records = [json.loads(line) for line in folder.run(run.spec.id).records_file.read_text().splitlines()]
    return [{name: value for name, value in record.items() if not name.endswith("_time")} for record in records]


@pytest.fixture(scope="module")
def raced(tmp_path_factory):
    path = tmp_path_factory.mktemp("raced")
    return path, *_launch(path, SWEEP + RACE)


def test_draws_that_validate_worse_stop_with_a_checkpoint(raced):
    _, folder, runs, report = raced
    states = run_states(folder, runs)

    stopped = [run for run in runs if states.of[run.spec.id] is State.OUTRACED]
    done = [run for run in runs if states.of[run.spec.id] is State.DONE]
    assert len(stopped) + len(done) == len(runs)
    assert {run.label for run in stopped} == {run.label for run in done} == {"ERM", "SWAD"}
    for run in stopped:
        files = folder.run(run.spec.id)
        place = json.loads(files.race_file.read_text())
        assert files.checkpoint_file.exists()
        assert _records(folder, run)[-1]["step"] == place["step"]
        assert place["step"] in (4, 8)
        assert place["rank"] > max(1, place["of"] // 2)
        assert states.finals[run.spec.id].seconds_spared == pytest.approx(
            states.finals[run.spec.id].seconds * (12 - place["step"]) / (place["step"] + 1), abs=1e-2
        )
    ends = [sentence for _, how, sentence in report.ends if how == "out of the race"]
    assert len(ends) == len(stopped)
    assert all(sentence.startswith(("step 4, rank ", "step 8, rank ")) for sentence in ends)


def test_a_run_that_is_killed_at_its_checkpoint_stays_out_of_the_race(raced, tmp_path, monkeypatch):
    save = Follower.save

    def killed(self, *arguments):
        save(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(Follower, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        _launch(tmp_path, SWEEP + RACE)
    monkeypatch.undo()

    folder = SweepFolder(tmp_path / "results" / "mine")
    [stopped] = [run.spec.id for run in raced[2] if folder.run(run.spec.id).state() is State.OUTRACED]
    _, runs, report = _launch(tmp_path, SWEEP + RACE)
    assert len(report.ends) < len(runs)
    assert folder.run(stopped).state() is State.OUTRACED


def test_rows_that_share_a_training_stop_together(raced):
    _, folder, runs, _ = raced
    states = run_states(folder, runs).of
    by_row = [[states[run.spec.id] for run in runs if run.label == label] for label in ("ERM", "SWAD")]

    assert by_row[0] == by_row[1]


def test_nothing_is_due_after_a_race_and_the_exit_status_is_that_of_success(raced, capsys, monkeypatch):
    path, folder, runs, _ = raced
    monkeypatch.chdir(path)

    assert not plan(folder, runs).due
    assert main(["sweep", "mine.yaml"]) == 0
    assert "; without the key race, the same command trains them too" in capsys.readouterr().out
    assert main(["status", str(folder.path)]) == 0
    said = capsys.readouterr().out
    assert "out of the race" in said
    assert "racing saved about" in said or "device time" in said
    assert "runs left" not in said
    assert main(["watch", str(folder.path)]) == 0
    assert "12/12" in capsys.readouterr().out


@pytest.mark.parametrize("more", [[], ["--unfinished"]])
def test_tables_count_stopped_draws_and_never_select_them(raced, capsys, more):
    _, folder, runs, _ = raced
    states = run_states(folder, runs).of
    number = sum(state is State.OUTRACED for state in states.values())

    arguments = ["--format", "json", "--selection", "training-domain", "--hparams", *more]
    assert main(["tables", str(folder.path), *arguments]) == 0
    captured = capsys.readouterr()
    [table] = json.loads(captured.out)["sections"][0]["tables"]
    notes = " ".join(table["notes"])

    assert (
        f"rows were raced over draws, at steps 4 and 8, where only the best 50 % so far continue: {number} of 12"
        in notes
    )
    assert "trained" not in notes
    assert "differs" not in notes
    assert "unfinished" not in captured.err
    seeds = {run.spec.hparams_seed for run in runs if states[run.spec.id] is State.DONE}
    assert {draw["draw"] for draw in table["draws"]} <= seeds
    assert all("lr" in draw["hparams"] for draw in table["draws"])
    collected = collect([folder.path], unfinished=True).runs
    assert all(not len(run.evaluations) and run.constant for run in collected if run.state is State.OUTRACED)


def test_a_value_that_a_finished_run_lacks_is_not_blamed_on_the_race(raced, capsys):
    assert main(["tables", str(raced[1].path), "--format", "json", "--selection", "swad-averaged"]) == 0
    [table] = json.loads(capsys.readouterr().out)["sections"][0]["tables"]
    notes = [note for note in table["notes"] if note.startswith("ERM ")]

    assert all("the records lack values that this selection needs" in note for note in notes)
    assert notes


def test_a_sweep_without_the_race_trains_the_stopped_draws_to_the_end(raced, tmp_path):
    path, *_ = raced
    (tmp_path / "raced").mkdir()
    whole, _, _ = _launch(tmp_path / "whole", SWEEP)
    (tmp_path / "raced" / "results").symlink_to(path / "results")
    before = {run.spec.id: run_states(raced[1], raced[2]).of[run.spec.id] for run in raced[2]}

    folder, runs, report = _launch(tmp_path / "raced", SWEEP)

    assert len(report.ends) == sum(state is State.OUTRACED for state in before.values())
    assert {how for _, how, _ in report.ends} == {"done"}
    assert {run.bracket for run in read_sweep_manifest(folder).runs} == {None}
    for run in runs:
        assert _records(folder, run) == _records(whole, run)
        assert not folder.run(run.spec.id).race_file.exists()

"""A sweep whose rows share trajectories gives the tables of one whose rows do not."""

import json

from dg_batchformer.cli.main import main
from dg_batchformer.spec.manifest import manifest_content
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.spec.sweep_file import load_sweep
from dg_batchformer.storage.folders import State, SweepFolder
from dg_batchformer.sweep.expand import expand
from dg_batchformer.sweep.plan import plan
from dg_batchformer.training.in_process import InProcessLauncher

SWEEP = """
datasets: [Toy]
algorithms: [ERM, SWAD, BF, EMA+BF]
protocol: quick
trials: 1
test_envs: [A, B]
steps: 9
checkpoint_freq: 4
hparams: {mlp_width: 16, batch_size: 8}
"""


class _Report:
    """A report that counts starts and ends."""

    def __init__(self):
        self.begun, self.ended_as = [], []

    def begin(self, run, start):
        self.begun.append(run.label)

    def progress(self, run, done):
        pass

    def ended(self, run, how, sentence):
        self.ended_as.append(how)

    def note(self, run, sentence):
        pass


def _launch(path, text):
    path.mkdir(exist_ok=True)
    (file := path / "mine.yaml").write_text(text)
    asked = load_sweep(file)
    folder, report = SweepFolder(path / "results" / "mine"), _Report()
    folder.write(manifest_content(asked, expand(asked)))
    launcher = InProcessLauncher(folder, ["cpu"], RunOptions(), report, share=asked.share)
    assert launcher.launch(plan(folder, expand(asked)).due)
    return folder, report


def test_sharing_changes_no_table(tmp_path, capsys):
    tables = []
    for name, more in (("shared", ""), ("apart", "share: false\n")):
        folder, report = _launch(tmp_path / name, SWEEP + more)
        assert report.ended_as == ["done"] * 8
        main(["tables", str(folder.path), "--format", "csv"])
        tables.append(capsys.readouterr().out)

    assert tables[0] == tables[1]
    assert tables[0].count("SWAD") >= 3


def test_one_row_can_be_added_or_trained_again(tmp_path):
    folder, _ = _launch(tmp_path, SWEEP.replace("ERM, SWAD, BF, EMA+BF", "SWAD"))
    kept = {run: folder.run(run).records_file.stat().st_mtime_ns for run in folder.run_names()}

    _, report = _launch(tmp_path, SWEEP)

    assert sorted(report.begun) == ["BF", "BF", "EMA+BF", "EMA+BF", "ERM", "ERM"]
    assert all(folder.run(run).records_file.stat().st_mtime_ns == written for run, written in kept.items())
    assert {folder.run(run).state() for run in folder.run_names()} == {State.DONE}


def test_the_seconds_of_runs_add_up_to_the_time_of_their_training(tmp_path):
    folder, _ = _launch(tmp_path, SWEEP)

    for run in folder.run_names():
        outcome = json.loads(folder.run(run).done_file.read_text())
        assert 0 < outcome["seconds"] < outcome["seconds_alone"]

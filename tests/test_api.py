"""The Python API: all examples of its docstrings and of the README run."""

import doctest
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

import dg_batchformer as dg
from dg_batchformer import api
from dg_batchformer.algorithms import get_algorithm_class
from dg_batchformer.callbacks.base import Callback
from dg_batchformer.errors import InputError
from dg_batchformer.report import plots
from dg_batchformer.report.summary import questions
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.sweep.launchers.base import LAUNCHERS, Launcher

EARLIER = Path(__file__).parent / "data" / "earlier" / "results.tar.gz"


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Work in a folder with a trained sweep of the Toy vectors in results/toy."""
    with tarfile.open(EARLIER) as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "results").mkdir()
    (tmp_path / "earlier").rename(tmp_path / "results" / "toy")
    manifest = tmp_path / "results" / "toy" / "sweep.json"
    manifest.write_text(manifest.read_text().replace('"earlier"', '"toy"'))
    monkeypatch.chdir(tmp_path)
    return Path("results/toy")


@pytest.fixture(autouse=True)
def _only_for_this_test(registrations):
    """Unregister the classes of a test, because other tests run over all algorithms."""


def _public_name(test):
    """Return the name of what an example documents, without its module."""
    return re.sub(r"^dg_batchformer\.(api|report\.plots)\.", "", test.name)


EXAMPLES = [test for module in (api, plots) for test in doctest.DocTestFinder().find(module) if test.examples]


@pytest.mark.parametrize("example", EXAMPLES, ids=_public_name)
def test_the_example_of_every_function_runs(example, toy):
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    printed = []
    runner.run(example, out=printed.append)

    assert runner.failures == 0, "".join(printed)


def test_every_public_function_has_an_example():
    documented = set(map(_public_name, EXAMPLES))
    methods = {f"Results.{name}" for name in ("records", "runs", "table", "compare")}
    methods |= {f"Plots.{name}" for name in ("curves", "gain", "selection", "accuracy", "transfer", "valley")}

    ours = [value for name in dir(dg) if getattr(value := getattr(dg, name), "__module__", "") == api.__name__]
    assert len(ours) > 7
    assert {value.__name__ for value in ours} - {"Results", "TrainedRun"} | methods <= documented


def test_reading_results_loads_no_torch(toy):
    code = (
        "import sys, dg_batchformer as dg; assert 'numpy' not in sys.modules\n"
        "results = dg.load_results('results/toy'); results.records(); results.table(); results.runs()\n"
        "assert 'torch' not in sys.modules"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


def test_the_function_sweep_stays_when_modules_of_the_package_sweep_are_imported():

    assert callable(dg.sweep)
    assert {"train", "sweep", "load_results", "list"} <= {*dir(dg)}


def test_records_have_one_line_per_evaluation_and_runs_one_per_run(toy):
    results = dg.load_results(toy)
    records, runs = results.records(), results.runs()

    assert len(runs) == 32
    assert (runs["seconds"] > 0).all()
    assert len(records) == runs["evaluations"].sum()
    one = records[records["run"] == runs["run"][0]]
    assert one["step"].is_monotonic_increasing
    assert (one["test_accuracy"] == one[f"env{'ABCD'.index(runs['test_envs'][0])}_in_acc"]).all()
    assert (runs["hparams.lr"] > 0).all()


def test_the_table_is_a_frame_of_cells_that_notebooks_show_as_a_table(toy):
    table = dg.load_results(toy).table("oracle")

    assert isinstance(table, pd.DataFrame)
    assert set(table["selection"]) == {"oracle"}
    assert "<table" in table._repr_html_()
    assert type(table[table["row"] == "ERM"]) is pd.DataFrame


def test_compare_prints_the_verdict_and_returns_its_numbers(toy, capsys):
    verdict = dg.load_results(toy).compare("ERM", "ERM+BF")

    assert capsys.readouterr().out == f"{verdict.sentence}\n"
    assert verdict.interval[0] <= verdict.mean <= verdict.interval[1]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: dg.load_results(), "takes folders one by one"),
        (lambda: dg.load_results(["results/toy"]), "takes folders one by one"),
        (lambda: dg.train(dataset="Toy", log="tensorbord"), "unknown callback 'tensorbord'; did you mean"),
        (lambda: dg.train(dataset="Toy", plugins="my_mod"), "my_mod"),
        (lambda: dg.train(dataset="Toy", callbacks=[Callback]), r"pass an instance, Callback\(\)"),
        (lambda: dg.train(dataset="Toy", callbacks=Callback), r"pass an instance, Callback\(\)"),
        (lambda: dg.train(dataset="Toy", callbacks=[3]), "callbacks holds 3, not an instance"),
        (lambda: dg.load_results("results/toy").table(columns="Avrage"), "unknown column 'Avrage'; did you mean"),
        (lambda: dg.load_results("results/toy", rows="EMR"), "unknown row 'EMR'; did you mean 'ERM'"),
        (lambda: dg.load_results("nowhere"), "nowhere"),
        (lambda: dg.load_results("results/toy").table("orcale"), "did you mean 'oracle'"),
        (lambda: dg.load_results("results/toy").compare("ERM", "ERM+FB"), "unknown row"),
        (lambda: dg.train(dataset="Toy", threads=0), "threads is 0, but must be a whole number, at least 1"),
        (lambda: dg.train(dataset="Toy", holdout_fraction="0.3"), "holdout_fraction is '0.3', but must be a number"),
        (lambda: dg.train(dataset="Toy", trial_seed=2**63), "trial_seed is 9223372036854775808, but must be below"),
        (lambda: dg.sweep({}, name="new", threads=True), "threads is True, but must be a whole number"),
        (lambda: dg.sweep({}, name="new", retry="done"), "unknown state to retry: 'done'"),
        (lambda: dg.list("algorithm"), "did you mean 'algorithms'"),
    ],
)
def test_wrong_input_is_answered_with_similar_names(call, sentence, toy):
    with pytest.raises(InputError, match=sentence):
        call()


def test_a_sweep_given_as_a_dict_has_a_question_and_a_wrong_one_leaves_the_file_as_it_was(tmp_path):
    asked = {"datasets": ["Toy"], "algorithms": ["ERM"], "protocol": "quick", "steps": 2, "trials": 1}
    asked = {**asked, "test_envs": ["A"], "hparams": {"mlp_width": 8}}
    dg.sweep(asked, name="mine", question="Is it\nso?", results_dir=tmp_path, devices="cpu")
    file = tmp_path / "mine" / "mine.yaml"
    before = file.read_text()

    wrong = [
        ({"stesp": 3}, {}, "^sweep (mine|new): unknown key 'stesp'; did you mean 'steps'"),
        ({"algorithms": ["EMR"]}, {}, "unknown algorithm 'EMR'; did you mean 'ERM'"),
        ({}, {"log": "tensorbord"}, "did you mean 'tensorboard'"),
        ({}, {"keep": "fnal"}, "did you mean 'final'"),
        ({}, {"launcher": "dry_run"}, "use the command"),
    ]
    for name in ("mine", "new"):
        for keys, options, message in wrong:
            with pytest.raises(InputError, match=message):
                dg.sweep({**asked, **keys}, name=name, results_dir=tmp_path, devices="cpu", **options)

    assert before.startswith("# Is it\n# so?\n")
    assert questions([tmp_path / "mine"]) == ["Is it so?"]
    assert file.read_text() == before
    assert not (tmp_path / "new").exists()


def _in_notebook(tmp_path, code, name="cell.py"):
    """Run code as a notebook cell, in a module that cannot be imported."""
    file = tmp_path / name
    file.write_text(code)
    space = {"__name__": "__main__", "dg": dg, "ERM": get_algorithm_class("ERM")}
    exec(compile(code, str(file), "exec"), space)
    return space


HALVED = """
FACTOR = 2

def divided(x):
    return x / FACTOR

class Halved(ERM):
    def update(self, minibatches, unlabeled=None):
        return super().update([(divided(x), y) for x, y in minibatches], unlabeled)
"""
QUICK = {"dataset": "Toy", "protocol": "quick", "steps": 5, "checkpoint_freq": 2}


def test_a_class_of_a_notebook_trains_and_its_source_is_part_of_the_identity(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = dg.train(_in_notebook(tmp_path, HALVED)["Halved"], **QUICK)
    same = dg.train(_in_notebook(tmp_path, HALVED.replace("(ERM):", "(ERM):  # half"), "same.py")["Halved"], **QUICK)
    other = _in_notebook(tmp_path, HALVED.replace("FACTOR = 2", "FACTOR = 3"), "other.py")["Halved"]

    edited = dg.train(other, **QUICK)

    assert same.spec.id == run.spec.id
    assert edited.spec.id != run.spec.id
    assert len(edited.records) == 3
    assert isinstance(edited.model, torch.nn.Module)
    with pytest.raises(InputError, match="was edited since"):
        dg.load_model(run.folder)


def test_a_class_of_a_notebook_composes_with_wrappers_and_is_refused_on_slurm(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    dg.register(_in_notebook(tmp_path, HALVED)["Halved"])
    question = {"datasets": ["Toy"], "algorithms": ["ERM", "Halved+BF"], "protocol": "quick", "steps": 3}
    question |= {"trials": 1, "test_envs": ["A"]}

    threads = torch.get_num_threads()

    results = dg.sweep(question, name="mine", threads=threads + 1)

    assert set(results.runs()["state"]) == {"done"}
    assert torch.get_num_threads() == threads
    ids = [run.path.name for run in results.collection.runs]
    assert ids[0] == RunSpec.from_dict(json.loads((tmp_path / f"results/mine/runs/{ids[0]}/spec.json").read_text())).id
    assert "session:" not in (tmp_path / f"results/mine/runs/{ids[0]}/spec.json").read_text()
    with pytest.raises(InputError, match="which other processes cannot import"):
        dg.sweep(question, name="other", launcher="slurm")


class Later(Launcher):
    """A queue that has not begun."""

    def launch(self, runs):
        return True


@pytest.mark.parametrize("search", [{}, {"search": {"on": [1000], "repeat": 1}}])
def test_a_sweep_that_is_queued_elsewhere_returns_the_states_of_its_runs(search, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(LAUNCHERS, "later", Later)
    question = {"datasets": ["Toy"], "algorithms": [{"name": "ERM", "grid": {"lr": [0.01, 0.1]}}], "protocol": "quick"}

    results = dg.sweep({**question, **search, "test_envs": ["A"]}, name="mine", launcher="later")

    assert set(results.runs()["state"]) == {"due"}


INTERRUPTED = """        STEPS.append(0)
        if len(STEPS) == 3:
            signal.raise_signal(signal.SIGINT)
        return super"""


def test_the_same_call_resumes_a_run_after_an_interrupted_cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = f"import signal\nSTEPS = []\n{HALVED}".replace("        return super", INTERRUPTED)
    interrupted = _in_notebook(tmp_path, code)["Halved"]

    with pytest.raises(KeyboardInterrupt, match="the same call resumes it"):
        dg.train(interrupted, **QUICK)
    run = dg.train(interrupted, **QUICK)

    assert run.records["step"].tolist() == [0, 2, 4]


def test_a_class_in_a_module_has_its_module_as_plugin(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "scaled_module.py").write_text(
        "from dg_batchformer.algorithms import get_algorithm_class\n\nclass Scaled(get_algorithm_class('ERM')):\n"
        "    def update(self, minibatches, unlabeled=None):\n        return super().update(minibatches, unlabeled)\n"
    )
    from scaled_module import Scaled

    run = dg.train(Scaled, output_dir=tmp_path / "run", **QUICK)

    assert run.spec.plugins == ("scaled_module",)


def test_a_trained_model_is_a_module_with_a_transform(tmp_path):
    run = dg.train("SWAD+BF", protocol="quick", steps=2, hparams={"backbone": "tiny"}, output_dir=tmp_path / "run")

    x = run.model.transform(Image.new("L", (50, 40)))
    assert run.model(x[None]).shape == (1, len(run.model.classes))
    assert not run.model.training
    assert 0 <= run.accuracy <= 1

"""``tools/new_algorithm.py``: its files pass unchanged, and it refuses unusable input."""

import importlib.util
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.registry import ALGORITHMS

ROOT = Path(__file__).parents[1]
TOOL = ROOT / "tools" / "new_algorithm.py"
PAPER = "Doe et al., 2026: logits are kept small."


@pytest.fixture
def scratch(tmp_path):
    for folder in ("dg_batchformer/algorithms", "tests/algorithms"):
        (tmp_path / folder).mkdir(parents=True)
    there = ("__init__", "hparams", "algorithms/base", "algorithms/erm", "algorithms/coral")
    for name in ("pyproject.toml", *(f"dg_batchformer/{module}.py" for module in there)):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def new(scratch, monkeypatch):
    def run(name, paper=PAPER):
        monkeypatch.setattr(sys, "argv", [str(TOOL), name, "--paper", paper, "--root", str(scratch)])
        return runpy.run_path(str(TOOL))["main"]()

    return run


def test_the_written_files_are_an_algorithm_and_a_passing_test(new, scratch, monkeypatch):
    assert new("MyMethod") == 0
    written = scratch / "dg_batchformer" / "algorithms" / "my_method.py"
    spec = importlib.util.spec_from_file_location("dg_batchformer.algorithms.my_method", written)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(ALGORITHMS, "_classes", {**ALGORITHMS._classes, "MyMethod": module.MyMethod})
    space = {}
    exec((scratch / "tests" / "algorithms" / "test_my_method.py").read_text(), space)
    tests = [value for name, value in space.items() if name.startswith("test_")]

    assert len(tests) == 2
    for test in tests:
        test()
    assert new("MyMethod") == 2


def test_a_new_algorithm_needs_no_other_entry(monkeypatch):
    """The steps in CONTRIBUTING.md satisfy the tests over the registries."""
    monkeypatch.setattr(ALGORITHMS, "_classes", {**ALGORITHMS._classes, "MyMethod": type("MyMethod", (ERM,), {})})

    for name, test in runpy.run_path(str(ROOT / "tests" / "catalog" / "test_datasets.py")).items():
        if name.startswith("test_") and not getattr(test, "pytestmark", ()):
            test()


@pytest.mark.skipif(shutil.which("ruff", path=Path(sys.executable).parent) is None, reason="ruff is not installed")
def test_the_written_files_pass_lint(new, scratch):
    assert new("MyMethod") == 0
    written = ["dg_batchformer/algorithms/my_method.py", "tests/algorithms/test_my_method.py"]
    for check in (["check"], ["format", "--check"]):
        command = [str(Path(sys.executable).parent / "ruff"), *check, *written]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "paper", "message"),
    [
        ("my_method", PAPER, "'my_method' is not a class name; write it as MyMethod"),
        ("Coral", PAPER, "there is Coral already"),
        ("SWAD", PAPER, "there is SWAD already"),
        ("MyMethod", "no year", 'is not "AUTHORS, YEAR: what it does, in one sentence"'),
        ("MyMethod", f"{PAPER} {'x' * 100}", "more than one line takes"),
    ],
)
def test_names_and_papers_that_cannot_be_used_are_refused(new, scratch, name, paper, message, capsys):
    before = sorted(scratch.rglob("*.py"))

    assert new(name, paper) == 2
    assert message in capsys.readouterr().err
    assert sorted(scratch.rglob("*.py")) == before

"""``tools/new_extension.py``: what it writes passes its test, lint and type checks, and it refuses unusable names."""

import inspect
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.registry import ALGORITHMS

ROOT = Path(__file__).parents[1]
TOOL = ROOT / "tools" / "new_extension.py"
KINDS = runpy.run_path(str(TOOL))["KINDS"]
BIN = Path(sys.executable).parent


@pytest.fixture
def new(plugin_folder, monkeypatch):
    """Return a function that runs the tool in an empty folder, and returns its exit status."""

    def run(kind, name):
        monkeypatch.setattr(sys, "argv", [str(TOOL), kind, name])
        return runpy.run_path(str(TOOL))["main"]()

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_the_written_files_are_an_extension_and_a_passing_test(kind, new, tmp_path, request):
    assert new(kind, f"QuiteNew{kind.title()}") == 0
    written = [*tmp_path.iterdir()]
    [test_file] = tmp_path.glob("test_*.py")

    tests = {name: test for name, test in runpy.run_path(str(test_file)).items() if name.startswith("test_")}
    for test in tests.values():
        test(**{name: request.getfixturevalue(name) for name in inspect.signature(test).parameters})

    assert tests
    for path in written:
        assert not re.search(r"\bmy_|\bMy[A-Z]", path.read_text())


@pytest.mark.skipif(not (BIN / "ruff").exists(), reason="ruff is not installed")
@pytest.mark.parametrize("name", ["A", "VeryLongNamesForOne"])
def test_the_written_files_pass_lint(new, tmp_path, name):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "dg_batchformer").symlink_to(ROOT / "dg_batchformer")
    for kind in KINDS:
        assert new(kind, f"{name}{kind.title()}"[:30]) == 0

    for check in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [BIN / "ruff", *check, *tmp_path.glob("*.py")], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.system
def test_the_written_files_pass_the_type_checks(new, tmp_path):
    for kind in KINDS:
        assert new(kind, f"Typed{kind.title()}") == 0

    written = sorted(path for path in tmp_path.glob("*.py") if not path.name.startswith("test_"))
    settings = ["--config-file", ROOT / "pyproject.toml", "--cache-dir", ROOT / ".mypy_cache"]
    done = subprocess.run([BIN / "mypy", *settings, *written], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout


def test_a_new_algorithm_of_ours_needs_no_other_entry(registrations):
    """The steps in CONTRIBUTING.md satisfy the tests over the registries."""
    ALGORITHMS.add({"MyMethod": type("MyMethod", (ERM,), {})}, "this test")

    for name, test in runpy.run_path(str(ROOT / "tests" / "catalog" / "test_datasets.py")).items():
        if name.startswith("test_") and not getattr(test, "pytestmark", ()):
            test()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_method", "'my_method' is not a class name; write it as MyMethod"),
        ("Coral", "there is CORAL already"),
        ("Swad", "there is SWAD already"),
        ("Json", "there is a module called json already"),
        ("A" * 31, "take a name of at most 30"),
    ],
)
def test_names_that_cannot_be_used_are_refused(new, tmp_path, name, message, capsys):
    assert new("algorithm", name) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_files_are_not_overwritten(new, capsys):
    assert new("wrapper", "QuiteNew") == 0
    assert new("wrapper", "QuiteNew") == 2
    assert "quite_new.py is there already" in capsys.readouterr().err

"""The notebooks of the manual: each runs, and has its outputs committed."""

import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
LARGEST = 300 * 1024  # bytes, outputs included


def _tool():
    spec = importlib.util.spec_from_file_location("run_notebooks", ROOT / "tools" / "run_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_has_its_outputs(path, tmp_path):
    import nbformat

    notebook = _tool().executed(path, tmp_path)

    committed = nbformat.read(path, as_version=4)
    with_outputs = [bool(cell.outputs) for cell in committed.cells if cell.cell_type == "code"]
    assert with_outputs == [bool(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]
    assert path.stat().st_size < LARGEST

#!/usr/bin/env python3
"""Execute the notebooks of docs/notebooks and write their outputs into them: tools/run_notebooks.py [NAME ...]

Each runs in an empty folder of its own. Progress bars, warnings and times of execution are left out, so that the same
code gives the same file.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"
_SECONDS = 600  # for one cell


def main() -> None:
    """Execute the requested notebooks."""
    names = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*names, []], help=f"of {', '.join(names)}")
    for name in parser.parse_args().names or names:
        path = NOTEBOOKS / f"{name}.ipynb"
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(executed(path, Path(folder)), path)
        print(f"{path}: {path.stat().st_size // 1024} KiB", flush=True)


def executed(path: Path, folder: Path) -> Any:
    """Execute a notebook in a folder and return it with outputs; raise the exceptions of cells."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=_SECONDS, record_timing=False, resources={"metadata": {"path": folder}})
    client.execute()
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _shown(cell.outputs)
    return notebook


def _shown(outputs: Sequence[Any]) -> list[Any]:
    """Remove progress bars and standard error from the outputs."""
    kept = [output for output in outputs if output.get("name") != "stderr"]
    return [output for output in kept if "application/vnd.jupyter.widget-view+json" not in output.get("data", {})]


if __name__ == "__main__":
    main()

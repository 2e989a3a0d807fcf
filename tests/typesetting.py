"""Text of documents compiled with LaTeX."""

import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest


def typeset(path: Path, document: str, *, engine: str = "pdflatex", **files: str) -> tuple[str, str]:
    """Return what a compiled document says, and what the compiler said; skip where there is none.

    Args:
        engine: pdflatex or xelatex.
        files: further files by stem; with ``tables`` (entries of BibTeX), citations are resolved.

    """
    if not (shutil.which(engine) and shutil.which("pdftotext")):
        pytest.skip(f"needs {engine} and pdftotext: tools/install_latex.sh")
    (path / "t.tex").write_text(document)
    for stem, text in files.items():
        (path / (f"{stem}.bib" if stem == "tables" else f"{stem}.tex")).write_text(text)
    latex = [engine, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "t.tex"]
    commands = [latex, ["bibtex", "t"], latex, latex] if "tables" in files else [latex]
    for command in commands:
        done = subprocess.run(command, cwd=path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]
    said = subprocess.run(["pdftotext", "-layout", "t.pdf", "-"], cwd=path, capture_output=True, text=True).stdout
    return unicodedata.normalize("NFKC", said), done.stdout  # ligatures

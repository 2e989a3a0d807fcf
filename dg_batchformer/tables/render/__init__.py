"""Render tables as text, LaTeX, Markdown, HTML, CSV and JSON."""

import importlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dg_batchformer.tables.table import Section


class Format(NamedTuple):
    """An output format: its default file name, and its renderer, which is imported on demand."""

    file: str
    module: str
    function: str


FORMATS: Mapping[str, Format] = {
    "text": Format("tables.txt", "text", "text"),
    "latex": Format("tables.tex", "latex", "latex"),
    "latex_fragment": Format("tables_fragment.tex", "latex", "latex_fragment"),
    "markdown": Format("tables.md", "markdown", "markdown"),
    "csv": Format("tables.csv", "tidy_csv", "tidy_csv"),
    "json": Format("tables.json", "as_json", "as_json"),
    "html": Format("tables.html", "html", "html"),
}


def render(sections: Sequence[Section], name: str) -> str:
    """Render tables in a format of ``FORMATS``."""
    form = FORMATS[name]
    return getattr(importlib.import_module(f"{__name__}.{form.module}"), form.function)(sections)

"""Tables as text, LaTeX, Markdown, HTML, CSV and JSON."""

from collections.abc import Callable, Sequence

from dg_batchformer.report.render.as_json import as_json
from dg_batchformer.report.render.html import html
from dg_batchformer.report.render.latex import latex, latex_fragment
from dg_batchformer.report.render.markdown import markdown
from dg_batchformer.report.render.text import text
from dg_batchformer.report.render.tidy_csv import tidy_csv
from dg_batchformer.report.table import Section

FORMATS: dict[str, Callable[[Sequence[Section]], str]] = {
    "text": text,
    "latex": latex,
    "latex_fragment": latex_fragment,
    "markdown": markdown,
    "csv": tidy_csv,
    "json": as_json,
    "html": html,
}
FILES = {
    "text": "tables.txt",
    "latex": "tables.tex",
    "latex_fragment": "tables_fragment.tex",
    "markdown": "tables.md",
    "csv": "tables.csv",
    "json": "tables.json",
    "html": "tables.html",
}

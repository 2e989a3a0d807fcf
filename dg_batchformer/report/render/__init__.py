"""Tables as text, LaTeX, Markdown, CSV and HTML."""

from collections.abc import Callable, Sequence

from dg_batchformer.report.render.html import html
from dg_batchformer.report.render.latex import latex
from dg_batchformer.report.render.markdown import markdown
from dg_batchformer.report.render.text import text
from dg_batchformer.report.render.tidy_csv import tidy_csv
from dg_batchformer.report.table import Section

FORMATS: dict[str, Callable[[Sequence[Section]], str]] = {
    "text": text,
    "latex": latex,
    "markdown": markdown,
    "csv": tidy_csv,
    "html": html,
}
SUFFIXES = {"text": "txt", "latex": "tex", "markdown": "md", "csv": "csv", "html": "html"}

"""Render tables as CSV in tidy format: one line per cell."""

from collections.abc import Sequence

from dg_batchformer.tables.table import Section
from dg_batchformer.text.printable import in_csv

_TEXTS = ("table", "row", "column", "differs", "deviations", "draws")


def tidy_csv(sections: Sequence[Section]) -> str:
    """Return the lines of ``tables.frame.cells_frame`` as CSV; no spreadsheet takes a name for a formula."""
    from dg_batchformer.tables.frame import cells_frame  # pandas takes as long to load as other formats to print

    frame = cells_frame(sections)
    for name in [name for name in _TEXTS if name in frame]:
        frame[name] = [in_csv(text) if isinstance(text, str) else text for text in frame[name]]
    return frame.to_csv(index=False)

"""Tables for other programs: one line per cell."""

from collections.abc import Sequence

from dg_batchformer.report.table import Section


def tidy_csv(sections: Sequence[Section]) -> str:
    """Return every cell as a line: selection, table, row, column, mean and error in percent, n, significance."""
    import pandas as pd  # takes as long to load as all other formats take to print

    cells = [
        {
            "selection": section.method.name,
            "table": table.title,
            "row": label,
            "column": name,
            "mean": cell.mean,
            "standard_error": cell.error,
            "n": cell.n,
            "significance": table.differing.get((label, column), ""),
        }
        for section in sections
        for table in section.tables
        for label, row in table.rows.items()
        for column, (name, cell) in enumerate(zip(table.columns, row, strict=True))
    ]
    return pd.DataFrame(cells).to_csv(index=False)

"""Tables for papers: a whole document with booktabs, best bold and second underlined."""

from collections.abc import Sequence

from dg_batchformer.report.render.latex_text import escape
from dg_batchformer.report.render.wording import caption, number, sentence, significance
from dg_batchformer.report.selection import Method
from dg_batchformer.report.table import Section, Table


def latex(sections: Sequence[Section]) -> str:
    """Return a document with all tables, wide ones shrunk to the page."""
    lines = [
        r"\documentclass{article}",
        r"\usepackage{booktabs}",
        r"\usepackage{graphicx}",
        r"\newsavebox{\resultbox}",
        r"\begin{document}",
    ]
    for section in sections:
        lines += [
            "",
            rf"\section*{{\raggedright Model selection: {escape(section.method.title)}}}",
            f"{escape(sentence(section.method.about))}",
        ]
        for table in section.tables:
            lines += ["", *_table(table, section.method)]
        lines += [f"\n{escape(note)}." for note in section.notes]
    return "\n".join([*lines, "", r"\end{document}"]) + "\n"


def _table(table: Table, method: Method) -> list[str]:
    header = " & ".join(rf"\textbf{{{escape(name)}}}" for name in (table.corner.capitalize(), *table.columns))
    return [
        r"\begin{table}[h!]",
        r"\centering",
        rf"\caption{{{escape(caption(table, method))}.}}",
        r"\sbox{\resultbox}{%",
        rf"\begin{{tabular}}{{l{'c' * len(table.columns)}}}",
        r"\toprule",
        rf"{header} \\",
        r"\midrule",
        *(_row(table, label) for label in table.rows),
        r"\bottomrule",
        r"\end{tabular}}%",
        r"\ifdim\wd\resultbox>\linewidth\resizebox{\linewidth}{!}{\usebox{\resultbox}}\else\usebox{\resultbox}\fi",
        *(rf"\par\smallskip{{\footnotesize {escape(note)}\par}}" for note in table.notes),
        r"\end{table}",
    ]


def _row(table: Table, label: str) -> str:
    cells = [_cell(table, label, column) for column in range(len(table.columns))]
    return " & ".join([escape(label), *cells]) + r" \\"


def _cell(table: Table, label: str, column: int) -> str:
    shown = number(table.rows[label][column], r" $\pm$ ", table.trials) + escape(significance(table, label, column))
    if (label, column) in table.best:
        return rf"\textbf{{{shown}}}"
    return rf"\underline{{{shown}}}" if (label, column) in table.second else shown

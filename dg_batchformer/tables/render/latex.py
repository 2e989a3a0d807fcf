"""Render tables as LaTeX: booktabs, best in bold, second best underlined, published rows cited, provenance below."""

import re
from collections.abc import Sequence

from dg_batchformer.results.selection import Selection
from dg_batchformer.tables.render.latex_text import UNSPELLED_DEFINITION, escape, needs_fonts
from dg_batchformer.tables.render.wording import (
    DRAW_COLUMNS,
    caption,
    draw_rows,
    draws_caption,
    no_table,
    number,
    published_number,
    row_name,
    sentence,
    significance,
)
from dg_batchformer.tables.table import PublishedRow, Section, Table

_PLUS_MINUS = r" $\pm$ "
_BOX = r"\newsavebox{\resultbox}"  # to measure a table, so that only large ones are shrunk
_SHRINK = (
    r"\ifdim\wd\resultbox>\linewidth\sbox{\resultbox}{\resizebox{\linewidth}{!}{\usebox{\resultbox}}}\fi",
    r"\ifdim\dimexpr\ht\resultbox+\dp\resultbox\relax>0.7\textheight",
    r"\sbox{\resultbox}{\resizebox*{!}{0.7\textheight}{\usebox{\resultbox}}}\fi",
    r"\usebox{\resultbox}",
)


def latex(sections: Sequence[Section]) -> str:
    """Render tables as a LaTeX document; large tables are shrunk to the page.

    Citations need ``tables.bib``: run pdflatex, bibtex, pdflatex, pdflatex. Names with characters that pdflatex cannot
    print need xelatex or lualatex.
    """
    body: list[str] = []
    for section in sections:
        if not section.tables:
            body += ["", _footnote(no_table(section))]
            continue
        body += [
            "",
            rf"\section*{{\raggedright Model selection: {escape(section.method.title)}}}",
            f"{escape(sentence(section.method.about))}",
        ]
        for table in section.tables:
            body += ["", *_table(table, section.method, "h!")]
        body.append(r"\clearpage")  # keeps tables before the notes of their section
        body += [_footnote(note) for note in section.notes]
    if _cites(sections):
        body += ["", r"\bibliographystyle{plain}", r"\bibliography{tables}"]
    fonts = [r"\usepackage{iftex}", r"\iftutex\usepackage{fontspec}\fi", *UNSPELLED_DEFINITION]
    lines = [
        r"\documentclass{article}",
        r"\usepackage[margin=2.5cm]{geometry}",
        r"\usepackage{booktabs}",
        r"\usepackage{graphicx}",
        *(fonts if needs_fonts("\n".join(body)) else []),
        _BOX,
        r"\begin{document}",
        *body,
        "",
        r"\end{document}",
    ]
    return "\n".join(lines) + "\n"


def latex_fragment(sections: Sequence[Section]) -> str:
    r"""Render tables for \input in a paper; the first lines list the required packages."""
    body: list[str] = []
    for section in sections:
        for table in section.tables:
            body += ["", *_table(table, section.method, "tbp")]
        body += ["", *(f"% {' '.join(note.split())}" for note in section.notes)] if section.notes else []
    needs = [r"% For \input; needs \usepackage{booktabs} and \usepackage{graphicx}."]
    if _cites(sections):
        needs.append("% Cites entries of tables.bib, which --output writes.")
    if needs_fonts("\n".join(body)):
        needs += [r"% Some names need XeLaTeX or LuaLaTeX, and \usepackage{fontspec}.", *UNSPELLED_DEFINITION]
    return "\n".join([*needs, rf"\ifdefined\resultbox\else{_BOX}\fi", *body]) + "\n"


def _cites(sections: Sequence[Section]) -> bool:
    return any(table.published for section in sections for table in section.tables)


def _table(table: Table, method: Selection, placement: str) -> list[str]:
    header = " & ".join(rf"\textbf{{{escape(name)}}}" for name in (table.corner.capitalize(), *table.columns))
    published = [r"\midrule", *(_published_row(row) for row in table.published)] if table.published else []
    made = [table.provenance.sentence] if table.provenance else []
    return [
        rf"\begin{{table}}[{placement}]",
        r"\centering",
        rf"\caption{{{escape(caption(table, method))}.}}",
        rf"\label{{tab:{re.sub('[^a-z0-9]+', '-', table.title.lower())}-{method.name}}}",
        r"\smallskip",
        r"\sbox{\resultbox}{%",
        rf"\begin{{tabular}}{{l{'c' * len(table.columns)}}}",
        r"\toprule",
        rf"{header} \\",
        r"\midrule",
        *(_row(table, label) for label in table.rows),
        *published,
        r"\bottomrule",
        r"\end{tabular}}%",
        *_SHRINK,
        *(_footnote(note) for note in [*table.notes, *made]),
        r"\end{table}",
        *_draws(table, method, placement),
    ]


def _draws(table: Table, method: Selection, placement: str) -> list[str]:
    if not table.draws:
        return []
    header = " & ".join(rf"\textbf{{{escape(name.capitalize())}}}" for name in DRAW_COLUMNS)
    return [
        rf"\begin{{table}}[{placement}]",
        r"\centering",
        rf"\caption{{{escape(draws_caption(table, method))}.}}",
        r"\smallskip",
        r"\sbox{\resultbox}{%",
        r"\begin{tabular}{llrrrl}",
        r"\toprule",
        rf"{header} \\",
        r"\midrule",
        *(" & ".join(map(escape, row)) + r" \\" for row in draw_rows(table)),
        r"\bottomrule",
        r"\end{tabular}}%",
        *_SHRINK,
        r"\end{table}",
    ]


def _footnote(note: str) -> str:
    """Format a note as a small paragraph; paths may break after a slash."""
    text = escape(note.removesuffix(".")).replace("/", r"/\allowbreak{}")
    return rf"\par\smallskip{{\footnotesize\raggedright {text}.\par}}"


def _row(table: Table, label: str) -> str:
    cells = [_cell(table, label, column) for column in range(len(table.columns))]
    return " & ".join([escape(row_name(table, label)), *cells]) + r" \\"


def _published_row(row: PublishedRow) -> str:
    cells = [escape(published_number(cell, "±")).replace(r"$\pm$", _PLUS_MINUS) for cell in row.cells]
    return " & ".join([rf"{escape(row.label)}~\cite{{{row.key}}}", *cells]) + r" \\"


def _cell(table: Table, label: str, column: int) -> str:
    shown = number(table.rows[label][column], _PLUS_MINUS, table.trials) + escape(significance(table, label, column))
    if (label, column) in table.best:
        return rf"\textbf{{{shown}}}"
    return rf"\underline{{{shown}}}" if (label, column) in table.second else shown

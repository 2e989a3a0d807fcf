"""Render tables as a self-contained HTML page, and as a fragment for the report.

Built as element trees, so that labels are always escaped.
"""

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

from dg_batchformer.results.selection import Selection
from dg_batchformer.tables.render.wording import (
    DRAW_COLUMNS,
    EMPTY,
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
from dg_batchformer.tables.table import Section, Table

STYLE = Path(__file__).with_name("tables.css")
_AVERAGE = "average"  # the class of its cells, which come first on narrow screens
LEGEND = f"Bold: best in its column. Underlined: second best. {EMPTY}: no value; the reason is below the table."


def html(sections: Sequence[Section]) -> str:
    """Render tables as one HTML page."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n<title>Model selection</title>\n'
        f"<style>\n{STYLE.read_text()}</style>\n<body>\n<h1>{_heading(sections)}</h1>\n"
        + "\n".join(section_html(section, level=2) for section in sections)
        + f"\n<p>{LEGEND}</p>\n</body>\n</html>\n"
    )


def _heading(sections: Sequence[Section]) -> str:
    titles = {section.metric.title: None for section in sections}
    return f"{', '.join(titles).capitalize()} by model selection"


# Those of the notebook around, light or dark.
_NOTEBOOK_COLOURS = (
    "--paper: transparent; --ink: currentColor; --muted: color-mix(in srgb, currentColor 75%, transparent); "
    "--rule: color-mix(in srgb, currentColor 25%, transparent); --tint: transparent; --accent: currentColor;"
)


def notebook_html(section: Section) -> str:
    """Return what a selection method selects as the output of a notebook's cell."""
    text = STYLE.read_text()
    rules = text[text.index(".scroll {") : text.index("@media print")]
    style = f"<style>.dg-tables {{ {_NOTEBOOK_COLOURS} {rules} }}</style>"  # nested: they reach no other output
    return f'{style}<div class="dg-tables">{section_html(section, level=4)}</div>'


def section_html(section: Section, *, level: int) -> str:
    """Render a section as an HTML fragment, with a heading of the given level."""
    if not section.tables:
        return tostring(_element("p", f"{no_table(section)}.", "notes"), encoding="unicode", method="html")
    parts = [_element(f"h{level}", f"Model selection: {section.method.title}")]
    parts.append(_element("p", sentence(section.method.about)))
    for table in section.tables:
        parts += _table(table, section.method)
    parts += [_element("p", f"{note}.", "notes") for note in section.notes]
    return "\n".join(tostring(part, encoding="unicode", method="html") for part in parts)


def _table(table: Table, method: Selection) -> list[Element]:
    # A scrollable box must be reachable by keyboard.
    box = Element("div", {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": f"table {table.title}"})
    grid = SubElement(box, "table", {"class": "results"})
    grid.append(_element("caption", f"{caption(table, method)}."))
    head = SubElement(SubElement(grid, "thead"), "tr")
    head.append(_element("th", table.corner.capitalize(), scope="col"))
    for column, name in enumerate(table.columns):
        head.append(_element("th", name, _AVERAGE if column == table.average else "", scope="col"))
    body = SubElement(grid, "tbody")
    for label in table.rows:
        row = SubElement(body, "tr")
        row.append(_element("th", row_name(table, label), scope="row"))
        row.extend(_cell(table, label, column) for column in range(len(table.columns)))
    for published in table.published:
        row = SubElement(body, "tr", {"class": "published"})
        row.append(_element("th", published.label, scope="row"))
        for column, cell in enumerate(published.cells):
            row.append(_element("td", published_number(cell, " ± "), _AVERAGE if column == table.average else ""))
    if not table.notes:
        return [box, *_draws(table, method)]
    notes = Element("ul", {"class": "notes"})
    notes.extend(_element("li", note) for note in table.notes)
    return [box, notes, *_draws(table, method)]


def _draws(table: Table, method: Selection) -> list[Element]:
    if not table.draws:
        return []
    folded = Element("details")
    folded.append(_element("summary", f"{draws_caption(table, method)}."))
    label = f"draws of {table.title}"
    box = SubElement(folded, "div", {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": label})
    grid = SubElement(box, "table", {"class": "draws"})
    head = SubElement(SubElement(grid, "thead"), "tr")
    head.extend(_element("th", name.capitalize(), scope="col") for name in DRAW_COLUMNS)
    body = SubElement(grid, "tbody")
    for label, *values in draw_rows(table):
        row = SubElement(body, "tr")
        row.append(_element("th", label, scope="row"))
        row.extend(_element("td", value) for value in values)
    return [folded]


def _cell(table: Table, label: str, column: int) -> Element:
    value, _, spread = number(table.rows[label][column], " ± ", table.trials).partition(" ")
    cell = Element("td", {"class": _AVERAGE} if column == table.average else {})
    if value == EMPTY:
        cell.append(_element("abbr", EMPTY, title="no value: the reason is below the table"))
        return cell
    mark = "b" if (label, column) in table.best else "u" if (label, column) in table.second else "span"
    cell.append(_element(mark, value))
    if sign := significance(table, label, column):
        cell.append(_element("sup", sign))
    if spread:
        cell.append(_element("small", f" {spread}"))
    return cell


def _element(tag: str, text: str, kind: str = "", **attributes: str) -> Element:
    element = Element(tag, {**({"class": kind} if kind else {}), **attributes})
    element.text = text
    return element

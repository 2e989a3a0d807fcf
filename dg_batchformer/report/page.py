"""Build the report page: gather its parts and fill the template."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dg_batchformer.report import progress, provenance, reproduce, summary
from dg_batchformer.report.choices import Choices
from dg_batchformer.report.figures.canvas import NARROW, WIDE, svg
from dg_batchformer.report.figures.catalog import GAIN, KINDS, Kind, of_dataset
from dg_batchformer.report.looks import Looks, looks
from dg_batchformer.results.collection import DEFAULTS, Collection
from dg_batchformer.results.selection import METHODS
from dg_batchformer.runtime.parallel import in_every_core
from dg_batchformer.tables.by_class import with_classes
from dg_batchformer.tables.columns import with_columns
from dg_batchformer.tables.draws import with_draws
from dg_batchformer.tables.render.html import LEGEND, STYLE, section_html
from dg_batchformer.tables.table import Section, build_sections

_HERE = Path(__file__).parent
_FEW = 24  # figures that one core draws faster than processes start


@dataclass(eq=False)
class Drawn:
    """A figure of one dataset, drawn once for all selection methods whose data agree.

    Args:
        dataset: its name, or ``all``.
        data: what it draws.
        about: its text alternative.
        key: rows that are named beside it.
        note: what it leaves out, or ''.
        methods: selection methods that it holds for.
        svgs: SVG elements by width in inches.

    """

    dataset: str
    data: pd.DataFrame
    about: str
    key: Sequence[str]
    note: str
    methods: list[str] = field(default_factory=list)
    svgs: dict[float, str] = field(default_factory=dict)


def build_page(collection: Collection, folders: Sequence[Path], **options: Any) -> str:
    """Return the report of a collection as one self-contained HTML page.

    Args:
        collection: runs to report.
        folders: that the collection was read from.
        options: of the ``report`` command, for the command that repeats it; ``columns`` are those of its tables.

    """
    sections = _telling(build_sections(collection, list(METHODS)))
    if any(run.candidate != DEFAULTS for run in collection.runs):
        sections = with_draws(sections, collection)
    if options.get("columns"):
        sections = with_columns(sections, options["columns"])
    choices = {section.method.name: Choices(collection, METHODS[section.method.name]) for section in sections}
    look = looks(collection.rows)
    figures = _draw(KINDS, choices, look)
    first, answer = _answer(figures)
    further = {kind: [one for one in drawn if one not in answer] for kind, drawn in figures.items()}
    found, rows = progress.states(collection)
    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    return environment.get_template("page.html.j2").render(
        name=collection.name,
        style=Markup(STYLE.read_text() + (_HERE / "style.css").read_text()),
        questions=summary.questions(folders),
        asked=summary.asked(collection),
        progress=summary.progress(collection),
        verdicts={name: summary.verdicts(of_method) for name, of_method in choices.items()},
        coverage={name: summary.coverage(of_method) for name, of_method in choices.items()},
        made=time.strftime("%Y-%m-%d %H:%M %Z"),
        made_with=provenance.made_with(),
        methods=[
            (section.method, Markup(section_html(section, level=3))) for section in with_classes(sections, collection)
        ],
        legend=LEGEND,
        first=first,
        answer=answer,
        figures=[(kind, drawn) for kind, drawn in further.items() if drawn],
        looks=look,
        markup=Markup,
        widths=(WIDE, NARROW),
        states=found,
        states_by_row=rows,
        troubles=progress.troubles(collection),
        network=provenance.network(collection),
        settings=provenance.settings(collection),
        versions=provenance.versions(collection),
        costs=provenance.costs(collection),
        skipped=collection.skipped,
        commands=reproduce.commands(collection, folders, **options),
        sweep_files=reproduce.sweep_files(folders),
    )


def _telling(sections: Sequence[Section]) -> list[Section]:
    """Return the selection methods that have values, each different from those before; the first if none has."""
    kept: list[Section] = []
    for section in sections:
        values = _values(section)
        if values and all(values != _values(other) for other in kept):
            kept.append(section)
    return kept or list(sections[:1])


def _values(section: Section) -> list[Any]:
    """Return the cells of a section; none if all are empty."""
    cells = [cell for table in section.tables for row in table.rows.values() for cell in row]
    return cells if any(cell.mean is not None for cell in cells) else []


def _draw(kinds: Sequence[Kind], choices: Mapping[str, Choices], look: Looks) -> dict[Kind, list[Drawn]]:
    """Draw all figures for wide and narrow screens, in all cores: drawing takes most of the time of a page."""
    figures = {kind: _planned(kind, choices) for kind in kinds}
    jobs = [(kind, one, width) for kind, drawn in figures.items() for one in drawn for width in (WIDE, NARROW)]

    def _render(job: tuple[Kind, Drawn, float]) -> str:
        kind, one, width = job
        return svg(kind.draw(one.data, look, width), one.about if width == WIDE else f"{one.about}, for narrow screens")

    for (_, one, width), drawn in zip(jobs, in_every_core(_render, jobs, at_once=1, few=_FEW), strict=True):
        one.svgs[width] = drawn
    return figures


def _planned(kind: Kind, choices: Mapping[str, Choices]) -> list[Drawn]:
    """Return the figures of one kind, of every dataset and selection method, not yet drawn."""
    found: list[Drawn] = []
    frame = pd.DataFrame()
    for method, of_method in choices.items():
        frame = kind.data(of_method) if kind.by_selection or not found else frame
        for dataset in dict.fromkeys(frame.dataset):
            data = of_dataset(kind, frame, of_method, dataset).reset_index(drop=True)
            same = next((one for one in found if one.dataset == dataset and one.data.equals(data)), None)
            if same is None:
                rows, drawn = frame[frame.dataset == dataset].row.nunique(), list(dict.fromkeys(data.row))
                same = Drawn(
                    dataset,
                    data,
                    about=f"{dataset}, {METHODS[method].title}: {kind.title} of {len(drawn)} rows",
                    key=drawn if kind.keyed else (),
                    note=f"{len(drawn)} of {rows} rows are drawn, those that test best on average."
                    if rows > len(drawn)
                    else "",
                )
                found.append(same)
            same.methods.append(method)
    return found


def _answer(figures: Mapping[Kind, Sequence[Drawn]]) -> tuple[Kind, Sequence[Drawn]]:
    """Return the figure of the first screen: gains over the reference row, or accuracies if there is one row."""
    kind = next((kind for kind, drawn in figures.items() if drawn), GAIN)
    drawn = figures[kind]
    return kind, [one for one in drawn if one.dataset == drawn[0].dataset]

"""The page as a whole: collects its contents and renders the template."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dg_batchformer.report import progress, provenance, reproduce, summary
from dg_batchformer.report.choices import Choices
from dg_batchformer.report.figures import accuracy, curves, draws, gain, ratio, transfer, valley
from dg_batchformer.report.figures.svg import Plot
from dg_batchformer.report.looks import looks
from dg_batchformer.results.collection import Collection
from dg_batchformer.results.selection import DEFAULT_METHODS, METHODS
from dg_batchformer.tables.by_class import with_classes
from dg_batchformer.tables.draws import with_draws
from dg_batchformer.tables.render.html import LEGEND, STYLE, section_html
from dg_batchformer.tables.table import Section, build_sections

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Figures:
    """A section of the page with one figure per dataset.

    Args:
        lacking: text shown if there are no figures; '' leaves the section out.

    """

    id: str
    title: str
    about: str
    plots: Sequence[Plot]
    lacking: str


def build_page(collection: Collection, folders: Sequence[Path], **options: object) -> str:
    """Return the report of a collection as one self-contained HTML page.

    Args:
        folders: the folders that the collection was read from.
        options: options of ``report``, for the command that writes the page again.

    """
    sections = _telling(build_sections(collection, list(METHODS)))
    if any(run.hparams_seed for run in collection.runs):
        sections = with_draws(sections, collection)
    shown = next((section for section in sections if _values(section)), sections[0])
    found, rows = progress.states(collection)
    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    return environment.get_template("page.html.j2").render(
        name=collection.name,
        style=Markup(STYLE.read_text() + (_HERE / "style.css").read_text()),
        asked=summary.asked(collection),
        progress=summary.progress(collection),
        outcome=summary.outcome(shown, collection),
        made=time.strftime("%Y-%m-%d %H:%M %Z"),
        made_with=provenance.made_with(),
        methods=[
            (section.method, Markup(section_html(section, level=3))) for section in with_classes(sections, collection)
        ],
        legend=LEGEND,
        shown=shown.method,
        figures=_figures(Choices(collection, METHODS[shown.method.name])),
        looks=looks(collection.rows),
        markup=Markup,
        states=found,
        states_by_row=rows,
        troubles=progress.troubles(collection),
        settings=provenance.settings(collection),
        costs=provenance.costs(collection),
        skipped=collection.skipped,
        commands=reproduce.commands(collection, folders, **options),
        sweep_files=reproduce.sweep_files(folders),
    )


def _telling(sections: Sequence[Section]) -> list[Section]:
    """Return the sections of the default methods, and of other methods whose tables differ from all earlier ones."""
    kept: list[Section] = []
    for section in sections:
        values = _values(section)
        if section.method.name in DEFAULT_METHODS or (values and all(values != _values(other) for other in kept)):
            kept.append(section)
    return kept


def _values(section: Section) -> list[Any]:
    """Return the cells of a section; an empty list if no cell has a value."""
    cells = [cell for table in section.tables for row in table.rows.values() for cell in row]
    return cells if any(cell.mean is not None for cell in cells) else []


def _figures(choices: Choices) -> list[Figures]:
    """Draw all figures; the gain of BatchFormer is left out if no two rows differ in BF only."""
    look = looks(choices.collection.rows)
    figures = [
        Figures("accuracy", "Accuracy per environment", accuracy.ABOUT, list(accuracy.accuracy_plots(choices, look)),
                accuracy.LACKING),
        Figures("gain", "What BatchFormer adds", gain.ABOUT, list(gain.gain_plots(choices, look)), ""),
        Figures("ratio", "Accuracy by class frequency", ratio.ABOUT, list(ratio.ratio_plots(choices, look)), ""),
        Figures("curves", "Accuracy over steps", curves.ABOUT, list(curves.curve_plots(choices, look)),
                curves.LACKING),
        Figures("valley", "SWAD's loss valley", valley.ABOUT, list(valley.valley_plots(choices, look)),
                valley.LACKING),
        Figures("transfer", "In-domain against out-of-domain", transfer.ABOUT,
                list(transfer.transfer_plots(choices, look)), transfer.LACKING),
        Figures("draws", "Random draws of hyper-parameters", draws.ABOUT,
                list(draws.draw_plots(choices, look)), draws.LACKING),
    ]  # fmt: skip
    return [figure for figure in figures if figure.plots or figure.lacking]

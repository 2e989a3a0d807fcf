"""Figures for notebooks and papers: matplotlib Figures of the right data, and files at the widths of columns."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from generated import ROWS, write_sweep

from dg_batchformer.cli.main import main
from dg_batchformer.errors import InputError
from dg_batchformer.report.choices import Choices
from dg_batchformer.report.figures.dots import gain_figure
from dg_batchformer.report.figures.ratio import ratio_frame
from dg_batchformer.report.looks import looks
from dg_batchformer.report.plots import WIDTHS, Plots
from dg_batchformer.results.collect import collect
from dg_batchformer.results.metrics import METRICS
from dg_batchformer.results.selection import METHODS
from dg_batchformer.stats.comparison import compare_rows
from dg_batchformer.tables.table import build_sections


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("sweep"), algorithms=ROWS[:3], draws=1, records=5, test_envs=("0", "1"))


@pytest.fixture(scope="module")
def plots(sweep):
    return Plots(collect([sweep.path]))


def _titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]


def test_gain_draws_the_average_first_with_the_interval_of_compare(plots):
    figure = plots.gain("ERM+BF", over="ERM")

    [compared] = compare_rows(plots.collection, "ERM", ["ERM+BF"], ["training-domain"])
    drawn = [line.get_xdata() for line in figure.axes[0].lines]
    assert _titles(figure) == ["Average", "art_painting", "cartoon"]
    assert any(len(x) == 2 and np.allclose(x, compared.interval) for x in drawn)
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert figure.axes[0].get_xlim()[0] < 0 < figure.axes[0].get_xlim()[1]


def test_the_scale_follows_the_dots_and_arrows_mark_intervals_that_go_on():
    frame = pd.DataFrame(
        [("A", "Average", 1.0, -400.0, 3.0), ("B", "Average", 5.0, 4.0, 6.0), ("A", "photo", -2.0, -3.0, -1.0)],
        columns=["row", "environment", "gain", "low", "high"],
    )

    figure = gain_figure(frame.assign(over="ERM"), looks(["ERM", "A", "B"]))

    arrows = [
        (line.get_marker(), line.get_xdata()[0]) for line in figure.axes[0].lines if line.get_marker() in ("<", ">")
    ]
    assert arrows == [("<", -9.0)]  # the dots spread over 7 points, from -2 to 5
    low, high = figure.axes[0].get_xlim()
    assert -10 < low < -9
    assert 6 < high < 7


def test_curves_begin_at_step_0_and_name_their_rows(plots):
    figure = plots.curves()

    assert _titles(figure)[0] == "art_painting: validation"
    assert figure.axes[0].get_xlim()[0] == 0
    assert {text.get_text() for axes in figure.axes for text in axes.texts} == {"ERM", "ERM+BF", "SWAD"}


def test_bars_of_ratio_are_t_intervals_of_the_cells_of_tables():
    results = collect([Path(__file__).parents[2] / "results" / "imbalanced_pacs"])
    frame = ratio_frame(Choices(results, METHODS["training-domain"]))
    [section] = build_sections(results, ["training-domain"], METRICS["few"])

    drawn = frame[(frame.row == "BSoftmax+BF") & (frame.classes == "few-shot")].set_index("ratio")
    for table, ratio in zip(section.tables[:3], (25, 50, 100), strict=True):
        cell = table.rows["BSoftmax+BF"][table.columns.index("Average")]
        sample_error = cell.error * (10 / 9) ** 0.5  # tables have DomainBed's population deviation
        assert drawn.loc[ratio].accuracy == pytest.approx(cell.mean)
        assert drawn.loc[ratio].interval == pytest.approx(2.262157 * sample_error)  # t of 9 degrees of freedom


def test_selection_has_a_panel_for_every_method_and_a_line_for_every_row(plots):
    figure = plots.selection()

    assert {"training-domain", "oracle", "swad-averaged"} <= set(_titles(figure))
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["ERM", "ERM+BF", "SWAD"]


def test_transfer_is_one_square_panel_with_the_diagonal(plots):
    [axes] = plots.transfer().axes

    assert axes.get_xlim() == axes.get_ylim()
    assert any(list(line.get_xdata()) == list(line.get_ydata()) == list(axes.get_xlim()) for line in axes.lines)


def test_a_row_has_one_colour_in_all_figures(plots):
    colours = [
        {line.get_color() for axes in figure.axes for line in axes.lines}
        for figure in (plots.accuracy(), plots.curves())
    ]

    assert {look.hex for look in plots.looks.values()} <= colours[0] & colours[1]


def test_figures_without_labels_at_their_lines_have_a_key(tmp_path):
    drawn = write_sweep(tmp_path, algorithms=ROWS[:2], draws=3, records=3, test_envs=("0",))

    [key] = Plots(collect([drawn.path])).draws(width=3.25).legends

    assert [text.get_text() for text in key.get_texts()] == [row.label for row in ROWS[:2]]


def test_notebooks_show_figures_without_pyplot_and_files_embed_truetype_fonts(plots, tmp_path):
    figure = plots.accuracy()

    assert figure._repr_png_().startswith(b"\x89PNG")
    figure.savefig(tmp_path / "accuracy.pdf")
    assert b"/Type3" not in (tmp_path / "accuracy.pdf").read_bytes()


def test_what_cannot_be_drawn_is_said_in_a_sentence(plots):
    with pytest.raises(InputError, match="unknown row 'CORAL'"):
        plots.gain("CORAL", over="ERM")
    with pytest.raises(InputError, match="unknown dataset 'VLCS'"):
        plots.curves("VLCS")
    with pytest.raises(InputError, match="row 'ERM' cannot be compared with itself"):
        plots.gain(["ERM+BF", "ERM"], over="ERM")
    with pytest.raises(InputError, match="no finished runs have two ratios"):
        plots.ratio()
    with pytest.raises(InputError, match="no row has two finished draws"):
        plots.draws()
    with pytest.raises(InputError, match="no finished run has a value for this selection"):
        plots.accuracy(selection="leave-one-domain-out")


@pytest.mark.system
def test_report_figures_writes_every_figure_at_the_widths_of_columns(sweep, tmp_path, capsys):
    assert main(["report", str(sweep.path), "--figures", str(tmp_path)]) == 0

    names = {path.name for path in tmp_path.iterdir()}
    assert {"accuracy_PACS.csv", "accuracy_PACS_3.25in.svg", "curves_PACS_5.5in.pdf"} <= names
    assert len({name for name in names if name.startswith("curves_PACS_") and name.endswith(".pdf")}) == len(
        {width for widths in WIDTHS.values() for width in widths}
    )
    drawn = (tmp_path / "accuracy_PACS_3.25in.svg").read_text()
    assert 'width="234pt"' in drawn, "72 points an inch"
    assert set(re.findall(r"font-size: ([^;]*)", drawn)) == {"8px"}, "a unit of the SVG is a point"
    assert pd.read_csv(tmp_path / "accuracy_PACS.csv").row.unique().tolist() == ["ERM", "ERM+BF", "SWAD"]
    assert (tmp_path / "curves_PACS_5.5in.pdf").read_bytes().startswith(b"%PDF")

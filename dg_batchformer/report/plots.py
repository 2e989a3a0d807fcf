"""The figures of a sweep for notebooks and papers: the functions that the report draws with."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from dg_batchformer.errors import InputError, unknown
from dg_batchformer.report.choices import Choices
from dg_batchformer.report.figures import frames
from dg_batchformer.report.figures.canvas import STYLE, with_key
from dg_batchformer.report.figures.catalog import KINDS, of_dataset
from dg_batchformer.report.figures.dots import accuracy_figure, gain_figure, selection_figure
from dg_batchformer.report.figures.lines import curves_figure, valley_figure
from dg_batchformer.report.figures.ratio import ratio_figure, ratio_frame
from dg_batchformer.report.figures.scatter import draws_figure, transfer_figure
from dg_batchformer.report.looks import looks
from dg_batchformer.results.collection import Collection
from dg_batchformer.results.selection import METHODS
from dg_batchformer.stats.comparison import check_rows
from dg_batchformer.storage.folders import atomic_write

WIDTHS = {"icml": (3.25, 6.75), "cvpr": (3.25, 6.875), "neurips": (5.5,)}
"""Inches of a column, and of the whole page, by conference."""


class Plots:
    """Figures of a results collection, as matplotlib Figures.

    Args:
        collection: runs to draw.

    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.looks = looks(collection.rows)

    def curves(self, dataset: str | None = None, *, selection: str = "training-domain", width: float = 9.2) -> Figure:
        """Draw validation and test accuracy over steps, from step 0.

        Args:
            dataset: to draw; default: the first.
            selection: method that selects the draws.
            width: of the figure in inches.

        Raises InputError if nothing is trained.

        >>> import dg_batchformer as dg
        >>> dg.load_results("results/toy").plot.curves()
        <Drawing size ...>

        """
        choices = self._choices(selection)
        frame = frames.curve_frame(choices)
        return curves_figure(_lines(frame, self._dataset(dataset)), self.looks, width)

    def gain(
        self,
        row: str | Sequence[str],
        *,
        over: str,
        dataset: str | None = None,
        selection: str = "training-domain",
        width: float = 9.2,
    ) -> Figure:
        """Draw the gain of one row or several over another, with ``compare``'s 95 % interval at the average.

        Args:
            row: label of a row, or of several.
            over: label of the row to compare with.
            dataset: to draw; default: the first.
            selection: method that selects steps and draws.
            width: of the figure in inches.

        Raises InputError for unknown rows, and if no trial has both.

        >>> import dg_batchformer as dg
        >>> dg.load_results("results/toy").plot.gain("ERM+BF", over="ERM").savefig("gain.pdf")

        """
        rows = [row] if isinstance(row, str) else list(row)
        if over in rows:
            raise InputError(f"row {over!r} cannot be compared with itself; name another row in over")
        check_rows(self.collection, [over, *rows])
        frame = frames.gain_frame(self._choices(selection), [(over, label) for label in rows])
        reason = "no trial has results of both rows"
        return gain_figure(_lines(frame, self._dataset(dataset), reason), self.looks, width)

    def selection(self, dataset: str | None = None, *, width: float = 9.2) -> Figure:
        """Draw the average test accuracy of every row by selection method; raise InputError if nothing is trained.

        >>> import dg_batchformer as dg
        >>> dg.load_results("results/toy").plot.selection()
        <Drawing size ...>

        """
        return selection_figure(
            _lines(frames.selection_frame(self.collection), self._dataset(dataset)), self.looks, width
        )

    def accuracy(self, dataset: str | None = None, *, selection: str = "training-domain", width: float = 9.2) -> Figure:
        """Draw test accuracy per environment, the average first; raise InputError if nothing is trained.

        >>> import dg_batchformer as dg
        >>> dg.load_results("results/toy").plot.accuracy()
        <Drawing size ...>

        """
        frame = frames.accuracy_frame(self._choices(selection))
        return accuracy_figure(_lines(frame, self._dataset(dataset)), self.looks, width)

    def transfer(self, dataset: str | None = None, *, selection: str = "training-domain", width: float = 9.2) -> Figure:
        """Draw in-domain against test accuracy with the diagonal; raise InputError if nothing is trained.

        >>> import dg_batchformer as dg
        >>> dg.load_results("results/toy").plot.transfer()
        <Drawing size ...>

        """
        frame = frames.transfer_frame(self._choices(selection))
        return transfer_figure(_lines(frame, self._dataset(dataset)), self.looks, width)

    def valley(self, dataset: str | None = None, *, selection: str = "training-domain", width: float = 9.2) -> Figure:
        """Draw SWAD's loss valley; raise InputError if no row averages weights.

        >>> import dg_batchformer as dg
        >>> dg.load_results("results/toy").plot.valley()
        <Drawing size ...>

        """
        frame = frames.valley_frame(self._choices(selection))
        reason = "no finished run averages the weights of a loss valley, as SWAD does"
        return valley_figure(_lines(frame, self._dataset(dataset), reason), self.looks, width)

    def ratio(self, dataset: str | None = None, *, selection: str = "training-domain", width: float = 9.2) -> Figure:
        """Draw accuracy by class frequency against the ratio of an imbalance; raise InputError without imbalances."""
        frame = ratio_frame(self._choices(selection))
        names = list(dict.fromkeys(frame.dataset)) or [self._dataset(None)]
        if dataset not in (None, *names):
            raise unknown("dataset", str(dataset), names)
        found = _lines(frame, dataset or names[0], "no finished runs have two ratios")
        return with_key(ratio_figure(found, self.looks, width), found.row, self.looks)

    def draws(self, dataset: str | None = None, *, selection: str = "training-domain", width: float = 9.2) -> Figure:
        """Draw the validation accuracy of every random draw; raise InputError if rows have one draw only."""
        frame = frames.draw_frame(self._choices(selection))
        found = _lines(frame, self._dataset(dataset), "no row has two finished draws")
        return with_key(draws_figure(found, self.looks, width), found.row, self.looks)

    def _choices(self, selection: str) -> Choices:
        if selection not in METHODS:
            raise unknown("selection", selection, METHODS)
        return Choices(self.collection, METHODS[selection])

    def _dataset(self, dataset: str | None) -> str:
        names = list(self.collection.environments)
        if dataset is None:
            return names[0]
        if dataset not in names:
            raise unknown("dataset", dataset, names)
        return dataset


def _lines(
    frame: "frames.pd.DataFrame", dataset: str, reason: str = "no finished run has a value for this selection"
) -> "frames.pd.DataFrame":
    """Return the lines of a dataset; raise InputError with the reason if there are none."""
    found = frame[frame.dataset == dataset]
    if not len(found):
        raise InputError(f"there is nothing to draw for {dataset}: {reason}")
    return found


def write_figures(collection: Collection, folder: Path, *, selection: str = "training-domain") -> list[Path]:
    """Write every figure as SVG and PDF at the column widths of conferences, and its data as CSV; return the files.

    Args:
        collection: runs to draw.
        folder: to write to.
        selection: method that selects steps and draws.

    """
    import matplotlib

    choices, look, written = Choices(collection, METHODS[selection]), looks(collection.rows), []
    folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        frame = kind.data(choices)
        for dataset in dict.fromkeys(frame.dataset):
            data = of_dataset(kind, frame, choices, dataset)
            stem = "_".join([kind.id, *"".join(c if c.isalnum() else "-" for c in dataset).split()])
            written.append(folder / f"{stem}.csv")
            with atomic_write(written[-1]) as file:
                data.to_csv(file, index=False)
            for width in sorted({width for widths in WIDTHS.values() for width in widths}):
                figure = kind.draw(data, look, width)
                if kind.keyed:
                    with_key(figure, data.row, look)
                for ending in ("svg", "pdf"):
                    written.append(folder / f"{stem}_{width:g}in.{ending}")
                    with atomic_write(written[-1]) as file, matplotlib.rc_context({**STYLE, "svg.hashsalt": stem}):
                        metadata = {"Date" if ending == "svg" else "CreationDate": None}
                        figure.savefig(file, format=ending, metadata=metadata, transparent=True)
    return written

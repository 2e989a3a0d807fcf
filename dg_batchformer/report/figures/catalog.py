"""All figures of a sweep: what each is called, the data that it draws, and what its caption says."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from dg_batchformer.report.choices import Choices
from dg_batchformer.report.figures import frames
from dg_batchformer.report.figures.dots import accuracy_figure, gain_figure, selection_figure
from dg_batchformer.report.figures.lines import curves_figure, valley_figure
from dg_batchformer.report.figures.ratio import ratio_figure, ratio_frame
from dg_batchformer.report.figures.scatter import draws_figure, transfer_figure
from dg_batchformer.spec.names import name_parts

MOST_ROWS = 8  # of figures in which many rows cannot be told apart


class Kind(NamedTuple):
    """A kind of figure.

    Args:
        id: its name in files and links.
        title: its heading.
        about: its caption.
        data: returns its tidy DataFrame, for all datasets.
        draw: draws it for one dataset: (DataFrame, looks, width in inches).
        few: whether only the rows that test best are drawn.
        keyed: whether rows are named by a colour key beside the figure.
        by_selection: whether its data depend on the selection method.

    """

    id: str
    title: str
    about: str
    data: Callable[[Choices], pd.DataFrame]
    draw: Callable[..., Figure]
    few: bool = False
    keyed: bool = False
    by_selection: bool = True


def gains_over_reference(choices: Choices) -> pd.DataFrame:
    """Return the gains of all rows over the reference row, see ``gain_frame``."""
    return frames.gain_frame(choices, frames.reference_pairs(choices))


def gains_by_batchformer(choices: Choices) -> pd.DataFrame:
    """Return the gains of rows with +BF over the same rows without, see ``gain_frame``."""
    return frames.gain_frame(choices, bf_pairs(choices.collection.rows))


def bf_pairs(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of labels (without, with) that differ only in BF; ERM need not be named beside wrappers."""
    by_parts: dict[frozenset[str], str] = {}
    for label in labels:
        by_parts.setdefault(name_parts(label), label)
    return [
        (label, by_parts[without | {"BF"}])
        for without, label in by_parts.items()
        if "BF" not in without and without | {"BF"} in by_parts
    ]


GAIN = Kind(
    "gains",
    "Gain over the reference row",
    "Test accuracy minus that of the reference row, in percentage points, paired by trial. Bars show "
    "the 95 % interval of compare for the average, and one standard error over trials for each environment. Values "
    "left of 0 are worse.",
    gains_over_reference,
    gain_figure,
)
KINDS = (
    GAIN,
    Kind(
        "accuracy",
        "Accuracy per environment",
        "Mean test accuracy over trials, with one standard error. The bar at the average is the 95 % interval of "
        "compare for the difference to the reference row, placed around that row's average. All panels share a scale.",
        frames.accuracy_frame,
        accuracy_figure,
    ),
    Kind(
        "gain",
        "What BatchFormer adds",
        "Test accuracy of a row with +BF minus that of the same row without, in percentage points, paired by trial. "
        "Bars show the 95 % interval of compare for the average, and one standard error over trials for each "
        "environment.",
        gains_by_batchformer,
        gain_figure,
    ),
    Kind(
        "ratio",
        "Accuracy by class frequency",
        "Mean accuracy over test environments, with its 95 % interval over trials, against the ratio of the largest "
        "class or environment to the smallest. Few-shot classes are those with few training images: which ones depends "
        "on the ratio, and a ratio at which an environment has none is left out. The tables state the thresholds.",
        ratio_frame,
        ratio_figure,
        keyed=True,
    ),
    Kind(
        "curves",
        "Accuracy over steps",
        "Mean over trials of the selected draw; the band is one standard error. Validation: held-out splits of the "
        "training environments. A thick bar spans the updates that an averaging method includes, at the accuracy of "
        "the averaged model. A curve that coincides with an earlier one is dashed.",
        frames.curve_frame,
        curves_figure,
        few=True,
    ),
    Kind(
        "valley",
        "SWAD's loss valley",
        "Mean validation loss over the training environments, first trial. SWAD averages the updates in the shaded "
        "window; the dashed line is the threshold above which its valley ends.",
        frames.valley_frame,
        valley_figure,
    ),
    Kind(
        "transfer",
        "In-domain against out-of-domain",
        "Every mark is a row on a test environment: accuracy of the selected models on the held-out splits of their "
        "training environments, and on the test environment; means over trials. On the diagonal both are equal.",
        frames.transfer_frame,
        transfer_figure,
    ),
    Kind(
        "selection",
        "Selection methods",
        "Average test accuracy by the method that selects step and draw, on one scale.",
        lambda choices: frames.selection_frame(choices.collection),
        selection_figure,
        by_selection=False,
    ),
    Kind(
        "draws",
        "Random draws of hyper-parameters",
        "Every mark is a draw of a row in a trial: its validation accuracy, averaged over test environments. Draw 0 "
        "takes the defaults.",
        frames.draw_frame,
        draws_figure,
        few=True,
        keyed=True,
    ),
)


def of_dataset(kind: Kind, frame: pd.DataFrame, choices: Choices, dataset: str) -> pd.DataFrame:
    """Return the lines of one dataset, of the rows that test best if the figure shows few."""
    found = frame[frame.dataset == dataset]
    if kind.few and found.row.nunique() > MOST_ROWS:
        found = found[found.row.isin(choices.best_labels(dataset, MOST_ROWS, among=set(found.row)))]
    return found

"""What a run predicted, sample by sample: ``predictions.npz``, written with ``--predictions``.

``numpy.load`` opens it without pickle. It holds the splits that the run evaluates, and the model that it returns; N
samples, C classes:

* ``env`` (N,) environment; ``split`` (N,) "in" or "out"; ``image`` (N,) path, or index of a dataset that is built in;
* ``label``, ``predicted`` (N,) class indices; ``confidence`` (N,) the probability of the predicted class;
* ``probabilities`` (N, C); ``classes`` (C,) and ``environments``, names.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import read_array
from numpy.typing import NDArray

from dg_batchformer.storage.safe_read import TABLE, TEXT, WEIGHTS, open_regular
from dg_batchformer.storage.zip_files import open_zip


class Predictions(NamedTuple):
    """What metrics read, (N,) each."""

    env: NDArray[np.int64]
    split: NDArray[np.str_]
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]

    def of(self, env: int, split: str) -> "Predictions":
        """Return those of one split."""
        where = (self.env == env) & (self.split == split)
        return Predictions(*(column[where] for column in self))


def read_predictions(file: Path) -> Predictions | None:
    """Read a file of predictions; None where there is none that can be read."""
    try:
        with open_regular(file, WEIGHTS) as stream, open_zip(stream, TEXT) as arrays:
            entries = {name: arrays.getinfo(f"{name}.npy") for name in Predictions._fields}
            if sum(entry.file_size for entry in entries.values()) > TABLE:
                raise ValueError("more than any data set has images for")
            columns = {name: read_array(arrays.open(entry), allow_pickle=False) for name, entry in entries.items()}
        return _checked(columns)
    except Exception:  # whatever damage leads NumPy and zipfile to
        return None


def _checked(columns: dict[str, NDArray[Any]]) -> Predictions:
    """Raise ValueError for columns that are none of predictions."""
    kinds = {"env": "iu", "split": "U", "label": "iu", "predicted": "iu", "confidence": "f"}
    if any(columns[name].ndim != 1 or columns[name].dtype.kind not in kind for name, kind in kinds.items()):
        raise ValueError("a column has another type")
    if len({len(column) for column in columns.values()}) != 1:
        raise ValueError("columns differ in length")
    return Predictions(*columns.values())

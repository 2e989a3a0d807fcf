"""Read ``predictions.npz``, the predictions of a run per sample, written with ``--predictions``.

``numpy.load`` opens it without pickle. It covers all evaluated splits, for the final model; with N samples and C
classes:

* ``env`` (N,) environment index; ``split`` (N,) "in" or "out"; ``image`` (N,) path, or index for built-in datasets;
* ``label``, ``predicted`` (N,) class indices; ``confidence`` (N,) probability of the predicted class;
* ``probabilities`` (N, C); names: ``classes`` (C,) and ``environments``.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import read_array
from numpy.typing import NDArray

from dg_batchformer.storage.safe_read import TABLE, TEXT, WEIGHTS, open_regular
from dg_batchformer.storage.zip_files import open_zip


class Predictions(NamedTuple):
    """The columns that metrics need, (N,) each."""

    env: NDArray[np.int64]
    split: NDArray[np.str_]
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]

    def of(self, env: int, split: str) -> "Predictions":
        """Return the predictions on one split."""
        where = (self.env == env) & (self.split == split)
        return Predictions._make(column[where] for column in self)


def read_predictions(file: Path) -> Predictions | None:
    """Read a prediction file; return None if it is missing or unreadable."""
    try:
        with open_regular(file, WEIGHTS) as stream, open_zip(stream, TEXT) as arrays:
            entries = {name: arrays.getinfo(f"{name}.npy") for name in Predictions._fields}
            if sum(entry.file_size for entry in entries.values()) > TABLE:
                raise ValueError("too large for any dataset")
            columns = {name: read_array(arrays.open(entry), allow_pickle=False) for name, entry in entries.items()}
        return _checked(columns)
    except Exception:  # whatever damage leads NumPy and zipfile to
        return None


def _checked(columns: dict[str, NDArray[Any]]) -> Predictions:
    """Raise ValueError for columns of the wrong type or length."""
    kinds = {"env": "iu", "split": "U", "label": "iu", "predicted": "iu", "confidence": "f"}
    if any(columns[name].ndim != 1 or columns[name].dtype.kind not in kind for name, kind in kinds.items()):
        raise ValueError("a column has another type")
    if len({len(column) for column in columns.values()}) != 1:
        raise ValueError("columns differ in length")
    return Predictions(**columns)

"""Domain generalization from a sweep file to a table, with BatchFormer and SWAD around any algorithm.

``import dg_batchformer as dg`` provides ``dg.train``, ``dg.sweep``, ``dg.load_results``, ``dg.load_model``,
``dg.list`` and ``dg.register``; see ``dg_batchformer.api``. They are imported at first use, and PyTorch only to train
or to load a model.
"""

import importlib
from typing import TYPE_CHECKING, Any

import dg_batchformer.sweep  # noqa: F401  # see below

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dg_batchformer.api import Results as Results
    from dg_batchformer.api import TrainedRun as TrainedRun
    from dg_batchformer.api import list_names as list  # noqa: A004, F401
    from dg_batchformer.api import load_model as load_model
    from dg_batchformer.api import load_results as load_results
    from dg_batchformer.api import register as register
    from dg_batchformer.api import sweep as sweep
    from dg_batchformer.api import train as train

# The subpackage ``sweep`` is imported above, so that a later first import does not replace the function ``sweep``.
del sweep

_API = {
    "Results": "Results",
    "TrainedRun": "TrainedRun",
    "list": "list_names",
    "load_model": "load_model",
    "load_results": "load_results",
    "register": "register",
    "sweep": "sweep",
    "train": "train",
}


def __getattr__(name: str) -> Any:
    """Import a name of the public API at first use."""
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module("dg_batchformer.api"), _API[name])
    globals()[name] = value
    return value


def __dir__() -> Any:
    return sorted({*globals(), *_API})

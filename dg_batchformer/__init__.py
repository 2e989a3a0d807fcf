"""Domain generalization from a sweep file to a table, with BatchFormer and SWAD around any algorithm.

``import dg_batchformer as dg`` offers ``dg.train``, ``dg.sweep``, ``dg.load_results``, ``dg.load_model``, ``dg.list``
and ``dg.register``, see ``dg_batchformer.api``. They are loaded when they are first used, and PyTorch when something
trains or a model is loaded.
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

# The package of this name was imported above so that its first import elsewhere does not take the function's place.
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
    """Load a name of the public API when it is first used."""
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module("dg_batchformer.api"), _API[name])
    globals()[name] = value
    return value


def __dir__() -> Any:
    return sorted({*globals(), *_API})

"""Train one run in this process, with its output on the console: for ``train`` and ``dg.train``."""

from typing import Any

import torch

from dg_batchformer.callbacks.load import find_callbacks
from dg_batchformer.errors import InputError
from dg_batchformer.spec.options import RunOptions, check_threads
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.folders import RunFolder
from dg_batchformer.training.console import Console
from dg_batchformer.training.device import parse_device, prepare_device
from dg_batchformer.training.preflight import check_runs
from dg_batchformer.training.run import train_run


def prepare(spec: RunSpec, options: RunOptions, device: str, threads: int | None) -> torch.device:
    """Set up this process for a run, and return the device; raise InputError if the run cannot be trained."""
    check_threads(threads)
    found = parse_device(device)
    prepare_device(found)
    check_runs([spec], options.data_dir)
    find_callbacks(options.log, spec.plugins)
    if threads is not None:
        torch.set_num_threads(threads)
    return found


def train_on_console(spec: RunSpec, folder: RunFolder, options: RunOptions, **given: Any) -> None:
    """Train a run as ``train_run`` does, whose watcher is the console.

    A new folder is removed again if the run is refused before it begins.
    """
    console, is_new = Console(), not folder.path.exists()
    try:
        train_run(spec, folder, options, watcher=console, **given)
    except InputError:
        if is_new:
            folder.leave_if_never_begun()
        raise
    finally:
        console.close()

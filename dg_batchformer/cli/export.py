"""``export``: send the records of trained runs to other programs."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dg_batchformer.callbacks.base import RunInfo
from dg_batchformer.callbacks.load import BUILT_IN, find_callbacks
from dg_batchformer.cli.common import OK, Verbs
from dg_batchformer.cli.sweeps_read import add_reading, collect_asked, print_notes
from dg_batchformer.errors import InputError
from dg_batchformer.results.collection import CollectedRun, Collection
from dg_batchformer.results.frames import records_frame
from dg_batchformer.storage.folders import atomic_write
from dg_batchformer.text.counts import how_many

_SEEDS = ("trial_seed", "hparams_seed")  # numbers that are not measurements
_FILES = {"csv": "records.csv", "parquet": "export.parquet"}


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    verb = verbs.add_parser(
        "export",
        help="send the records of runs to TensorBoard, W&B, MLflow, CSV or Parquet",
        description="Send the records of trained runs to TensorBoard, W&B or MLflow, as --log does during training, "
        "or write them to one file with a line for every evaluation.",
    )
    verb.set_defaults(run=run, works=True)
    add = verb.add_argument
    add(
        "folder",
        type=Path,
        metavar="DIR",
        help="folder of a sweep such as results/quickstart, of a run, or of a DomainBed sweep",
    )
    add("--to", choices=(*BUILT_IN, *_FILES), required=True, help="destination of the records")
    add_reading(verb)
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="file for csv or parquet (default: records.csv or export.parquet in DIR)",
    )


def run(options: argparse.Namespace) -> int:
    """Export the records of runs."""
    options.folders = [options.folder]
    collection = collect_asked(options)
    if options.to in BUILT_IN:
        if options.output is not None:
            raise InputError(f"--output names a file, and {options.to} writes none; drop --output")
        _replay(options.to, collection)
    else:
        _write(options.to, options.output or options.folder / _FILES[options.to], collection)
    print_notes(collection.skipped)
    return OK


def _write(kind: str, path: Path, collection: Collection) -> None:
    records = records_frame(collection)
    try:
        with atomic_write(path) as file:
            if kind == "csv":
                records.to_csv(file, index=False)
            else:
                records.to_parquet(file, index=False)
    except ImportError:
        raise InputError(
            "parquet needs pyarrow, which is not installed; pip install 'dg_batchformer[parquet]'"
        ) from None
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; name another file with --output FILE") from None
    print(f"wrote {how_many(len(records), 'record')} to {path}")


def _replay(name: str, collection: Collection) -> None:
    """Replay every run to a callback, with the calls that it would have received during training."""
    [callback_class] = find_callbacks([name])
    frame = records_frame(collection)
    by_run = dict(tuple(frame.groupby(["row", "run"], sort=False)))  # two rows may share a run
    runs = [run for run in collection.runs if (run.label, run.path.name) in by_run]
    for collected in runs:
        callback = callback_class()
        callback.begin(_info(collection, collected))
        for line in by_run[collected.label, collected.path.name].drop(columns="run").to_dict("records"):
            known = {str(key): value for key, value in line.items() if value == value}
            callback.record({key: value for key, value in known.items() if key not in _SEEDS})
        callback.end(collected.state)
    print(f"exported {how_many(len(runs), 'run')} to {name}")


def _info(collection: Collection, run: CollectedRun) -> RunInfo:
    """Return the description of a trained run that its callback receives."""
    names = collection.environments[run.benchmark]
    hparams = run.constant.get("hparams")
    args = run.constant.get("args")
    asked: Mapping[str, Any] = args if isinstance(args, Mapping) else {}
    steps = run.evaluations.steps
    return RunInfo(
        id=run.path.name,
        row=run.label,
        dataset=run.dataset,
        test_envs="+".join(names[env] for env in run.test_envs),
        trial_seed=run.trial_seed,
        hparams_seed=run.hparams_seed,
        steps=int(steps.max()) + 1,
        start=0,
        config={
            **{name: value for name, value in asked.items() if name != "hparams"},
            **{f"hparams.{name}": value for name, value in (hparams if isinstance(hparams, Mapping) else {}).items()},
        },
        folder=run.path,
    )

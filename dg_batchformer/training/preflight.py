"""Checks before a run or sweep starts: names, hparams, data, weights, devices."""

from collections.abc import Sequence
from pathlib import Path

from dg_batchformer.algorithms import get_algorithm_class
from dg_batchformer.datasets import open_dataset
from dg_batchformer.errors import InputError
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.networks.backbones import backbone_for
from dg_batchformer.networks.weights import fetch_weights
from dg_batchformer.plugins.load import load_plugins_of
from dg_batchformer.runtime.parallel import usable_cores
from dg_batchformer.spec.names import split_name
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.training.data_path import check_features
from dg_batchformer.training.device import cuda_names, device_name
from dg_batchformer.training.initialization import check_init
from dg_batchformer.training.lines import about_frozen
from dg_batchformer.training.sampling import split_environments

_MOST_CPU_WORKERS = 4


def check_runs(specs: Sequence[RunSpec], data_dir: Path | None) -> list[str]:
    """Check runs, download their pretrained weights, and return notes on their data and methods.

    Raises InputError for the first run that cannot start.
    """
    notes: dict[str, None] = {}
    frozen: dict[str, None] = {}  # algorithms that have nothing to train
    for spec in specs:
        load_plugins_of(spec)
        get_algorithm_class(spec.algorithm).check_domains(len(spec.train_envs))
    opened: set[tuple[str, int | None]] = set()
    for spec in {(spec.dataset, spec.algorithm, str(spec.hparams)): spec for spec in specs}.values():
        hparams = resolve_hparams(spec)
        size = hparams.get("image_size")
        if (spec.dataset, size) not in opened:
            dataset = open_dataset(spec, data_dir, hparams)
            split_environments(spec, dataset)
            notes.update(dict.fromkeys(dataset.notes))
            opened.add((spec.dataset, size))
        if get_algorithm_class(spec.algorithm).has_nothing_to_shape(hparams):
            frozen[split_name(spec.algorithm)[0]] = None
        check_init(hparams)
        check_features(spec, hparams)
        shape = spec.facts.shape if size is None else (3, size, size)
        fetch_weights(backbone_for(hparams["backbone"], shape), hparams["weights"])
    return [*notes, *([about_frozen(list(frozen))] if frozen else [])]


def parse_devices(text: str) -> list[str]:
    """Return one device per worker: as given; for ``auto``, every GPU, or else one CPU worker per core, at most 4."""
    if text == "auto":
        return cuda_names() or ["cpu"] * min(_MOST_CPU_WORKERS, usable_cores())
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InputError(f"--devices {text!r} has an empty entry; write it as cpu,cpu or cuda:0,cuda:1")
    return [device_name(name) for name in names]

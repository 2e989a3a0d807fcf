"""Datasets: environments of labelled images, by name."""

from pathlib import Path
from typing import Any

from dg_batchformer.catalog.custom import namesakes
from dg_batchformer.catalog.datasets import dataset_facts, is_dataset
from dg_batchformer.datasets.base import Dataset, Environment
from dg_batchformer.datasets.custom import OwnImages
from dg_batchformer.errors import InputError
from dg_batchformer.registry import DATASETS
from dg_batchformer.spec.run import RunSpec

__all__ = ["DATASETS", "Dataset", "Environment", "get_dataset_class", "num_environments", "open_dataset"]


def open_dataset(spec: RunSpec, data_dir: Path | None, hparams: dict[str, Any]) -> Dataset:
    """Open the dataset of a run; raise InputError if the data is missing, or has other environments than the run."""
    dataset_class = get_dataset_class(spec.dataset) if is_dataset(spec.dataset) else OwnImages
    dataset = dataset_class.of_run(spec, data_dir, hparams)
    dataset.notes = [*namesakes(spec.dataset, data_dir), *dataset.notes]
    return dataset


def get_dataset_class(name: str) -> type[Dataset]:
    """Return the dataset class of that name; raise InputError for an unknown one."""
    if is_dataset(name) and name not in DATASETS:
        raise InputError(f"{name} has hparams but no loader; datasets with a loader: {', '.join(DATASETS)}")
    return DATASETS[name]


def num_environments(name: str) -> int:
    """Return the number of environments of a dataset, without reading the disk."""
    return len(dataset_facts(name).names)

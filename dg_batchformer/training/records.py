"""Write records: the results of an evaluation, under DomainBed's keys and ours."""

import json
import os
import platform
from typing import Any

import numpy as np
import PIL
import torch
import torchvision

from dg_batchformer import __version__
from dg_batchformer.datasets import Dataset
from dg_batchformer.datasets.counts import dataset_version
from dg_batchformer.results.class_accuracy import recorded
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.folders import RunFolder
from dg_batchformer.storage.records import FORMAT, to_line
from dg_batchformer.storage.safe_write import open_own
from dg_batchformer.training.device import arithmetic, gpu_versions
from dg_batchformer.training.evaluate import Evaluation
from dg_batchformer.training.thinning import Splits, count_classes


class RecordWriter:
    """Appends the records of a run.

    Args:
        hparams: resolved hparams.
        splits: of all training and test environments.

    """

    def __init__(
        self,
        folder: RunFolder,
        spec: RunSpec,
        hparams: dict[str, Any],
        dataset: Dataset,
        splits: Splits,
        device: torch.device,
    ) -> None:
        self.file = folder.records_file
        self.spec = spec
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)  # so that mem_gb excludes earlier runs of the process
        # DomainBed's definition: by the smallest environment, including test environments.
        self.steps_per_epoch = min(len(splits[env, "in"]) for env in spec.used_envs) / hparams["batch_size"]
        self.shots: dict[str, list[int]] = {}
        self.constant: dict[str, Any] = {
            "args": _domainbed_args(spec),
            "hparams": hparams,
            "environments": [environment.name for environment in dataset.environments],
            "protocol": spec.protocol,
            "dataset_fingerprint": dataset.fingerprint(),
            "dataset_version": dataset_version(dataset),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "versions": {**versions(), **gpu_versions(device)},
            "format": FORMAT,
        }
        if spec.imbalance is not None:
            counts = count_classes(dataset, splits, spec.train_envs)
            thresholds = spec.imbalance.thresholds(spec.dataset, spec.test_envs)
            self.shots = thresholds.shots(counts)
            self.constant["class_counts"] = {
                dataset[env].name: dict(zip(dataset.classes, images, strict=True)) for env, images in counts.items()
            }
            self.constant["shots"] = {
                "thresholds": thresholds._asdict(),
                **{name: [dataset.classes[label] for label in labels] for name, labels in self.shots.items()},
            }

    def append(self, step: int, metrics: dict[str, Any], evaluation: Evaluation) -> dict[str, Any]:
        """Append and sync the record of an evaluation; return its values."""
        accuracy = {f"env{env}_{split}_acc": value for (env, split), value in evaluation.accuracy.items()}
        loss = {f"env{env}_out_loss": evaluation.loss[env, "out"] for env in self.spec.train_envs}
        by_class = [
            recorded(env, split, accuracies, self.shots) for (env, split), accuracies in evaluation.by_class.items()
        ]
        memory = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0
        values = {
            **metrics,
            **accuracy,
            **loss,
            **{key: value for of_split in by_class for key, value in of_split.items()},
            **self.constant,
            "step": step,
            "epoch": step / self.steps_per_epoch,
            "mem_gb": memory / 2**30,
            "threads": torch.get_num_threads(),
            **arithmetic(self.device),
        }
        with open_own(self.file, "a") as file:
            file.write(to_line(values))
            file.flush()
            os.fsync(file.fileno())  # a checkpoint relies on it
        return values

    def size(self) -> int:
        """Return the size of the records file in bytes."""
        return self.file.stat().st_size if self.file.exists() else 0

    def cut(self, size: int) -> None:
        """Truncate the records file to a size in bytes."""
        with open_own(self.file, "a") as file:
            file.truncate(size)


def versions() -> dict[str, str]:
    """Return the versions of packages that results can depend on."""
    return {
        "dg_batchformer": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def _domainbed_args(spec: RunSpec) -> dict[str, Any]:
    """Return the arguments under DomainBed's keys, which its collector groups by."""
    asked = spec.as_dict()
    hparams = json.dumps(asked["hparams"], sort_keys=True) if asked["hparams"] else None
    return {**asked, "hparams": hparams, "task": "domain_generalization", "uda_holdout_fraction": 0}

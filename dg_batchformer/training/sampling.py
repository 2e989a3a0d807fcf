"""Sample minibatches and split environments, as pure functions of seed and step."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from dg_batchformer.algorithms.base import Minibatches
from dg_batchformer.datasets import Dataset, Environment
from dg_batchformer.errors import InputError
from dg_batchformer.seeds import seed_hash
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.training.loaders import Loader, Request, Task, on_device
from dg_batchformer.training.splits import split_indices
from dg_batchformer.training.thinning import Splits, thin

_BATCH_NORM_BATCHES = 500  # as in SWAD's release


class Sampler:
    """Draws minibatches with replacement, with a separate generator per step and environment.

    A run can therefore resume at any step without replaying earlier ones.
    """

    def __init__(self, spec: RunSpec, hparams: dict[str, Any], dataset: Dataset, splits: Splits) -> None:
        self.spec, self.dataset = spec, dataset
        self.batch_size: int = hparams["batch_size"]
        self.augments: bool = hparams.get("data_augmentation", False)
        self.views: int = hparams["feature_views"] if spec.data_path == "features" and self.augments else 0
        self.indices = {env: splits[env, "in"] for env in spec.train_envs}
        self.weights = {
            env: _class_balanced([dataset[env].labels[index] for index in indices])
            for env, indices in self.indices.items()
            if hparams["class_balanced"]
        }

    def minibatches(self, loader: Loader, first: int, device: torch.device) -> Iterator[Minibatches]:
        """Yield the minibatches of every step from ``first`` on: x (batch_size, *input_shape), y (batch_size,)."""
        for batches in loader.stream(self.task(step) for step in iter(range(first, 2**31))):
            yield [(images, labels) for images, labels in on_device(batches, device)]

    def notes(self) -> list[str]:
        """Return notes on environments with fewer images than a batch, and on classes without training images."""
        few = [
            f"{self.spec.dataset}/{self.spec.facts.names[env]} has {len(indices)} training images, fewer than a batch "
            f"of {self.batch_size}: images repeat within batches"
            for env, indices in self.indices.items()
            if len(indices) < self.batch_size
        ]
        return [*few, *_unseen_classes(self.spec, self.dataset)]

    def task(self, step: int) -> Task:
        return [self._request(step, env, indices) for env, indices in self.indices.items()]

    def _request(self, step: int, env: int, indices: list[int]) -> Request:
        generator = torch.Generator().manual_seed(seed_hash(self.spec.seed, "order", step, env))
        if env in self.weights:
            drawn = torch.multinomial(self.weights[env], self.batch_size, replacement=True, generator=generator)
        else:
            drawn = torch.randint(len(indices), (self.batch_size,), generator=generator)
        return Request(env, [indices[index] for index in drawn.tolist()], self._seeds(step, env, generator))

    def _seeds(self, step: int, env: int, generator: torch.Generator) -> list[int] | None:
        """Return an augmentation seed per sample, or for cached features, a view index."""
        if self.views:
            return torch.randint(self.views, (self.batch_size,), generator=generator).tolist()
        if not self.augments:
            return None
        return [seed_hash(self.spec.seed, "augmentation", step, env, place) for place in range(self.batch_size)]


def training_inputs(sampler: Sampler, loader: Loader, spec: RunSpec, device: torch.device) -> Iterator[Tensor]:
    """Yield inputs x of training batches after the last step, to re-estimate BatchNorm statistics."""
    batches = sampler.minibatches(loader, spec.steps, device)
    for _ in range(min(_BATCH_NORM_BATCHES, spec.steps)):
        yield torch.cat([x for x, _ in next(batches)])


def split_environments(spec: RunSpec, dataset: Dataset) -> Splits:
    """Split all training and test environments, as the dataset defines or at random; apply the run's imbalance.

    Raises InputError if an environment is too small for two non-empty parts.
    """
    splits: Splits = {}
    for env in spec.used_envs:
        environment = dataset[env]
        out, kept = _split(environment, spec, env)
        if not out or not kept:
            raise InputError(
                f"{spec.dataset}/{environment.name} has {len(environment)} images, which holdout_fraction "
                f"{spec.holdout_fraction} splits into {len(out)} held out and {len(kept)} to train on: both parts need "
                "at least one"
            )
        splits[env, "in"], splits[env, "out"] = kept, out
    return splits if spec.imbalance is None else thin(spec, spec.imbalance, dataset, splits)


def _split(environment: Environment, spec: RunSpec, env: int) -> tuple[list[int], list[int]]:
    """Return the held-out indices, and those to train on or, in a test environment, to report."""
    if environment.parts is None:
        return split_indices(len(environment), spec.holdout_fraction, spec.trial_seed, env)
    kept = "test" if env in spec.test_envs and "test" in environment.parts else "train"
    out, into = ([index for index, part in enumerate(environment.parts) if part == asked] for asked in ("val", kept))
    return out, into


def evaluated_splits(spec: RunSpec, splits: Splits) -> Splits:
    """Return the splits that model selection needs, or all with ``evaluate: all``; ``in`` splits first."""
    envs = spec.used_envs
    reported = [(env, "in") for env in envs if env in spec.test_envs or spec.evaluate == "all"]
    return {split: splits[split] for split in (*reported, *((env, "out") for env in envs))}


def _unseen_classes(spec: RunSpec, dataset: Dataset) -> list[str]:
    """Return a note on test classes without images in any training environment."""
    trained = {label for env in spec.train_envs for label in dataset[env].labels}
    unseen = sorted({label for env in spec.test_envs for label in dataset[env].labels} - trained)
    names = ", ".join(dataset.classes[label] for label in unseen)
    return [f"no training environment has images of {names}: test images of it count as errors"] if unseen else []


def _class_balanced(labels: Sequence[int]) -> Tensor:
    """Return sampling weights under which all classes are equally likely."""
    counts = torch.bincount(torch.tensor(labels)).double()
    return (1 / counts)[torch.tensor(labels)]

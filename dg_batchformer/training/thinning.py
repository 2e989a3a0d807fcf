"""Subsample the training images of a run by its imbalance, with the trial seed."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from dg_batchformer.catalog.ndcl_settings import NdclSetting, ndcl_setting
from dg_batchformer.datasets import Dataset
from dg_batchformer.errors import InputError
from dg_batchformer.seeds import seed_hash
from dg_batchformer.spec.imbalance import Imbalance
from dg_batchformer.spec.run import RunSpec

Split = tuple[int, str]
Splits: TypeAlias = dict[Split, list[int]]


def thin(spec: RunSpec, imbalance: Imbalance, dataset: Dataset, splits: Splits) -> Splits:
    """Return the splits of a run with a subsampled ``in`` split of every training environment.

    Validation splits are subsampled only if the imbalance is ``balanced``; test environments do not change. Settings
    of NDCL draw training and validation images from all images of an environment.

    Raises InputError if an environment has fewer images than a setting of NDCL needs.
    """
    if imbalance.is_published:
        return {**splits, **_published(spec, ndcl_setting(imbalance.setting, spec.dataset, spec.test_envs[0]), dataset)}
    thinned = dict(splits)
    for env, kept in imbalance.kept(count_classes(dataset, splits, spec.train_envs), spec.trial_seed).items():
        thinned[env, "in"] = _draw(dataset[env].labels, splits[env, "in"], kept, spec.trial_seed, env)
        if imbalance.balanced:
            out = splits[env, "out"]
            [counts] = count_classes(dataset, {(env, "in"): out}, [env]).values()
            rarest = min(number for number in counts if number)
            thinned[env, "out"] = _draw(dataset[env].labels, out, [rarest] * len(counts), spec.trial_seed, env)
    return thinned


def count_classes(dataset: Dataset, splits: Splits, envs: Sequence[int]) -> dict[int, list[int]]:
    """Count the images of every class in the ``in`` split of environments."""
    return {
        env: np.bincount(
            np.array([dataset[env].labels[index] for index in splits[env, "in"]], int), minlength=dataset.num_classes
        ).tolist()
        for env in envs
    }


def _draw(labels: Sequence[int], indices: Sequence[int], kept: Sequence[int], trial_seed: int, env: int) -> list[int]:
    """Return a subset of indices in their order; a smaller number of a class is a subset of a larger one."""
    drawn: set[int] = set()
    for label, of_class in _shuffled(labels, indices, trial_seed, env).items():
        drawn.update(of_class[: kept[label]])
    return [index for index in indices if index in drawn]


def _shuffled(labels: Sequence[int], indices: Sequence[int], trial_seed: int, env: int) -> Mapping[int, Sequence[int]]:
    """Return the shuffled indices of every class."""
    by_class: dict[int, list[int]] = {}
    for index in indices:
        by_class.setdefault(labels[index], []).append(index)
    for label, of_class in by_class.items():
        np.random.RandomState(seed_hash(trial_seed, env, "imbalance", label)).shuffle(of_class)
    return by_class


def _published(spec: RunSpec, setting: NdclSetting, dataset: Dataset) -> Splits:
    splits: Splits = {}
    for env, images in setting.images.items():
        labels, name = dataset[env].labels, dataset[env].name
        there = {
            dataset.classes[label]: of_class
            for label, of_class in _shuffled(labels, range(len(labels)), spec.trial_seed, env).items()
        }
        for kind, number in images.items():
            if len(there.get(kind, [])) < number + setting.validation:
                raise InputError(
                    f"{spec.dataset}/{name} has {len(there.get(kind, []))} images of {kind}, and imbalance "
                    f"{spec.imbalance} trains on {number} and validates on {setting.validation} of them; prepare the "
                    f"published version (dg-batchformer data verify {spec.dataset}), or take long_tail"
                )
        splits[env, "in"] = [index for kind, number in images.items() for index in there[kind][:number]]
        ends = {kind: number + setting.validation for kind, number in images.items()}
        splits[env, "out"] = [index for kind, end in ends.items() for index in there[kind][images[kind] : end]]
    return splits

"""Features of held-out images, and domain-balanced batches of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from dg_batchformer.datasets import Dataset
from dg_batchformer.explain.load import Kept
from dg_batchformer.models.load import open_trained
from dg_batchformer.runtime.bars import shows_bars
from dg_batchformer.seeds import seed_hash
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.training.augment import normalise
from dg_batchformer.training.data_path import open_images
from dg_batchformer.training.evaluate import BATCH_SIZE
from dg_batchformer.training.loaders import Request
from dg_batchformer.training.run_log import Watcher
from dg_batchformer.training.sampling import split_environments
from dg_batchformer.training.thinning import Splits, count_classes

MOST_IMAGES = 512  # per environment: more would take minutes on a CPU and hardly change a mean


class HeldOut(NamedTuple):
    """Held-out images.

    Args:
        z: features, (N, width).
        classes, domains: (N,); domains are indices into ``Kept.domains``.
        indices: (N,) places in the dataset.
        shots: of a run with an imbalance, the classes with ``many``, ``medium`` and ``few`` training images; else {}.

    """

    z: Tensor
    classes: Tensor
    domains: Tensor
    indices: Tensor
    shots: Mapping[str, Sequence[int]]


def held_out_features(kept: Kept, data_dir: Path | None, device: torch.device, watcher: Watcher) -> HeldOut:
    """Compute features of the ``out`` split of every environment of the run, at most ``MOST_IMAGES`` random images.

    Raises InputError if the data is missing, or is not the data that the run was trained on.
    """
    hparams = {**kept.hparams, "data_augmentation": False}
    dataset = open_trained(kept.spec, kept.classes, data_dir, hparams)
    splits = split_environments(kept.spec, dataset)
    requests = _requests(kept, splits)
    features, classes = [], []
    with open_images(kept.spec, hparams, dataset, device, watcher) as loader:
        loaded = loader.stream([request] for request in requests)
        for [batch] in progress(loaded, len(requests), "features"):
            features.append(kept.features(normalise(batch.images.to(device))))
            classes.append(batch.labels.cpu())
    places = kept.places([request.env for request in requests])
    domains = [torch.full((len(request.indices),), place) for place, request in zip(places, requests, strict=True)]
    indices = [torch.tensor(request.indices) for request in requests]
    shots = _shots(kept.spec, dataset, splits)
    return HeldOut(torch.cat(features), torch.cat(classes), torch.cat(domains), torch.cat(indices), shots)


def _shots(spec: RunSpec, dataset: Dataset, splits: Splits) -> dict[str, list[int]]:
    if spec.imbalance is None:
        return {}
    thresholds = spec.imbalance.thresholds(spec.dataset, spec.test_envs)
    return thresholds.shots(count_classes(dataset, splits, spec.train_envs))


def _requests(kept: Kept, splits: Splits) -> list[Request]:
    """Return loading requests for held-out images, in batches from one environment each."""
    requests = []
    for env in kept.spec.used_envs:
        indices = torch.tensor(splits[env, "out"])
        order = torch.randperm(len(indices), generator=_generator("images", env))
        chosen = indices[order[:MOST_IMAGES]].tolist()
        requests += [Request(env, chosen[start : start + BATCH_SIZE]) for start in range(0, len(chosen), BATCH_SIZE)]
    return requests


def draw_batches(domains: Tensor, most: int, count: int) -> Iterator[Tensor]:
    """Yield batches as row indices (domains, n), with the same number of images from every domain.

    Sampling is without replacement; a repeated image would attend to itself.

    Args:
        domains: (N,) domain of every row.
        most: upper bound on n; the smallest domain may have fewer rows.
        count: number of batches. The batches are the same in every call.

    """
    rows = [torch.nonzero(domains == domain).flatten() for domain in domains.unique()]
    n = min(most, *map(len, rows))
    for batch in range(count):
        generator = _generator("batch", batch)
        yield torch.stack([own[torch.randperm(len(own), generator=generator)[:n]] for own in rows])


def progress(items: Iterable, total: int, what: str) -> Iterable:
    """Show a progress bar, on a terminal or in a notebook."""
    return tqdm(items, total=total, desc=what, unit="batch", disable=not shows_bars(), leave=False)


def _generator(*what: object) -> torch.Generator:
    return torch.Generator().manual_seed(seed_hash("explain", *what))

"""Held-out images of a run as features, and batches of them drawn as in training."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from dg_batchformer.datasets import Dataset
from dg_batchformer.explain.load import Kept
from dg_batchformer.models.load import open_trained
from dg_batchformer.seeds import seed_hash
from dg_batchformer.training.augment import normalise
from dg_batchformer.training.data_path import open_images
from dg_batchformer.training.evaluate import BATCH_SIZE
from dg_batchformer.training.loaders import Request
from dg_batchformer.training.run_log import Watcher
from dg_batchformer.training.sampling import split_environments

MOST_IMAGES = 512  # of an environment: more would cost minutes on a CPU and move no mean


class HeldOut(NamedTuple):
    """Held-out images, one a row: features (N, width); classes, domains (of ``Kept.domains``) and indices (N,)."""

    z: Tensor
    classes: Tensor
    domains: Tensor
    indices: Tensor


def held_out_features(kept: Kept, data_dir: Path | None, device: torch.device, watcher: Watcher) -> HeldOut:
    """Run the featurizer over the ``out`` split of every environment of the run, of large ones over a random part.

    Raises InputError where the data is not there, or is not what the run was trained on.
    """
    hparams = {**kept.hparams, "data_augmentation": False}
    dataset = open_trained(kept.spec, kept.classes, data_dir, hparams)
    requests = _requests(kept, dataset)
    features, classes = [], []
    with open_images(kept.spec, hparams, dataset, device, watcher) as loader:
        loaded = loader.stream([request] for request in requests)
        for [batch] in progress(loaded, len(requests), "features"):
            features.append(kept.features(normalise(batch.images.to(device))))
            classes.append(batch.labels.cpu())
    places = kept.places([request.env for request in requests])
    domains = [torch.full((len(request.indices),), place) for place, request in zip(places, requests, strict=True)]
    indices = [torch.tensor(request.indices) for request in requests]
    return HeldOut(torch.cat(features), torch.cat(classes), torch.cat(domains), torch.cat(indices))


def _requests(kept: Kept, dataset: Dataset) -> list[Request]:
    """Ask for held-out images as evaluation does, in batches of one environment."""
    splits = split_environments(kept.spec, dataset)
    requests = []
    for env in kept.spec.used_envs:
        indices = torch.tensor(splits[env, "out"])
        order = torch.randperm(len(indices), generator=_generator("images", env))
        chosen = indices[order[:MOST_IMAGES]].tolist()
        requests += [Request(env, chosen[start : start + BATCH_SIZE]) for start in range(0, len(chosen), BATCH_SIZE)]
    return requests


def draw_batches(domains: Tensor, most: int, count: int) -> Iterator[Tensor]:
    """Yield batches as rows of the held-out images, (domains, n): equally many of every domain.

    No image is in a batch twice, or it would attend to itself under another name.

    Args:
        domains: (N,) domain of every row.
        most: n, unless the smallest domain has fewer rows.
        count: how many batches, always the same ones.

    """
    rows = [torch.nonzero(domains == domain).flatten() for domain in domains.unique()]
    n = min(most, *map(len, rows))
    for batch in range(count):
        generator = _generator("batch", batch)
        yield torch.stack([own[torch.randperm(len(own), generator=generator)[:n]] for own in rows])


def progress(items: Iterable, total: int, what: str) -> Iterable:
    """Show how far a long loop is, with ETA, where there is a terminal."""
    return tqdm(items, total=total, desc=what, unit="batch", disable=not sys.stderr.isatty(), leave=False)


def _generator(*what: object) -> torch.Generator:
    return torch.Generator().manual_seed(seed_hash("explain", *what))

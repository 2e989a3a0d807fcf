"""Open the data path of a run: exact (decode each image), cached (pixel cache), or features of a frozen prefix."""

from collections.abc import Callable
from functools import partial

import torch

from dg_batchformer.algorithms import Algorithm, get_algorithm_class
from dg_batchformer.datasets import Dataset
from dg_batchformer.datasets.folders import ImageFolders
from dg_batchformer.errors import InputError
from dg_batchformer.hparams import NOTHING, WHOLE, Hparams
from dg_batchformer.networks import Featurizer
from dg_batchformer.networks.backbones import backbone_for
from dg_batchformer.networks.base import FeaturizerModule
from dg_batchformer.networks.clip_models import is_clip
from dg_batchformer.networks.timm_models import is_timm
from dg_batchformer.networks.tuning import ALL
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.training.cached import CachedLoader
from dg_batchformer.training.compute_mode import compiles_prefix, settle_precision
from dg_batchformer.training.feature_cache import FeatureLoader, num_rows, prepare_features
from dg_batchformer.training.feature_recipe import recipe_of
from dg_batchformer.training.loaders import ExactLoader
from dg_batchformer.training.run_log import FEATURE_CACHE, PIXEL_CACHE, Watcher, caching, tell
from dg_batchformer.training.stop import never

_MAX_DATA_WORKERS = 8


def open_loader(
    spec: RunSpec,
    hparams: Hparams,
    dataset: Dataset,
    device: torch.device,
    watcher: Watcher,
    stop: Callable[[], bool] = never,
) -> ExactLoader | CachedLoader | FeatureLoader:
    """Open the data path of a run; build its cache first if necessary.

    Raises Interrupted if ``stop`` returns true in the meantime.
    """
    if spec.data_path != "features":
        return open_images(spec, hparams, dataset, device, watcher, stop)
    of_prefix = {**hparams, "tune": ALL}  # how the rest is tuned leaves cached features alone
    featurizer = Featurizer(dataset.input_shape, of_prefix, attends=False).to(device)
    _refuse_part_of(hparams["backbone"], featurizer.frozen, splits=featurizer.splits_at_stages)
    precision = settle_precision(spec, dataset, device)
    featurizer.autocast = torch.bfloat16 if precision == "bf16" else None
    views = hparams["feature_views"] if hparams.get("data_augmentation", False) else 0
    backbone = backbone_for(hparams["backbone"], dataset.input_shape)
    features = prepare_features(
        recipe_of(dataset, featurizer, backbone, views, precision),
        dataset,
        featurizer,
        device,
        partial(open_images, spec, hparams, dataset, device, watcher, stop),
        partial(tell, watcher),
        caching(watcher, FEATURE_CACHE, stop),
        compiles=compiles_prefix(spec, device, num_rows(dataset, views)),
    )
    return FeatureLoader(dataset, features, views)


def open_images(
    spec: RunSpec,
    hparams: Hparams,
    dataset: Dataset,
    device: torch.device,
    watcher: Watcher,
    stop: Callable[[], bool] = never,
) -> ExactLoader | CachedLoader:
    """Open the images of a run, even if it trains on cached features; see ``open_loader``."""
    note = partial(tell, watcher)
    if spec.data_path != "exact" and isinstance(dataset, ImageFolders):
        augments = hparams.get("data_augmentation", False)
        progress = caching(watcher, PIXEL_CACHE, stop)
        return CachedLoader(dataset, device, augments=augments, note=note, progress=progress)
    workers = min(_MAX_DATA_WORKERS, torch.get_num_threads())
    return ExactLoader(dataset.environments, dataset.input_shape[-1], workers, note)


def check_features(spec: RunSpec, hparams: Hparams) -> None:
    """Raise InputError if a run requests cached features but cannot train on them."""
    if spec.data_path != "features":
        return
    if hparams.get("freeze", NOTHING) == NOTHING:
        raise InputError(
            "data_path features caches the output of a frozen prefix, but hparam freeze is none; set freeze to a stage "
            "or to featurizer, or data_path to cached"
        )
    if reason := get_algorithm_class(spec.algorithm).needs_pixels:
        raise InputError(f"{spec.method} cannot train on cached features: {reason}; set data_path cached")
    backbone = str(hparams.get("backbone"))
    _refuse_part_of(backbone, hparams["freeze"], splits=not (is_timm(backbone) or is_clip(backbone)))


def read_features(algorithm: Algorithm) -> None:
    """Switch the featurizers of an algorithm to cached features as input; raise InputError if it has none."""
    featurizers = [module for module in algorithm.modules() if isinstance(module, FeaturizerModule)]
    if not featurizers:
        raise InputError(
            f"{type(algorithm).__name__} cannot train on cached features: it does not use networks.Featurizer; set "
            "data_path cached"
        )
    for featurizer in featurizers:
        featurizer.reads_prefix = True


def _refuse_part_of(backbone: str, upto: str, *, splits: bool) -> None:
    """Raise InputError if only a part of a network is frozen that cannot be split at its stages."""
    if upto != WHOLE and not splits:
        raise InputError(
            f"data_path features cannot continue {backbone} after {upto}: models of timm and open_clip can only be "
            "cached as a whole; set freeze featurizer, or data_path cached"
        )

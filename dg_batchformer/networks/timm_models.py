"""Any timm model as a featurizer, by the backbone ``timm/NAME``: ViT, DINOv2, ConvNeXt, Swin ...

timm is an optional dependency that takes seconds to import, so it is imported only for such backbones.
"""

import inspect
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dg_batchformer.errors import InputError, unknown
from dg_batchformer.networks.base import Stage
from dg_batchformer.networks.library import LibraryFeaturizer, cut_patches, renormalisation

PREFIX = "timm/"
_NORMALIZED_BY_IMAGENET = ("none", "moco_v3")  # weights that take images as they arrive, unlike timm's


def is_timm(backbone: str) -> bool:
    """Return whether a backbone is a timm model."""
    return backbone.startswith(PREFIX)


def timm_name(backbone: str) -> str:
    """Return timm's name of a backbone; raise InputError if timm is missing or has no such model."""
    name, models = backbone.removeprefix(PREFIX), _timm(backbone).list_models()
    if name in models:
        return name
    plain, _, tag = name.partition(".")
    if tag and plain in models:
        raise InputError(f"backbone {backbone} includes a weights tag; set it as a hparam: weights {tag}")
    raise unknown("backbone", backbone, [PREFIX + model for model in models], see="see timm.list_models()")


def timm_backbones() -> list[str]:
    """Return the backbones that timm provides; [] if it is not installed."""
    try:
        return [PREFIX + model for model in _timm(PREFIX).list_models()]
    except InputError:
        return []


def matches(name: str, pattern: str) -> bool:
    """Return whether a name matches a glob, ignoring case; timm backbones match with or without ``timm/``."""
    spellings = (name.casefold(), name.casefold().removeprefix(PREFIX))
    return any(fnmatchcase(spelling, pattern.casefold()) for spelling in spellings)


def search_timm(pattern: str) -> dict[str, str]:
    """Return the timm backbones that match a glob, each with its weights tags."""
    from timm.models import get_arch_pretrained_cfgs

    found = [backbone for backbone in timm_backbones() if matches(backbone, pattern)]
    configs = {backbone: get_arch_pretrained_cfgs(backbone.removeprefix(PREFIX)).values() for backbone in found}
    tags = {backbone: [str(one.tag) for one in of if one.has_weights] for backbone, of in configs.items()}
    return {backbone: f"weights {', '.join(['none', *tags[backbone]])}" for backbone in found}


def weight_tags(backbone: str) -> list[str]:
    """Return the tags of timm's weights for a backbone, its default first."""
    from timm.models import get_arch_pretrained_cfgs

    configs = get_arch_pretrained_cfgs(timm_name(backbone))
    return [str(config.tag) for config in configs.values() if config.has_weights]


def weights_source(backbone: str, tag: str) -> tuple[str, str]:
    """Return the Hugging Face Hub repository and the URL of a tag's weights; either may be ''."""
    config = _config(backbone, tag)
    return config.hf_hub_id or "", config.url or ""


def describe_timm(backbone: str, weights: str) -> str:
    """Describe a model at its native image size, with its weights as text and its stages for BFv2."""
    native = tuple(_config(backbone, "").input_size)
    parts = anatomy(backbone, native)
    stages = ", ".join(parts.stages[parts.has_stem :])
    lines = [
        f"{backbone}: a timm model for images of {native[-1]} pixels (hparam image_size)",
        f"weights: {weights or 'none or a file'}",
        f"BFv2 can be inserted after (hparam bfv2_insert): {stages or 'none, it has no stages'}",
    ]
    return "\n".join(lines)


class Anatomy(NamedTuple):
    """Structure of a timm model for an input shape, found without building it in memory.

    Args:
        takes_img_size: whether it is built for a fixed image size.
        batch_norm: whether it has BatchNorm.
        stages: names of the modules that return one vector per token or position, in forward order.
        keeps_grid: whether they all return (N, C, H, W).

    """

    takes_img_size: bool
    batch_norm: bool
    stages: tuple[str, ...]
    keeps_grid: bool

    @property
    def has_stem(self) -> bool:
        """Whether the first stage is a stem, as in timm's ResNets."""
        return self.stages[:1] == ("act1",)


@cache
def anatomy(backbone: str, input_shape: tuple[int, ...]) -> Anatomy:
    """Inspect a model on the meta device; raise InputError if it cannot take inputs of this shape."""
    name = timm_name(backbone)
    with torch.device("meta"):
        network = _timm(backbone).create_model(name, num_classes=0)
        takes_img_size = any("img_size" in inspect.signature(kind).parameters for kind in type(network).__mro__[:-1])
        try:
            network = _create(backbone, input_shape, takes_img_size=takes_img_size, num_classes=0)
            _refuse_cut_patches(backbone, network, input_shape)
            dims = _stages(network.eval(), torch.zeros(2, *input_shape))
        except InputError:
            raise
        except Exception as error:  # networks fail in many ways on unsupported sizes
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"backbone {backbone} cannot take images of {_size(input_shape)}: {reason}") from None
    batch_norm = any(isinstance(layer, _BatchNorm) for layer in network.modules())
    keeps_grid = bool(dims) and set(dims.values()) == {4} and not _is_channels_last(network)
    return Anatomy(takes_img_size, batch_norm, tuple(dims), keeps_grid)


class TimmFeaturizer(LibraryFeaturizer):
    """A timm model without its classifier, followed by dropout: (N, C, H, W) -> (N, width of the pooled features).

    Transformers are built for the image size, and pretrained position embeddings are resampled to it. Inputs are
    normalized by ImageNet's statistics; if the weights were trained with others, they are renormalized. Weights from a
    file are assumed to use the statistics of timm's default weights for the model.

    Args:
        backbone: ``timm/NAME``.
        input_shape: (channels, height, width).
        weights: ``none``, a tag in timm, or a file.
        dropout: on the pooled features.

    """

    scale: Tensor
    shift: Tensor

    def __init__(self, backbone: str, input_shape: Sequence[int], weights: str, dropout: float) -> None:
        super().__init__()
        self.backbone, self.input_shape, self.weights = backbone, tuple(input_shape), weights
        self.network = self._build(num_classes=0)
        self.n_outputs: int = self.network.head_hidden_size
        parts = anatomy(backbone, self.input_shape)
        self.has_stem, self.keeps_grid = parts.has_stem, parts.keeps_grid
        self.channels_last = _is_channels_last(self.network)
        self.dropout = nn.Dropout(dropout)
        # Persistent buffers, as a kept model is rebuilt without knowing its initial weights.
        scale, shift = self._renormalisation()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def pooled(self, x: Tensor) -> Tensor:
        maps = self.network.forward_features(torch.addcmul(self.shift, x, self.scale))
        return self.network.forward_head(maps, pre_logits=True)

    def stages(self) -> Mapping[str, Stage]:
        names = anatomy(self.backbone, self.input_shape).stages
        return {name: self.network.get_submodule(name) for name in names}

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Load a state dict in any layout that timm supports for this model, without the classifier.

        timm adapts position embeddings and the channels of the first layer. Raises RuntimeError if a tensor is missing,
        unexpected or of another shape.
        """
        source: dict[str, Any] = {"state_dict": dict(state), "custom_load": False}
        if not self._has_tag:
            source |= {"num_classes": self._classes_in(state), "label_offset": 0}
        # Build with the classifier of the weights, so that timm loads strictly.
        self.network = self._build(
            pretrained=True,
            num_classes=source.get("num_classes", _config(self.backbone, self._tag).num_classes),
            pretrained_cfg=self._tag,
            pretrained_cfg_overlay=source,
        )
        self.network.reset_classifier(0)

    @property
    def _has_tag(self) -> bool:
        return self.weights in weight_tags(self.backbone)

    @property
    def _tag(self) -> str:
        """The tag whose configuration fits the weights: timm's default for a file, '' if timm has no weights."""
        return self.weights if self._has_tag else next(iter(weight_tags(self.backbone)), "")

    def _build(self, **settings: Any) -> Any:
        takes_img_size = anatomy(self.backbone, self.input_shape).takes_img_size
        return _create(self.backbone, self.input_shape, takes_img_size=takes_img_size, **settings)

    def _classes_in(self, state: Mapping[str, Tensor]) -> int:
        names = _config(self.backbone, self._tag).classifier or ()
        heads = [state.get(f"{name}.weight") for name in ([names] if isinstance(names, str) else names)]
        return next((len(head) for head in heads if head is not None), 0)

    def _renormalisation(self) -> tuple[Tensor, Tensor]:
        """Return scale and shift (C, 1, 1) that map ImageNet normalization to that of the weights."""
        if self.weights in _NORMALIZED_BY_IMAGENET:
            return renormalisation(self.input_shape[0], None, None)
        config = _config(self.backbone, self._tag)
        return renormalisation(self.input_shape[0], config.mean, config.std)


def import_timm(wanted_by: str) -> ModuleType:
    """Import timm; raise InputError if it is not installed."""
    try:
        import timm
    except ImportError:
        raise InputError(
            f"{wanted_by} needs timm, which is not installed; install it with: python -m pip install timm"
        ) from None
    return timm


def _timm(backbone: str) -> ModuleType:
    return import_timm(f"backbone {backbone}")


def _config(backbone: str, tag: str) -> Any:
    from timm.models import get_pretrained_cfg

    return get_pretrained_cfg(f"{timm_name(backbone)}.{tag}" if tag else timm_name(backbone))


def _create(backbone: str, input_shape: Sequence[int], *, takes_img_size: bool, **settings: Any) -> Any:
    size = {"img_size": tuple(input_shape[1:])} if takes_img_size else {}
    return _timm(backbone).create_model(timm_name(backbone), in_chans=input_shape[0], **size, **settings)


@torch.no_grad()
def _stages(network: Any, x: Tensor) -> dict[str, int]:
    """Return the number of dimensions of stage outputs by module name, in forward order: 3 or 4.

    Candidates are the modules in timm's ``feature_info``; outputs are (N, T, C), (N, C, H, W) or (N, H, W, C).
    """
    modules, found = dict(network.named_modules()), dict[str, int]()

    def note(name: str, z: object) -> None:
        if isinstance(z, Tensor) and z.ndim in (3, 4) and len(z) == len(x):
            found[name] = z.ndim

    for name in [info["module"] for info in network.feature_info]:
        if name in modules:
            modules[name].register_forward_hook(lambda module, inputs, z, name=name: note(name, z))
    network.forward_head(network.forward_features(x), pre_logits=True)
    return found


def _is_channels_last(network: Any) -> bool:
    return getattr(network, "output_fmt", None) == "NHWC"


def _refuse_cut_patches(backbone: str, network: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Raise InputError if the image size is not a multiple of the patch size: timm would ignore a border."""
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    patch = patch[-1] if isinstance(patch, tuple) else patch
    size = input_shape[-1]
    if isinstance(patch, int) and (near := cut_patches(size, patch)):
        raise InputError(
            f"backbone {backbone} has patches of {patch} pixels, which do not divide images of {_size(input_shape)}; "
            f"set hparam image_size {near}"
        )


def _size(input_shape: Sequence[int]) -> str:
    return " x ".join(str(extent) for extent in input_shape)

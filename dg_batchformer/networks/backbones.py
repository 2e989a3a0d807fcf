"""Backbones by name: the values of the hparam ``backbone``; ``auto`` depends on the input shape."""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from dg_batchformer.catalog.datasets import SMALL_BACKBONES
from dg_batchformer.catalog.installed import installed_names, load_installed
from dg_batchformer.errors import InputError, unknown
from dg_batchformer.hparams import HParam, Value
from dg_batchformer.networks.base import FeaturizerModule
from dg_batchformer.networks.clip_models import (
    CLIP_PREFIX,
    ClipFeaturizer,
    check_clip_shape,
    clip_backbones,
    clip_name,
    describe_clip,
    has_batch_norm,
    is_clip,
)
from dg_batchformer.networks.cnn import MnistCnn, SmallCnn, TinyCnn
from dg_batchformer.networks.efficientnet_lite import EfficientNetLite
from dg_batchformer.networks.mlp import MLPFeaturizer
from dg_batchformer.networks.timm_models import (
    PREFIX,
    TimmFeaturizer,
    anatomy,
    describe_timm,
    is_timm,
    timm_backbones,
    timm_name,
)
from dg_batchformer.networks.weights import LITE, describe_weights
from dg_batchformer.networks.wide_resnet import WideResNet

_Build = Callable[[Sequence[int], dict[str, Any]], FeaturizerModule]


class Backbone(NamedTuple):
    """A featurizer by name: a one-line description, a builder, and whether it has BatchNorm."""

    about: str
    build: _Build
    batch_norm: bool = False


def _resnet(name: str) -> _Build:
    def build(shape: Sequence[int], hparams: dict[str, Any]) -> FeaturizerModule:
        from dg_batchformer.networks.resnet import ResNet  # imports torchvision, which takes as long as torch

        return ResNet(name, shape[0], hparams["resnet_dropout"])

    return build


def _lite(name: str) -> _Build:
    return lambda shape, hparams: EfficientNetLite(name, shape, hparams["lite_dropout"])


def _clip(name: str, shape: Sequence[int], hparams: dict[str, Any]) -> FeaturizerModule:
    projects, dropout = hparams["clip_projection"], hparams["clip_dropout"]
    return ClipFeaturizer(name, shape, hparams["weights"], projects=projects, dropout=dropout)


BACKBONES: dict[str, Backbone] = {
    "resnet18": Backbone("ResNet-18, 512 features", _resnet("resnet18"), True),
    "resnet50": Backbone("ResNet-50, 2048 features", _resnet("resnet50"), True),
    **{name: Backbone(f"EfficientNet-Lite{name[-1]}, 1280 features, needs timm", _lite(name), True) for name in LITE},
    "wrn16_2": Backbone("Wide ResNet 16-2 for 32 px, 128 features", lambda shape, _: WideResNet(shape[0]), True),
    "mnist_cnn": Backbone("DomainBed's CNN for 28 px, 128 features, GroupNorm", lambda shape, _: MnistCnn(shape[0])),
    "small_cnn": Backbone(
        "three convolutions for small images on a CPU, 128 features", lambda shape, _: SmallCnn(shape[0])
    ),
    "tiny": Backbone("one convolution, 16 features: for tests", lambda shape, _: TinyCnn(shape[0])),
    "mlp": Backbone(
        "multi-layer perceptron for vectors",
        lambda shape, hparams: MLPFeaturizer(shape[0], hparams["mlp_width"], hparams),
    ),
}
TIMM = f"{PREFIX}NAME"
CLIP = f"{CLIP_PREFIX}NAME"
_ABOUT_CLIP = "image tower of an open_clip model (pip install open_clip_torch); weights none, one of its tags or a file"
_ABOUT_TIMM = "any timm model (pip install timm), such as ViT and DINOv2; weights none, one of its tags or a file"


def add_backbone(name: str, backbone: Backbone, source: str, *, replaced: Collection[str] = ()) -> None:
    """Make the backbone of a plug-in known.

    Args:
        name: of the backbone.
        backbone: its description, builder and kind of normalization.
        source: where it is from, for messages.
        replaced: names that may be taken.

    Raises InputError if the name is taken or cannot be typed.

    """
    if BACKBONES.get(name) is backbone:
        return
    if name in {"auto", *BACKBONES}.difference(replaced) or is_timm(name) or is_clip(name) or not name.isidentifier():
        raise InputError(f"{source} has the backbone {name!r}, but that name is taken or no identifier; rename it")
    BACKBONES[name] = backbone


def is_registered(name: str) -> bool:
    """Return whether there is a backbone of that name that is no model of timm or open_clip."""
    return name in BACKBONES or load_installed("backbones", name)


class _BackboneName(HParam):
    """A hparam whose value is one of the choices, or the name of a model of timm or open_clip."""

    def parse(self, name: str, given: object) -> Value:
        if isinstance(given, str) and is_timm(given):
            return PREFIX + timm_name(given)
        if isinstance(given, str) and is_clip(given):
            return CLIP_PREFIX + clip_name(given)
        if isinstance(given, str) and not self.allows(given):
            raise _unknown(f"value of hparam {name}:", given, ["auto", *_names()])
        return super().parse(name, given)

    def allows(self, value: Value) -> bool:
        return value == "auto" or is_timm(str(value)) or is_clip(str(value)) or is_registered(str(value))

    @property
    def allowed(self) -> str:
        return ", ".join(["auto", *_names(), TIMM, CLIP])


BACKBONE = _BackboneName("auto", about="featurizer; auto: by input shape")


def describe_backbones() -> dict[str, str]:
    """Return a one-line description of every backbone by name; timm models share one, and so do open_clip models."""
    return {**{name: _about(name) for name in BACKBONES}, TIMM: _ABOUT_TIMM, CLIP: _ABOUT_CLIP}


def describe_backbone(name: str) -> str:
    """Describe a backbone in full; raise InputError for an unknown name."""
    if name == TIMM:
        return f"{name}: {_ABOUT_TIMM}; for one model, see list backbones timm/vit_small_patch14_dinov2"
    if name == CLIP:
        return f"{name}: {_ABOUT_CLIP}; for one model, see list backbones clip/ViT-B-16"
    if is_timm(name):
        return describe_timm(name, describe_weights(name))
    if is_clip(name):
        return describe_clip(name, describe_weights(name))
    if not is_registered(name):
        raise _unknown("backbone", name, _names())
    return f"{name}: {_about(name)}"


def _names() -> list[str]:
    return list(dict.fromkeys([*BACKBONES, *installed_names("backbones")]))


def _about(name: str) -> str:
    weights = describe_weights(name)
    return f"{BACKBONES[name].about}; weights {weights}" if weights else BACKBONES[name].about


def _unknown(kind: str, name: str, known: Iterable[Value]) -> InputError:
    ours = [*map(str, known), TIMM, CLIP]
    return unknown(kind, name, [*ours, *timm_backbones(), *clip_backbones()], see=f"known: {', '.join(ours)}")


def backbone_for(backbone: str, shape: Sequence[int]) -> str:
    """Resolve ``auto`` by the input shape, as DomainBed does; raise InputError if a backbone cannot take the shape."""
    if backbone == "auto":
        if len(shape) == 1:
            return "mlp"
        return SMALL_BACKBONES.get(shape[-1], "resnet50")
    if (backbone == "mlp") != (len(shape) == 1):
        wants = "vectors" if backbone == "mlp" else "images"
        raise InputError(f"backbone {backbone} takes {wants}, but the inputs have shape {tuple(shape)}")
    if backbone == "wrn16_2" and shape[-1] != 32:
        raise InputError(
            f"backbone wrn16_2 takes images of 32 pixels, but these have {shape[-1]}; set hparam image_size 32"
        )
    if is_timm(backbone):
        anatomy(backbone, tuple(shape))
    if is_clip(backbone):
        check_clip_shape(backbone, shape)
    return backbone


def get_backbone(name: str, input_shape: Sequence[int]) -> Backbone:
    """Return a backbone for an input shape; models of timm and open_clip are looked up there."""
    if is_clip(name):
        return Backbone("an open_clip model", partial(_clip, name), has_batch_norm(name))
    if not is_timm(name):
        return BACKBONES[name]
    return Backbone(
        "a timm model",
        lambda shape, hparams: TimmFeaturizer(name, shape, hparams["weights"], hparams["timm_dropout"]),
        anatomy(name, tuple(input_shape)).batch_norm,
    )

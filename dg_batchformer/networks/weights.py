"""Pretrained weights: where a named set is kept, and a clear sentence when it is nowhere."""

from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from dg_batchformer.errors import InputError

_TORCHVISION = "https://download.pytorch.org/models"
_TIMM = "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights"
# (backbone, weights): address of a state dict in torchvision's layout; its name ends in its hash.
_ADDRESSES = {
    ("resnet18", "imagenet_v1"): f"{_TORCHVISION}/resnet18-f37072fd.pth",
    ("resnet50", "imagenet_v1"): f"{_TORCHVISION}/resnet50-0676ba61.pth",
    ("resnet50", "ram_in1k"): f"{_TIMM}/resnet50_ram-a26f946b.pth",
}
NAMED = tuple(sorted({weights for _, weights in _ADDRESSES}))


def check_weights(backbone: str, weights: str) -> None:
    """Raise InputError unless these weights can be had for this backbone: none, a named set, or a file."""
    if weights == "none" or (backbone, weights) in _ADDRESSES:
        return
    if weights in NAMED or not Path(weights).is_file():
        named = [name for key, name in _ADDRESSES if key == backbone]
        allowed = ", ".join(["none", *named, "or the path of a file with a state dict"])
        raise InputError(f"hparam weights is {weights!r}, but for backbone {backbone} it can be {allowed}")


def load_weights(featurizer: nn.Module, backbone: str, weights: str) -> None:
    """Fill a featurizer with the weights asked for; ``none`` leaves the random initialisation.

    Raises InputError where a file is missing, cannot be downloaded or does not fit.
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
    """Return the file of some weights, downloaded if need be; None for ``none``. Raises InputError."""
    check_weights(backbone, weights)
    if weights == "none":
        return None
    if (backbone, weights) not in _ADDRESSES:
        return Path(weights)
    address = _ADDRESSES[backbone, weights]
    file = Path(torch.hub.get_dir(), "checkpoints", address.rpartition("/")[2])
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(address, str(file), file.stem.rpartition("-")[2], progress=False)
        except (URLError, OSError, RuntimeError) as error:
            raise InputError(
                f"weights {weights} of {backbone} are the file {file.name}, which is not in {file.parent} and could "
                f"not be downloaded ({getattr(error, 'reason', error)}); fetch {address} elsewhere and put it there, "
                "or give its path as hparam weights, or weights none"
            ) from None
    return file


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """Read a state dict, alone or as others and we keep it; raise InputError where there is none."""
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is no checkpoint makes of the loader
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file} cannot be read as weights: {reason}") from None
    for key in ("state_dict", "predictor"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise InputError(f"{file} holds no state dict: a mapping of names to tensors is needed")
    return content

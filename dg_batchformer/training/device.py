"""Devices a run can use, by name."""

import torch

from dg_batchformer.errors import InputError


def parse_device(name: str) -> torch.device:
    """Return the device called ``cpu``, ``cuda``, ``cuda:N`` or ``auto``; raise InputError where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("mps"):
        raise InputError("device mps is not supported: nobody has tested it yet; use cpu or cuda")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"unknown device {name!r} (known: auto, cpu, cuda, cuda:0, cuda:1 ...)")
    count = len(cuda_names())
    if device.type == "cuda" and (device.index or 0) >= count:
        raise InputError(f"device {name} is not there: {count or 'no'} CUDA device{'s' * (count != 1)} found")
    return device


def cuda_names() -> list[str]:
    """Return the names of all GPUs; none where there is no CUDA."""
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []


def prepare_device(device: torch.device) -> None:
    """Make results repeatable on a device, as DomainBed does."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False

"""Devices: names, capabilities, and settings for reproducible results."""

import os
import re
import subprocess
from functools import cache
from typing import Any

import torch

from dg_batchformer.errors import InputError
from dg_batchformer.text.counts import plural

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_UUID = re.compile(r"(GPU|MIG)-\S+")
_HAS_TF32 = 8  # major compute capability: Ampere and later


def parse_device(name: str) -> torch.device:
    """Return the device for a name that ``device_name`` accepts; a CUDA device has an index.

    For a MIG slice, or a GPU given by UUID, this hides all other GPUs from the process, as CUDA can use only one slice.
    Call it in the process that uses the device, before CUDA is initialized.

    Raises InputError if there is no such device.
    """
    name = device_name(name)
    uuid = _uuid(name)
    if uuid is None:
        return torch.device(name)
    os.environ[_VISIBLE] = uuid
    if not torch.cuda.is_available():
        raise InputError(f"device {name} cannot be used: CUDA does not find {uuid}; nvidia-smi -L lists UUIDs")
    return torch.device("cuda", 0)


def device_name(name: str) -> str:
    """Normalize ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or the start of a UUID to ``cpu``, ``cuda:N`` or a full UUID.

    ``auto`` is the first GPU, or else the CPU. Raises InputError if there is no such device.
    """
    if name == "auto":
        return next(iter(cuda_names()), "cpu")
    if name.startswith("mps"):
        raise InputError("device mps is not supported, as it is untested; use cpu or cuda")
    if _UUID.fullmatch(name):
        return _listed_uuid(name)
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(
            f"unknown device {name!r} (known: auto, cpu, cuda, cuda:0, cuda:1 ..., and UUIDs, GPU-... or MIG-..., as "
            "nvidia-smi -L lists them)"
        )
    if device.type == "cpu":
        return "cpu"
    index, count = device.index or 0, len(cuda_names())
    if index >= count:
        raise InputError(f"device {name} does not exist: {count or 'no'} CUDA {plural('device', count)} found")
    return f"cuda:{index}"


def cuda_names() -> list[str]:
    """Return the names of all GPUs or MIG slices visible to this process; [] without CUDA."""
    count = len(_visible_slices()) or (torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return [f"cuda:{index}" for index in range(count)]


def prepare_device(device: torch.device) -> None:
    """Set deterministic algorithms and full float32 precision, as in DomainBed.

    Raises InputError if a GPU cannot be used: lost, busy or full.
    """
    allow_tf32(False)
    if device.type != "cuda":
        return
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    try:
        torch.cuda.set_device(device)
        torch.cuda.synchronize(device)  # initializes the device
    except (RuntimeError, ValueError, AssertionError) as error:
        raise InputError(f"device {device} cannot be used: {' '.join(str(error).split())}") from error


def allow_tf32(allowed: bool) -> None:
    """Set whether GPUs may use TF32 for float32 matrix products and convolutions."""
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def has_tf32(device: torch.device) -> bool:
    """Return whether a device supports TF32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= _HAS_TF32


def arithmetic(device: torch.device) -> dict[str, Any]:
    """Return the GPU settings that results depend on, for records; {} on a CPU."""
    if device.type != "cuda":
        return {}
    cudnn = torch.backends.cudnn
    return {
        "tf32": cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32,
        "cudnn_deterministic": cudnn.deterministic,
        "cudnn_benchmark": cudnn.benchmark,
    }


def gpu_versions(device: torch.device) -> dict[str, str]:
    """Return the known versions of CUDA, cuDNN and the driver; {} on a CPU."""
    if device.type != "cuda":
        return {}
    driver = _nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader").split()
    found = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "driver": next(iter(driver), None)}
    return {name: str(version) for name, version in found.items() if version is not None}


def _visible_slices() -> list[str]:
    """Return the UUIDs of the MIG slices in CUDA_VISIBLE_DEVICES; CUDA itself would use only the first."""
    names = [name.strip() for name in os.environ.get(_VISIBLE, "").split(",")]
    return names if all(name.startswith("MIG-") for name in names) else []


def _uuid(name: str) -> str | None:
    """Return the value of CUDA_VISIBLE_DEVICES needed for a device; None if no change is needed."""
    if _UUID.fullmatch(name):
        return name
    slices = _visible_slices()
    return slices[int(name.removeprefix("cuda:"))] if slices and name != "cpu" else None


def _listed_uuid(start: str) -> str:
    """Complete a UUID prefix from nvidia-smi's list; return it unchanged if nvidia-smi lists none."""
    listed = re.findall(r"\(UUID: *([^)\s]+)\)", _nvidia_smi("-L"))
    found = [uuid for uuid in listed if uuid.startswith(start)]
    if start in found or not listed:
        return start
    if len(found) != 1:
        meant = f"{len(found)} devices have UUIDs with this prefix" if found else "nvidia-smi lists no such UUID"
        raise InputError(f"device {start} does not exist: {meant} (known: {', '.join(listed)})")
    return found[0]


@cache
def _nvidia_smi(*arguments: str) -> str:
    """Return the output of nvidia-smi; '' if it is not installed, hangs or fails."""
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout

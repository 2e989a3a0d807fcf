"""Compute mode of a run: precision, data path and compilation, as requested by its spec and resolved on its device."""

import os
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dg_batchformer.algorithms import Algorithm
from dg_batchformer.datasets import Dataset
from dg_batchformer.datasets.folders import ImageFolders
from dg_batchformer.errors import InputError
from dg_batchformer.networks.base import FeaturizerModule
from dg_batchformer.optim.groups import featurizers
from dg_batchformer.spec.run import DATA_PATHS, PRECISIONS, RunSpec
from dg_batchformer.training.device import allow_tf32, has_tf32
from dg_batchformer.training.trust import Refused

_WORTH_BF16 = 64  # pixels: below, networks are so small that casting costs more than it saves
# On a CPU, compiling takes about a minute and saves a quarter of the evaluation time.
_WORTH_COMPILING = 50_000  # images evaluated in a run
# On a GPU, a worker of a sweep compiles training and evaluation once for all its runs. Not measured.
_WORTH_COMPILING_ON_GPU = 100_000  # images trained on and evaluated in a run
_WORTH_COMPILING_PREFIX = 5_000  # images: a frozen prefix gains more, since its constants are folded in
_LEAST_CAPABILITY = (7, 0)  # of GPUs that Triton compiles for
_LAUNCH_BOUND = 64  # images per step: up to here kernel launches dominate, and CUDA graphs help


SETTLED_PRECISIONS = tuple(name for name in PRECISIONS if name != "auto")
_SETTLED = {"precision": SETTLED_PRECISIONS, "data_path": DATA_PATHS, "compile": ("on", "off")}


class Execution(NamedTuple):
    """The compute mode with every ``auto`` resolved; part of the records."""

    precision: str
    data_path: str
    compile: str


def saved_execution(state: dict[str, Any]) -> Execution:
    """Return the compute mode in a checkpoint; raise Refused if it is invalid."""
    if state.keys() != _SETTLED.keys() or any(state[name] not in allowed for name, allowed in _SETTLED.items()):
        raise Refused(f"its execution is {state!s:.200}")
    return Execution(**state)


class Work(NamedTuple):
    """The images that a run processes.

    Attributes:
        per_step: images of an update.
        per_evaluation: images of an evaluation.
        in_sweep: whether this process trains further runs, which reuse what it compiles.

    """

    per_step: int
    per_evaluation: int
    in_sweep: bool


def settle(spec: RunSpec, dataset: Dataset, device: torch.device, work: Work) -> Execution:
    """Resolve ``auto`` for a run on a device; raise InputError if the device does not support the request."""
    precision = settle_precision(spec, dataset, device)
    if precision == "tf32" and not has_tf32(device):
        raise InputError(
            f"--precision tf32 needs an NVIDIA GPU of 2020 or later, not {device}; give fp32, bf16 or auto"
        )
    path = data_path(spec, dataset)
    mode = (
        "off" if path == "features" else settle_compile(spec.compile, device, _is_worth_compiling(spec, device, work))
    )
    return Execution(precision, path, mode)


def _is_worth_compiling(spec: RunSpec, device: torch.device, work: Work) -> bool:
    evaluated = work.per_evaluation * (spec.steps // spec.checkpoint_freq + 1)
    if device.type == "cpu":
        return evaluated >= _WORTH_COMPILING
    return work.in_sweep and evaluated + work.per_step * spec.steps >= _WORTH_COMPILING_ON_GPU


def compiles_prefix(spec: RunSpec, device: torch.device, images: int) -> bool:
    """Decide whether the frozen prefix is compiled that computes features of so many images."""
    pays_off = device.type == "cpu" and images >= _WORTH_COMPILING_PREFIX  # not measured on GPUs
    return settle_compile(spec.compile, device, pays_off) == "on"


def data_path(spec: RunSpec, dataset: Dataset) -> str:
    """Return the data path of a run; data already in memory does not use the pixel cache."""
    return "exact" if spec.data_path == "cached" and not isinstance(dataset, ImageFolders) else spec.data_path


def settle_precision(spec: RunSpec, dataset: Dataset, device: torch.device) -> str:
    """Resolve the precision ``auto``: bf16 if the device supports it and images are large enough to benefit."""
    if spec.precision != "auto":
        return spec.precision
    if max(dataset.input_shape[1:], default=0) < _WORTH_BF16:
        return "fp32"
    return "bf16" if has_bf16(device) else "fp32"


def has_bf16(device: torch.device) -> bool:
    """Return whether a device has native bf16 support."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def settle_compile(asked: str, device: torch.device, is_worth_it: bool) -> str:
    """Return ``on`` or ``off`` for the asked ``on``, ``off`` or ``auto``; raise InputError if ``on`` is impossible."""
    missing = _missing_to_compile(device)
    if asked == "on" and missing:
        raise InputError(
            f"compile: on needs {missing}, which is not installed; train with --compile off (compile: off in a sweep "
            "file)"
        )
    if asked == "auto":
        return "on" if is_worth_it and not missing else "off"
    return asked


def _missing_to_compile(device: torch.device) -> str:
    """Return what is missing to compile for a device, '' if nothing is."""
    if device.type == "cpu":
        return "" if shutil.which("g++") or shutil.which("clang++") else "a C++ compiler on a CPU"
    if find_spec("triton") is None:
        return "Triton on a GPU"
    if torch.cuda.get_device_capability(device) < _LEAST_CAPABILITY:
        return "a GPU of 2017 or later (for Triton: compute capability 7.0)"
    compilers = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"]  # Triton's search order
    if not any(map(shutil.which, compilers)):
        return "a C compiler on a GPU (for Triton)"
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return "" if headers.exists() else "Python's headers on a GPU (for Triton; python3-dev)"


def apply(execution: Execution, algorithm: Algorithm, device: torch.device, images_per_step: int) -> None:
    """Set the compute mode of an algorithm's networks.

    On a CPU only evaluation is compiled, as training ResNets does not get faster there.
    """
    compiles, on_gpu = execution.compile == "on", device.type == "cuda"
    set_precision(algorithm, execution.precision)
    for featurizer in _featurizers(algorithm):
        featurizer.compiles_evaluation = compiles
        featurizer.compiles_training = compiles and on_gpu and not algorithm.differentiates_twice
        featurizer.uses_cuda_graphs = on_gpu and images_per_step <= _LAUNCH_BOUND and not algorithm.trains_clones


def set_precision(algorithm: Algorithm, precision: str) -> None:
    """Set the precision of an algorithm's featurizers, and whether this process uses TF32."""
    allow_tf32(precision == "tf32")
    for featurizer in _featurizers(algorithm):
        featurizer.autocast = torch.bfloat16 if precision == "bf16" else None


def gave_up_compiling(execution: Execution, algorithm: Algorithm) -> bool:
    """Return whether compilation failed, or would have to be repeated too often, so that a run continues uncompiled."""
    return execution.compile == "on" and not all(
        featurizer.compiles_evaluation for featurizer in _featurizers(algorithm)
    )


def is_compiled(algorithm: Algorithm) -> bool:
    """Return whether the evaluation of an algorithm is compiled."""
    return any(featurizer.compiles_evaluation for featurizer in _featurizers(algorithm))


def _featurizers(algorithm: Algorithm) -> list[FeaturizerModule]:
    return [featurizer for featurizer in featurizers(algorithm) if featurizer.sees_images]

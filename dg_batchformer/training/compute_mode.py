"""How a run computes: precision, data path and compilation, asked for by its spec and settled on its device."""

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
from dg_batchformer.spec.run import DATA_PATHS, PRECISIONS, RunSpec
from dg_batchformer.training.device import allow_tf32, has_tf32
from dg_batchformer.training.trust import Refused

_WORTH_BF16 = 64  # pixels: networks for smaller images are small, and casting costs more than it saves
# Compiling takes about a minute of a CPU; it then saves a quarter of the time of evaluation.
_WORTH_COMPILING = 50_000  # images evaluated in a run
_LAUNCH_BOUND = 64  # images a step: below, a GPU waits for its CPU, and CUDA graphs help


SETTLED_PRECISIONS = tuple(name for name in PRECISIONS if name != "auto")
_SETTLED = {"precision": SETTLED_PRECISIONS, "data_path": DATA_PATHS, "compile": ("on", "off")}


class Execution(NamedTuple):
    """What was asked, with every ``auto`` settled; stands in the records."""

    precision: str
    data_path: str
    compile: str


def saved_execution(state: dict[str, Any]) -> Execution:
    """Return what a checkpoint says of how its run computes; raise Refused for what no run settles on."""
    if state.keys() != _SETTLED.keys() or any(state[name] not in allowed for name, allowed in _SETTLED.items()):
        raise Refused(f"its execution is {state!s:.200}")
    return Execution(**state)


def settle(spec: RunSpec, dataset: Dataset, device: torch.device, images_per_evaluation: int) -> Execution:
    """Decide what ``auto`` means for a run on a device; raise InputError for what the device cannot do."""
    precision = settle_precision(spec, dataset, device)
    if precision == "tf32" and not has_tf32(device):
        raise InputError(
            f"--precision tf32 needs an NVIDIA GPU of 2020 or later, not {device}; give fp32, bf16 or auto"
        )
    path = data_path(spec, dataset)
    evaluated = images_per_evaluation * (spec.steps // spec.checkpoint_freq + 1)
    return Execution(precision, path, "off" if path == "features" else _compile(spec.compile, device, evaluated))


def data_path(spec: RunSpec, dataset: Dataset) -> str:
    """Return the data path that a run takes: images that are in memory as they are need no pixel cache."""
    return "exact" if spec.data_path == "cached" and not isinstance(dataset, ImageFolders) else spec.data_path


def settle_precision(spec: RunSpec, dataset: Dataset, device: torch.device) -> str:
    """Decide what precision ``auto`` means: bf16 where the device has it and images are large enough to gain."""
    if spec.precision != "auto":
        return spec.precision
    if max(dataset.input_shape[1:], default=0) < _WORTH_BF16:
        return "fp32"
    return "bf16" if has_bf16(device) else "fp32"


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes in bf16 by itself, without emulation."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _compile(asked: str, device: torch.device, evaluated: int) -> str:
    missing = _missing_to_compile(device)
    if asked == "on" and missing:
        raise InputError(
            f"compile: on needs {missing}, which is not installed; train with --compile off (compile: off in a sweep "
            "file)"
        )
    if asked == "auto":
        # On GPUs nobody has measured yet from when on it pays: there it is on only where it is asked for.
        worth = device.type == "cpu" and not missing and evaluated >= _WORTH_COMPILING
        return "on" if worth else "off"
    return asked


def _missing_to_compile(device: torch.device) -> str:
    """Return what compiling for a device lacks, '' where all is there."""
    if device.type == "cpu":
        return "" if shutil.which("g++") or shutil.which("clang++") else "a C++ compiler on a CPU"
    if find_spec("triton") is None:
        return "Triton on a GPU"
    compilers = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"]  # as Triton looks for one
    if not any(map(shutil.which, compilers)):
        return "a C compiler on a GPU (for Triton)"
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return "" if headers.exists() else "Python's headers on a GPU (for Triton; python3-dev)"


def apply(execution: Execution, algorithm: Algorithm, device: torch.device, images_per_step: int) -> None:
    """Make the networks of an algorithm compute that way.

    On a CPU only evaluation is compiled: training ResNets gains nothing there.
    """
    compiles, on_gpu = execution.compile == "on", device.type == "cuda"
    set_precision(algorithm, execution.precision)
    for featurizer in _featurizers(algorithm):
        featurizer.compiles_evaluation = compiles
        featurizer.compiles_training = compiles and on_gpu and not algorithm.differentiates_twice
        featurizer.uses_cuda_graphs = on_gpu and images_per_step <= _LAUNCH_BOUND and not algorithm.trains_clones


def set_precision(algorithm: Algorithm, precision: str) -> None:
    """Make the featurizers of an algorithm compute in a settled precision, and its process in TF32 or not."""
    allow_tf32(precision == "tf32")
    for featurizer in _featurizers(algorithm):
        featurizer.autocast = torch.bfloat16 if precision == "bf16" else None


def gave_up_compiling(execution: Execution, algorithm: Algorithm) -> bool:
    """Whether a run that compiles has met so many shapes that it went on without."""
    return execution.compile == "on" and not all(
        featurizer.compiles_evaluation for featurizer in _featurizers(algorithm)
    )


def _featurizers(algorithm: Algorithm) -> list[FeaturizerModule]:
    modules = algorithm.modules()
    return [module for module in modules if isinstance(module, FeaturizerModule) and module.sees_images]

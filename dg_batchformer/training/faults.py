"""Detect OOM and failing GPUs, neither of which is an error of the run itself."""

from collections.abc import Iterator
from contextlib import suppress

import torch

from dg_batchformer.errors import InputError, as_sentence

# OOM messages of allocators, libraries and compilers that do not raise torch.OutOfMemoryError.
_NO_HOST_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "HOST_ALLOCATION_FAILED")
_NO_MEMORY = (
    *_NO_HOST_MEMORY,
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # no memory for the workspace of its handle
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "DEVICE_ALLOCATION_FAILED",
    "unable to find an engine to execute this computation",  # cuDNN: none fits into the free memory
    "Unable to find a valid cuDNN algorithm",
)

# Messages of GPUs that are broken, lost or in a bad state. A process that gets one cannot use the GPU any more.
_DEVICE_FAULTS = (
    "uncorrectable ECC error",
    "uncorrectable NVLink error",
    "illegal memory access",
    "illegal instruction",
    "invalid program counter",
    "operation not supported on global/shared address space",
    "or a hardware error",  # a contained one
    "no CUDA-capable device is detected",
    "misaligned address",
    "unspecified launch failure",
    "hardware stack error",
    "the launch timed out",
    "GPU is lost",
    "CUDA error: unknown error",
    "CUDA-capable device(s) is/are busy or unavailable",
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUBLAS_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_EXECUTION_FAILED",
)


class OutOfMemory(InputError):
    """Out of memory.

    Args:
        sentence: the message.
        device: whose memory it is; a CPU stands for the host.

    """

    def __init__(self, sentence: str, device: torch.device) -> None:
        super().__init__(sentence)
        self.device = device


class DeviceFault(InputError):
    """A GPU failed during a run, which another process can resume.

    Args:
        what: the device and its error message.

    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}; rerun the command to resume from the last checkpoint; if this happens again, check dmesg for Xid "
            "errors and try another GPU"
        )
        self.what = what


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error was caused by OOM."""
    return any(
        isinstance(cause, torch.OutOfMemoryError | MemoryError) or _says(cause, _NO_MEMORY) for cause in _causes(error)
    )


def is_device_fault(error: BaseException) -> bool:
    """Return whether an error was caused by a failing GPU."""
    return any(_says(cause, _DEVICE_FAULTS) for cause in _causes(error))


def out_of_memory(device: torch.device, cause: BaseException) -> OutOfMemory:
    """Build the error for OOM in a run on a device, with the memory use and ways to need less."""
    if any(isinstance(error, MemoryError) or _says(error, _NO_HOST_MEMORY) for error in _causes(cause)):
        device = torch.device("cpu")
    helps = "use a smaller batch_size or image_size"
    if device.type == "cuda":
        helps += ", --precision bf16, or fewer workers on that GPU (--devices)"
    return OutOfMemory(f"out of memory on {device}{_taken(device)}; {helps}", device)


def device_fault(device: torch.device, error: BaseException) -> DeviceFault:
    """Build the error for a failing GPU."""
    return DeviceFault(f"{device} failed ({as_sentence(error)[:200]})")


def _taken(device: torch.device) -> str:
    """Describe the memory use of a GPU, '' if it is unknown."""
    if device.type == "cuda":
        with suppress(RuntimeError):
            free, total = torch.cuda.mem_get_info(device)
            own = torch.cuda.memory_reserved(device)
            return f" ({total / 2**30:.1f} GiB, {own / 2**30:.1f} held by this process, {free / 2**30:.1f} free)"
    return ""


def _says(error: BaseException, texts: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its chain of causes, as compilers wrap the original error."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__

"""What went wrong with a device: memory that ran out, and GPUs that failed. Neither is a fault of the run itself."""

from collections.abc import Iterator
from contextlib import suppress

import torch

from dg_batchformer.errors import InputError, as_sentence

# How allocators, libraries and compilers say so that do not raise torch.OutOfMemoryError.
_NO_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # its handle found no room for a workspace
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DEVICE_ALLOCATION_FAILED",
    "HOST_ALLOCATION_FAILED",
    "unable to find an engine to execute this computation",  # of cuDNN: none fits into the memory that is left
    "Unable to find a valid cuDNN algorithm",
)

# What a GPU says that is broken, lost or out of step. A process that has heard one of these cannot use it any more.
_DEVICE_FAULTS = (
    "uncorrectable ECC error",
    "uncorrectable NVLink error",
    "illegal memory access",
    "illegal instruction",
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
    """The device of a run, or the machine, lacks the memory that it asked for."""


class DeviceFault(InputError):
    """A GPU failed under a run, which another process can resume.

    Args:
        what: the device, and what it said.

    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}; the same command resumes the run from its last checkpoint; if it happens again, look into dmesg "
            "for Xid errors, and try another GPU"
        )
        self.what = what


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory that ran out is behind an error."""
    return any(
        isinstance(cause, torch.OutOfMemoryError | MemoryError) or _says(cause, _NO_MEMORY) for cause in _causes(error)
    )


def is_device_fault(error: BaseException) -> bool:
    """Whether a GPU that failed is behind an error."""
    return any(_says(cause, _DEVICE_FAULTS) for cause in _causes(error))


def out_of_memory(device: torch.device) -> OutOfMemory:
    """Return the error for memory that ran out on a device: how much is taken, and what needs less."""
    helps = "use a smaller batch_size or image_size"
    if device.type == "cuda":
        helps += ", --precision bf16, or fewer workers on that GPU (--devices)"
    return OutOfMemory(f"out of memory on {device}{_taken(device)}; {helps}")


def device_fault(device: torch.device, error: BaseException) -> DeviceFault:
    """Return the error for a GPU that failed."""
    return DeviceFault(f"{device} failed ({as_sentence(error)[:200]})")


def _taken(device: torch.device) -> str:
    """Return how much of a GPU is in use, '' where it does not say."""
    if device.type == "cuda":
        with suppress(RuntimeError):
            free, total = torch.cuda.mem_get_info(device)
            own = torch.cuda.memory_reserved(device)
            return f", of whose {total / 2**30:.1f} GiB this process holds {own / 2**30:.1f}, {free / 2**30:.1f} free"
    return ""


def _says(error: BaseException, texts: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from: compilers wrap what they meet."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__

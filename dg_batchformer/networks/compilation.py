"""``torch.compile`` for runs that can be repeated: the same kernels in a new process and in a warm worker."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

Given = ParamSpec("Given")
Made = TypeVar("Made")

# Limit on compiled graphs per function and process: batch sizes, precisions and modes of all runs of a worker.
_GRAPHS = 64


def compiled(function: Callable[Given, Made], **options: Any) -> Callable[Given, Made]:
    """Compile a function; ``options`` are those of ``torch.compile``.

    Kernels are chosen without timing them and, where PyTorch can, independently of the batch size that it meets first.
    """
    import torch._dynamo.config as dynamo
    import torch._functorch.config as functorch
    import torch._inductor.config as inductor

    dynamo.recompile_limit = _GRAPHS
    dynamo.fail_on_recompile_limit_hit = True  # by default it would silently run uncompiled
    functorch.donated_buffer = False  # ANDMask and others differentiate a graph twice
    inductor.deterministic = True
    if hasattr(inductor, "batch_invariant"):  # missing in torch 2.11
        inductor.batch_invariant = True
    return torch.compile(function, **options)


def compile_errors() -> tuple[type[Exception], ...]:
    """Return the errors of a compiled function that mean: continue uncompiled."""
    from torch._dynamo.exc import BackendCompilerFailed, FailOnRecompileLimitHit

    return BackendCompilerFailed, FailOnRecompileLimitHit

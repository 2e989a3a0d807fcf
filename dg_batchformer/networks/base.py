"""What every featurizer has."""

from collections.abc import Callable
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor, nn

# Of one forward, for batches of different sizes, precisions and modes of all runs of a worker.
_GRAPHS = 64


class FeaturizerModule(nn.Module):
    """A network whose output is (N, n_outputs); a subclass computes it in ``features``.

    Attributes:
        state_is_weights: whether parameters and buffers are all that training changes in it and in modules inside.
        channels_last: whether stages with a grid return (N, H, W, C) instead of (N, C, H, W).
        autocast: dtype of mixed precision, BatchFormer included; None for none. The output is float32 either way,
            so that classifiers, losses and penalties are.
        compiles_evaluation, compiles_training: whether ``features`` runs compiled in these modes.
        uses_cuda_graphs: whether compiled training replays CUDA graphs, one for each batch size.

    """

    n_outputs: int
    channels_last: bool = False
    is_convolutional: ClassVar[bool] = True
    state_is_weights: ClassVar[bool] = False
    autocast: torch.dtype | None = None
    compiles_evaluation: bool = False
    compiles_training: bool = False
    uses_cuda_graphs: bool = False

    def features(self, x: Tensor) -> Tensor:
        """Return the features, (N, *input_shape) -> (N, n_outputs)."""
        raise NotImplementedError

    def stages(self) -> dict[str, nn.Module]:
        """Return by name, first to last, the modules that return one vector for every token or position.

        (N, C, H, W) or (N, H, W, C) for a grid, (N, T, C) for tokens. None where there is but one vector.
        """
        return {}

    def forward(self, x: Tensor) -> Tensor:
        compiles = self.compiles_training if self.training else self.compiles_evaluation
        return self._compiled_features(x) if compiles else self.features(x)

    def __call__(self, x: Tensor) -> Tensor:
        if self.autocast is None:
            return super().__call__(x)
        with torch.autocast(x.device.type, self.autocast):
            return super().__call__(x).float()

    def _compiled_features(self, x: Tensor) -> Tensor:
        from torch._dynamo.exc import FailOnRecompileLimitHit

        graphs = self.training and self.uses_cuda_graphs
        try:
            z = _compiled(graphs)(self, x)
        except FailOnRecompileLimitHit:  # who made the run compile looks at these, and says so
            self.compiles_evaluation = self.compiles_training = False
            return self.features(x)
        return z.clone() if graphs else z  # the next replay overwrites it


@cache
def _compiled(graphs: bool) -> Callable[[FeaturizerModule, Tensor], Tensor]:
    """Return the compiled forward of any featurizer: copies, and the runs of one process, share what it compiles."""
    import torch._dynamo.config as settings

    settings.recompile_limit = _GRAPHS
    settings.fail_on_recompile_limit_hit = True  # or it would go on uncompiled, and nobody would know
    return torch.compile(_features, dynamic=not graphs, mode="reduce-overhead" if graphs else None)


def _features(featurizer: FeaturizerModule, x: Tensor) -> Tensor:
    return featurizer.features(x)

"""What every featurizer has."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class FeaturizerModule(nn.Module):
    """A network whose output is (N, n_outputs).

    Attributes:
        autocast: dtype of mixed precision, BatchFormer included; None for none. The output is float32 either way,
            so that classifiers, losses and penalties are.

    """

    n_outputs: int
    is_convolutional: ClassVar[bool] = True
    autocast: torch.dtype | None = None
    _compiled: Callable[[Tensor], Tensor] | None = None

    def compile_evaluation(self, on: bool) -> None:
        """From now on run a compiled forward in evaluation mode, for batches of any size, or the plain one again."""
        self._compiled = torch.compile(self.forward, dynamic=True) if on else None

    def __call__(self, x: Tensor) -> Tensor:
        """Run the network and its hooks, of which evaluation has none to run."""
        forward = super().__call__ if self.training or self._compiled is None else self._compiled
        if self.autocast is None:
            return forward(x)
        with torch.autocast(x.device.type, self.autocast):
            return forward(x).float()

    def __getstate__(self) -> dict[str, Any]:
        # A copy compiles for itself: the compiled forward is of this module's weights.
        return {name: value for name, value in super().__getstate__().items() if name != "_compiled"}

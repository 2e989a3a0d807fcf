"""What every featurizer has."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor, nn

# Of one forward, for batches of different sizes, precisions and modes of all runs of a worker.
_GRAPHS = 64


Stage = Callable[[Tensor], Tensor]
# Sees the feature maps that a stage, counted from 0, has computed, and returns those to go on with.
AfterStage = Callable[[int, Tensor], Tensor]


class FeaturizerModule(nn.Module):
    """A network whose output is (N, n_outputs): stages, each of which computes feature maps, and a head.

    Attributes:
        has_stem: whether the first stage is what comes before those that papers count.
        is_auxiliary: true of a featurizer beside the one that a method classifies by; wrappers leave it alone.
        after_stage: what sees the feature maps after every stage; a forward that is seen runs uncompiled.
        autocast: dtype of mixed precision, BatchFormer included; None for none. The output is float32 either way,
            so that classifiers, losses and penalties are.
        compiles_evaluation, compiles_training: whether ``features`` runs compiled in these modes.
        uses_cuda_graphs: whether compiled training replays CUDA graphs, one for each batch size.

    """

    n_outputs: int
    is_convolutional: ClassVar[bool] = True
    has_stem: ClassVar[bool] = False
    is_auxiliary: bool = False
    after_stage: tuple[AfterStage, ...] = ()
    autocast: torch.dtype | None = None
    compiles_evaluation: bool = False
    compiles_training: bool = False
    uses_cuda_graphs: bool = False

    def features(self, x: Tensor) -> Tensor:
        """Return the features, (N, *input_shape) -> (N, n_outputs)."""
        for place, stage in enumerate(self.stages()):
            x = stage(x)
            for look in self.after_stage:
                x = look(place, x)
        return self.head(x)

    def stages(self) -> Sequence[Stage]:
        """Return what computes feature maps one after the other, (N, C, H, W) each; of an MLP, (N, C).

        None in a network that has no such parts: then it computes ``features`` by itself.
        """
        return ()

    def head(self, maps: Tensor) -> Tensor:
        """Return the features of the last feature maps, (N, n_outputs)."""
        raise NotImplementedError

    @contextmanager
    def seen_by(self, look: AfterStage) -> Iterator[None]:
        """Show the feature maps after every stage for a while; who comes last sees them first."""
        before = self.after_stage
        self.after_stage = (look, *before)
        try:
            yield
        finally:
            self.after_stage = before

    def with_maps(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the features and the feature maps after every stage, in float32."""
        maps: list[Tensor] = []

        def keep(place: int, seen: Tensor) -> Tensor:
            maps.append(seen.float())
            return seen

        with self.seen_by(keep):
            return self(x), maps

    def forward(self, x: Tensor) -> Tensor:
        compiles = self.compiles_training if self.training else self.compiles_evaluation
        return self._compiled_features(x) if compiles and not self.after_stage else self.features(x)

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

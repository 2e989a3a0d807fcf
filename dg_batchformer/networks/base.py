"""What every featurizer has."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

# Of one forward, for batches of different sizes, precisions and modes of all runs of a worker.
_GRAPHS = 64


Stage = Callable[[Tensor], Tensor]
# Sees the feature maps that a stage, counted from 0, has computed, and returns those to go on with.
AfterStage = Callable[[int, Tensor], Tensor]
# What the hparam ``freeze`` names beside stages.
NOTHING, WHOLE = "none", "featurizer"


class FeaturizerModule(nn.Module):
    """A network whose output is (N, n_outputs): stages, each of which computes feature maps, and a head.

    Attributes:
        sees_images: false of a network of vectors, whose stages have no positions.
        has_stem: whether the first stage is what comes before those that papers count.
        keeps_grid: whether every stage returns (N, C, H, W).
        channels_last: whether stages with a grid return (N, H, W, C) instead.
        state_is_weights: whether parameters and buffers are all that training changes in it and in modules inside.
        is_auxiliary: true of a featurizer beside the one that a method classifies by; wrappers leave it alone.
        after_stage: what sees the feature maps after every stage.
        inserted: what they go through behind a stage, by its name, once all have seen them.
        autocast: dtype of mixed precision, BatchFormer included; None for none. The output is float32 either way,
            so that classifiers, losses and penalties are.
        compiles_evaluation, compiles_training: whether ``features`` runs compiled in these modes; a forward that is
            seen or inserted into does not.
        uses_cuda_graphs: whether compiled training replays CUDA graphs, one for each batch size.
        frozen: the last stage of the frozen prefix, ``none``, or ``featurizer`` for all of it; see ``freezing``.
        frozen_layers: names of the modules of the frozen prefix, which stay in evaluation mode.
        splits_at_stages: whether the prefix can be computed apart from the rest at every stage; if not, only whole.
        reads_prefix: whether inputs are outputs of the frozen prefix, as the feature cache keeps them.

    """

    n_outputs: int
    sees_images: ClassVar[bool] = True
    state_is_weights: ClassVar[bool] = False
    has_stem: bool = False
    keeps_grid: bool = True
    channels_last: bool = False
    is_auxiliary: bool = False
    after_stage: tuple[AfterStage, ...] = ()
    inserted: Mapping[str, Stage] = {}
    autocast: torch.dtype | None = None
    compiles_evaluation: bool = False
    compiles_training: bool = False
    uses_cuda_graphs: bool = False
    frozen: str = NOTHING
    frozen_layers: tuple[str, ...] = ()
    splits_at_stages: ClassVar[bool] = True
    reads_prefix: bool = False

    def features(self, x: Tensor) -> Tensor:
        """Return the features, (N, *input_shape) -> (N, n_outputs)."""
        return self.rest(x if self.reads_prefix else self.prefix(x))

    @torch.no_grad()
    def prefix(self, x: Tensor) -> Tensor:
        """Return the output of the frozen prefix: feature maps of its last stage, or the pooled features.

        Where nothing is frozen, the images themselves.
        """
        stages = list(self.stages().items())[: self._frozen_stages]
        for place, (name, stage) in enumerate(stages):
            x = stage(x)
            if self.frozen == WHOLE or place < len(stages) - 1:
                x = self.behind(place, name, x)
        return self.head(x) if self.frozen == WHOLE else x

    def cacheable(self, x: Tensor) -> Tensor:
        """Return the output of the frozen prefix in float32, computed in the precision of the run."""
        if self.autocast is None:
            return self.prefix(x)
        with torch.autocast(x.device.type, self.autocast):
            return self.prefix(x).float()

    def rest(self, x: Tensor) -> Tensor:
        """Return the features from the output of the frozen prefix."""
        if self.frozen != WHOLE:
            last = self._frozen_stages - 1
            for place, (name, stage) in enumerate(self.stages().items()):
                if place > last:
                    x = stage(x)
                if place >= last:
                    x = self.behind(place, name, x)
            x = self.head(x)
        return self.drop(x)

    @property
    def _frozen_stages(self) -> int:
        """The number of stages in the frozen prefix."""
        if self.frozen == NOTHING:
            return 0
        names = list(self.stages())
        return len(names) if self.frozen == WHOLE else names.index(self.frozen) + 1

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all layers but the frozen ones, which stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen_layers:
            self.get_submodule(name).training = False
        return self

    def stages(self) -> Mapping[str, Stage]:
        """Return by name what computes feature maps one after the other.

        (N, C, H, W) each, or (N, H, W, C); of a transformer, (N, tokens, C); of an MLP, (N, C). None in a network that
        has no such parts: then it computes ``features`` by itself.
        """
        return {}

    def behind(self, place: int, name: str, maps: Tensor) -> Tensor:
        """Return the feature maps to go on with behind a stage, from those that it has computed."""
        for look in self.after_stage:
            maps = look(place, maps)
        return self.inserted[name](maps) if name in self.inserted else maps

    def channel_dim(self, maps: Tensor) -> int:
        """Return the dimension of feature maps that counts channels."""
        return 1 if maps.ndim == 4 and not self.channels_last else maps.ndim - 1

    def head(self, maps: Tensor) -> Tensor:
        """Return the features of the last feature maps, (N, n_outputs)."""
        raise NotImplementedError

    def drop(self, z: Tensor) -> Tensor:
        """Return the features with dropout, where the network has some behind its head."""
        return z

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
        is_changed = self.after_stage or self.inserted
        return self._compiled_features(x) if compiles and not is_changed else self.features(x)

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

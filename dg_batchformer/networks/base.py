"""Base class of all featurizers."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from dg_batchformer.hparams import NOTHING, WHOLE
from dg_batchformer.networks.compilation import compile_errors, compiled

Stage = Callable[[Tensor], Tensor]
# (stage index, feature maps) -> feature maps: sees the output of a stage, and may replace it.
AfterStage = Callable[[int, Tensor], Tensor]


class FeaturizerModule(nn.Module):
    """A network with output (N, n_outputs): a sequence of stages, which compute feature maps, and a head.

    Attributes:
        sees_images: whether inputs are images; the stages of a network on vectors have no positions.
        has_stem: whether the first stage is a stem, which papers do not count as a stage.
        keeps_grid: whether every stage returns (N, C, H, W).
        channels_last: whether stages with a grid return (N, H, W, C) instead.
        state_is_weights: whether training changes nothing but parameters and buffers.
        is_auxiliary: whether updates classify with another featurizer, as with an oracle or an average; wrappers
            ignore it.
        after_stage: hooks called with the feature maps after every stage.
        inserted: modules applied to the output of a stage, by stage name, after the hooks.
        autocast: dtype of mixed precision, which includes BatchFormer, or None. The output is always float32, and so
            are classifiers, losses and penalties.
        compiles_evaluation, compiles_training: whether ``features`` is compiled in these modes; a forward with hooks
            or inserted modules never is.
        uses_cuda_graphs: whether compiled training replays CUDA graphs, one per batch size.
        frozen: the last stage of the frozen prefix, ``none``, or ``featurizer`` for all stages; see ``freezing``.
        frozen_layers: names of the modules in the frozen prefix, which stay in evaluation mode.
        frozen_parameters: names of the parameters in the frozen prefix.
        fixed: names of the parameters that never train: those of the frozen prefix, and those that ``tune`` leaves out.
        held: names of the parameters that do not train for now, but will later; see ``hold``.
        held_layers: names of the modules that stay in evaluation mode while parameters are held.
        lr_scales: learning rate of parameters over that of the last stage, by name; 1 for those that are missing.
        splits_at_stages: whether the prefix can be computed separately up to any stage; if not, only as a whole.
        reads_prefix: whether inputs are outputs of the frozen prefix, as the feature cache stores them.

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
    frozen_parameters: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    held_layers: tuple[str, ...] = ()
    lr_scales: Mapping[str, float] = {}
    splits_at_stages: ClassVar[bool] = True
    reads_prefix: bool = False

    def features(self, x: Tensor) -> Tensor:
        """Compute features: (N, *input_shape) -> (N, n_outputs)."""
        return self.rest(x if self.reads_prefix else self.prefix(x))

    def prefix(self, x: Tensor) -> Tensor:
        """Compute the frozen prefix: the feature maps of its last stage, or the pooled features if all is frozen.

        Returns x if nothing is frozen. Gradients pass to inputs that need them, such as those with a learned channel.
        """
        stages = list(self.stages().items())[: self._frozen_stages]
        with torch.set_grad_enabled(x.requires_grad and torch.is_grad_enabled()):
            for place, (name, stage) in enumerate(stages):
                x = stage(x)
                if self.frozen == WHOLE or place < len(stages) - 1:
                    x = self.behind(place, name, x)
            return self.head(x) if self.frozen == WHOLE else x

    def cacheable(self, x: Tensor) -> Tensor:
        """Compute the frozen prefix in the precision of the run, and return it in float32."""
        if self.autocast is None:
            return self.prefix(x)
        with torch.autocast(x.device.type, self.autocast):
            return self.prefix(x).float()

    def rest(self, x: Tensor) -> Tensor:
        """Compute features from the output of the frozen prefix."""
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
        """Number of stages in the frozen prefix."""
        if self.frozen == NOTHING:
            return 0
        names = list(self.stages())
        return len(names) if self.frozen == WHOLE else names.index(self.frozen) + 1

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all layers except frozen and held ones, which stay in evaluation mode."""
        super().train(mode)
        for name in (*self.frozen_layers, *self.held_layers):
            self.get_submodule(name).training = False
        return self

    def hold(self) -> None:
        """Stop training for a while, as if frozen whole: no gradients, and evaluation mode; BatchFormer still trains.

        Call it before every update that is held: parameters of a resumed run are open again.
        """
        names = self.held or tuple(
            name
            for name, parameter in self.named_parameters()
            if parameter.requires_grad and name.partition(".")[0] != "batchformer"
        )
        if not names or not self.get_parameter(names[0]).requires_grad:
            return
        for name in names:
            self.get_parameter(name).requires_grad_(False)
        self.held, self.held_layers = names, tuple(self.layer_names())
        self.train(self.training)

    def release(self) -> None:
        """Train again after ``hold``."""
        if not self.held:
            return
        for name in self.held:
            self.get_parameter(name).requires_grad_(True)
        self.held, self.held_layers = (), ()
        self.train(self.training)

    def layer_names(self) -> list[str]:
        """Return the names of all modules except BatchFormer and the dropout behind the features."""
        names = [name for name, _ in self.named_modules()]
        return [name for name in names if name not in ("", "dropout") and name.partition(".")[0] != "batchformer"]

    def stages(self) -> Mapping[str, Stage]:
        """Return the stages by name, in order; each computes feature maps from those of the previous one.

        Feature maps are (N, C, H, W) or (N, H, W, C), (N, tokens, C) for transformers, and (N, C) for MLPs. A network
        without stages overrides ``features``.
        """
        return {}

    def behind(self, place: int, name: str, maps: Tensor) -> Tensor:
        """Apply the hooks and the inserted module to the output of a stage."""
        for look in self.after_stage:
            maps = look(place, maps)
        return self.inserted[name](maps) if name in self.inserted else maps

    def channel_dim(self, maps: Tensor) -> int:
        """Return the channel dimension of feature maps."""
        return 1 if maps.ndim == 4 and not self.channels_last else maps.ndim - 1

    def head(self, maps: Tensor) -> Tensor:
        """Pool the last feature maps to features (N, n_outputs)."""
        raise NotImplementedError

    def drop(self, z: Tensor) -> Tensor:
        """Apply dropout to the features, if the network has any after its head."""
        return z

    @contextmanager
    def seen_by(self, look: AfterStage) -> Iterator[None]:
        """Call ``look`` after every stage inside the context; the hook added last runs first."""
        before = self.after_stage
        self.after_stage = (look, *before)
        try:
            yield
        finally:
            self.after_stage = before

    def with_maps(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute features, and collect the feature maps of every stage in float32."""
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
        graphs = self.training and self.uses_cuda_graphs
        if self.training and not graphs:
            torch._dynamo.maybe_mark_dynamic(x, 0)
        try:
            z = compiled_features(self.training, graphs)(self, x)
        except compile_errors():  # the caller checks these attributes and logs it
            self.compiles_evaluation = self.compiles_training = False
            return self.features(x)
        return z.clone() if graphs else z  # the next replay overwrites it


@cache
def compiled_features(training: bool, graphs: bool) -> Callable[[FeaturizerModule, Tensor], Tensor]:
    """Return the compiled forward; all featurizers of a process share its compiled graphs.

    Runs of a sweep train with different batch sizes, so training is compiled for all of them, unless it replays graphs.
    Evaluation has one batch size, and is compiled for it; for any size only if another one is needed. Each has a
    function of its own, as PyTorch remembers for each which sizes vary.
    """
    features = _features_in_training if training else _features_in_evaluation
    return compiled(features, dynamic=False if graphs else None, mode="reduce-overhead" if graphs else None)


def _features_in_training(featurizer: FeaturizerModule, x: Tensor) -> Tensor:
    return featurizer.features(x)


def _features_in_evaluation(featurizer: FeaturizerModule, x: Tensor) -> Tensor:
    return featurizer.features(x)

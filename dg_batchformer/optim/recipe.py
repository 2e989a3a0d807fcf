"""Recipe: the hparams by which every optimizer of a run is built and stepped; the defaults are DomainBed's."""

from collections.abc import Callable, Mapping
from math import cos, pi
from typing import Any, NamedTuple, Self
from weakref import WeakSet

from torch.optim import SGD, Adam, AdamW, Optimizer

from dg_batchformer.hparams import HParam
from dg_batchformer.networks.tuning import ALL, HEAD_THEN_ALL

_KINDS: dict[str, type[Optimizer]] = {"adam": Adam, "adamw": AdamW, "sgd": SGD}
_FUSED = (Adam, AdamW)
_BUILT: WeakSet[Optimizer] = WeakSet()  # those that follow a recipe
CONSTANT = "constant"
# The learning rate over its peak, from the share of the updates behind the warm-up that is done: 0 to below 1.
_SCHEDULES: dict[str, Callable[[float], float]] = {
    CONSTANT: lambda done: 1.0,
    "cosine": lambda done: (1 + cos(pi * done)) / 2,
    "linear": lambda done: 1 - done,
    "step": lambda done: 1.0 if done < 0.5 else 0.1,
}


def recipe_search_space() -> dict[str, HParam]:
    """Return the hparams of a recipe for every kind of input; none is drawn."""
    return {
        "optimizer": HParam("adam", about="of every network", choices=tuple(_KINDS)),
        "momentum": HParam(0.9, about="of sgd", low=0, high=0.9999),
        "schedule": HParam(
            CONSTANT,
            about="learning rate after warm-up; step: a tenth in the second half",
            choices=tuple(_SCHEDULES),
        ),
        "warmup_steps": HParam(0, about="updates over which the learning rate rises to its peak", low=0),
        "head_lr_scale": HParam(1.0, about="learning rate of the head relative to lr; 0 freezes it", low=0),
        "gradient_clip": HParam(0.0, about="maximum gradient norm per optimizer; 0 disables clipping", low=0),
        "label_smoothing": HParam(0.0, about="of the classification risk", low=0, high=1),
    }


class Recipe(NamedTuple):
    """The hparams of a run that say how it is optimized; those that it does not have are at their defaults."""

    optimizer: str = "adam"
    momentum: float = 0.9
    schedule: str = CONSTANT
    warmup_steps: int = 0
    head_lr_scale: float = 1.0
    gradient_clip: float = 0.0
    label_smoothing: float = 0.0
    tune: str = ALL
    head_steps: int = 0

    @classmethod
    def of(cls, hparams: Mapping[str, Any]) -> Self:
        """Read the recipe of a run."""
        return cls(**{name: hparams[name] for name in cls._fields if name in hparams})

    @property
    def changes_lr(self) -> bool:
        """Whether the learning rate depends on the step."""
        return self.schedule != CONSTANT or self.warmup_steps > 0

    @property
    def acts_on_steps(self) -> bool:
        """Whether an optimizer step is more than the optimizer's own."""
        return self.changes_lr or self.gradient_clip > 0

    @property
    def of_optimizers(self) -> list[str]:
        """Names of hparams with other values than the default, which only optimizers and risks of ours follow."""
        changed = {name for name, value in self._asdict().items() if value != self._field_defaults[name]}
        return sorted(changed - {"momentum", "tune", "head_steps"})

    def lr_factor(self, step: int, steps: int) -> float:
        """Return the learning rate of an update over its peak.

        It rises linearly over the warm-up, as ``(step + 1) / warmup_steps``; then PyTorch's schedule of that name
        takes the remaining updates.

        Args:
            step: counted from 0. steps: of the run.

        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return _SCHEDULES[self.schedule]((step - self.warmup_steps) / (steps - self.warmup_steps))

    @property
    def holds_by_turns(self) -> bool:
        """Whether featurizers are held for the first updates."""
        return self.tune == HEAD_THEN_ALL

    def holds_featurizers(self, step: int) -> bool:
        """Whether an update belongs to the phase of ``head_then_all`` that trains the head alone."""
        return self.holds_by_turns and step < self.head_steps

    def build(
        self, groups: list[dict[str, Any]], kind: type[Optimizer] | None, settings: Mapping[str, Any]
    ) -> Optimizer:
        """Build an optimizer.

        Args:
            groups: parameter groups with their ``lr``.
            kind: of a method that asks for one; None takes the recipe's.
            settings: of the optimizer; ``betas``, which only Adam and AdamW have, are left out for SGD.

        """
        settings = dict(settings)
        if kind is None:
            kind = _KINDS[self.optimizer]
            if kind is SGD:
                settings.pop("betas", None)
                settings["momentum"] = self.momentum
        if kind in _FUSED:
            settings["fused"] = True
        if self.changes_lr:
            groups = [{**group, "initial_lr": group["lr"]} for group in groups]
        optimizer = kind(groups, **settings)
        _BUILT.add(optimizer)
        return optimizer


def follows_recipe(optimizer: Optimizer) -> bool:
    """Whether an optimizer was built by ``Recipe.build``."""
    return optimizer in _BUILT

"""Algorithm, the base class of all methods: DomainBed's interface (update, predict), extended for wrappers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from dg_batchformer.errors import InputError
from dg_batchformer.hparams import HParam
from dg_batchformer.networks.batchformer import pairing, without_batchformer
from dg_batchformer.networks.tuning import trains_head_only
from dg_batchformer.optim.groups import featurizers, parameter_groups
from dg_batchformer.optim.recipe import Recipe

if TYPE_CHECKING:
    from dg_batchformer.algorithms.criterion import Criterion

Minibatches = list[tuple[Tensor, Tensor]]
Metrics = dict[str, float | Tensor]


class Validation(NamedTuple):
    """Performance on the held-out splits of the training environments, averaged over environments.

    ``loss`` is the mean cross-entropy; ``accuracy`` is in [0, 1].
    """

    loss: float
    accuracy: float


class TrainingSet(NamedTuple):
    """Facts of a run for methods that weigh classes or change during training.

    ``class_counts`` (environments, num_classes) holds numbers of training images, ``steps`` is the number of updates.
    """

    class_counts: Tensor
    steps: int


class Algorithm(nn.Module):
    """Base class of domain-generalization algorithms, which own their networks and optimizers.

    Args:
        input_shape: (channels, height, width) or (features,).
        num_classes: number of classes.
        num_domains: number of training environments, at least ``min_domains``.
        hparams: of the run; see ``search_space``.

    """

    registered = False
    min_domains: ClassVar[int] = 1  # minimal number of training environments
    compares_domains: ClassVar[bool] = False  # whether its terms vanish with one environment, leaving ERM
    shapes_features: ClassVar[bool] = False  # whether its terms only train the featurizer, leaving ERM if it is frozen
    batch_dependent: ClassVar[bool] = False  # whether predictions depend on the rest of the batch by design
    needs_pixels: ClassVar[str] = ""  # why it cannot train on cached features; '' if it can
    differentiates_twice: ClassVar[bool] = False  # through a featurizer, which torch.compile does not support
    trains: ClassVar[bool] = True  # whether updates change anything
    trains_clones: ClassVar[bool] = False  # short-lived copies, each of which would need new CUDA graphs
    attends: ClassVar[str] = "joint"  # BatchFormer's scope; ``per_domain`` if domains are forwarded one by one
    streams: int = 1  # 2 with BatchFormer: minibatches are [n plain rows; n twin rows]
    finished: bool = False  # set to True to stop training early
    lr_factor: float = 0.0  # learning rates of this update over their peaks, if the recipe schedules them

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__()
        self.check_domains(num_domains)
        self.hparams = hparams
        self.num_domains = num_domains
        self.criterion: Criterion | None = None  # of ``risk``; None is the mean cross-entropy
        self.summary: dict[str, float] = {}

    @classmethod
    def check_domains(cls, num_domains: int) -> None:
        """Raise InputError if there are fewer training environments than the method needs."""
        if num_domains < cls.min_domains:
            raise InputError(
                f"{cls.__name__} needs at least {cls.min_domains} training environments, got {num_domains}; "
                "hold out fewer, or train on more"
            )

    @classmethod
    def has_nothing_to_compare(cls, num_domains: int) -> bool:
        """Return whether the method compares training environments, but there is only one."""
        return cls.compares_domains and num_domains == 1

    @classmethod
    def has_nothing_to_shape(cls, hparams: Mapping[str, Any]) -> bool:
        """Return whether the terms of the method only train the featurizer, but all of it is frozen."""
        return cls.shapes_features and trains_head_only(hparams)

    def check_trains_head(self) -> None:
        """Raise InputError for ``head_lr_scale`` 0, for methods that train the classifier at a rate of its own."""
        if Recipe.of(self.hparams).head_lr_scale == 0:
            raise InputError(
                f"{type(self).__name__} trains the classifier separately, but head_lr_scale 0 freezes it; set "
                "head_lr_scale above 0, or use another algorithm"
            )

    def check_pairing(self) -> None:
        """Raise InputError if the attached BatchFormer would not work correctly with this algorithm."""

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        """Return the hparams of this algorithm for a dataset, besides the common ones."""
        return {}

    def prepare(self, training: TrainingSet) -> None:
        """Take note of the training set before the first update; a run calls it once, also when it resumes."""

    def materialize(self, step: int) -> None:
        """Create the parts that only updates create, before the state of a checkpoint is loaded; most have none.

        Args:
            step: at which the run resumes.

        """

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        """Take one optimization step.

        Args:
            minibatches: one (x, y) per training environment, in dataset order, of equal size:
                x ``(N, *input_shape)``, y (N,) class indices.
            unlabeled: x of test environments, for domain adaptation.

        Returns metrics as numbers or detached 0-dim tensors; the loop averages each between evaluations.

        """
        raise NotImplementedError

    def begin_update(self, step: int, steps: int) -> None:
        """Prepare an update as the recipe says: learning rates, and which part trains.

        Both follow from the step alone, so a run that is resumed needs no state of them.

        Args:
            step: counted from 0. steps: of the run.

        """
        recipe = Recipe.of(self.hparams)
        if recipe.changes_lr:
            self.lr_factor = recipe.lr_factor(step, steps)
        if recipe.holds_by_turns:
            for featurizer in featurizers(self):
                if recipe.holds_featurizers(step):
                    featurizer.hold()
                else:
                    featurizer.release()

    def predict(self, x: Tensor) -> Tensor:
        """Compute logits: ``(N, *input_shape)`` -> (N, num_classes)."""
        raise NotImplementedError

    @property
    def predictor(self) -> nn.Module:
        """The module behind ``predict``, whose weights are averaged, kept and tested."""
        network = self.network
        assert isinstance(network, nn.Module)
        return network

    def begin_from(self, state: Mapping[str, Tensor]) -> None:
        """Load initial weights into the predictor and its copies; called before the first update."""
        without_batchformer(self.predictor).load_state_dict(state)

    def observe(self, step: int, validation: Validation, evaluate: Callable[[nn.Module], Validation]) -> None:
        """Receive the validation result of the current model after an update.

        Args:
            step: of the update.
            validation: of the current model.
            evaluate: validates a given module, such as the algorithm with other weights.

        """

    def finalize(self, batches: Iterable[Tensor]) -> "Algorithm":
        """Convert to the model that the method returns, after the last update; ``summary`` gets details.

        Args:
            batches: training inputs x, ``(N, *input_shape)``, to re-estimate BatchNorm statistics.

        """
        return self

    def new_optimizer(self, *modules: nn.Module, kind: type[Optimizer] | None = None, **settings: Any) -> Optimizer:
        """Build an optimizer for modules as the recipe says; ``lr`` and ``weight_decay`` default to those of the run.

        BatchFormer encoders have ``lr * bf_lr_scale``. Stages before the last are scaled by ``layer_decay``. Parameters
        outside featurizers have ``lr * head_lr_scale``, unless the method gives them a learning rate of their own. All
        optimizers of an algorithm must be built here, including those of clones and restarts.

        Args:
            kind: of optimizer, for a method that needs a certain one; None takes the recipe's.

        """
        recipe = Recipe.of(self.hparams)
        has_own_lr = "lr" in settings and not any(featurizers(module) for module in modules)
        settings = {"lr": self.hparams["lr"], "weight_decay": self.hparams["weight_decay"], **settings}
        head_lr_scale = 1.0 if has_own_lr else recipe.head_lr_scale
        groups = parameter_groups(modules, settings["lr"], head_lr_scale, self.hparams.get("bf_lr_scale", 1.0))
        optimizer = recipe.build(groups, kind, settings)
        if recipe.acts_on_steps:
            optimizer.register_step_pre_hook(self._before_optimizer_step)
        return optimizer

    def _before_optimizer_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Set the learning rates of the present update, and clip gradients by their norm over the optimizer."""
        recipe = Recipe.of(self.hparams)
        if recipe.changes_lr:
            if self.lr_factor == 0:
                raise RuntimeError(f"schedule {recipe.schedule} needs begin_update before every update")
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * self.lr_factor
        if recipe.gradient_clip:
            clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], recipe.gradient_clip)

    def split_streams(self, rows: Tensor, num_domains: int = 1) -> tuple[Tensor, Tensor | None]:
        """Split rows into plain rows and twins: (num_domains * 2 * n, ...) -> two of (num_domains * n, ...).

        Without BatchFormer, return the rows and None.
        """
        if self.streams == 1:
            return rows, None
        streams = rows.unflatten(0, (num_domains, 2, -1))
        return streams[:, 0].flatten(0, 1), streams[:, 1].flatten(0, 1)

    def join_streams(self, plain: Tensor, twin: Tensor, num_domains: int = 1) -> Tensor:
        """Join plain rows and twins, the inverse of ``split_streams``."""
        streams = [rows.unflatten(0, (num_domains, -1)) for rows in (plain, twin)]
        return torch.cat(streams, dim=1).flatten(0, 1)

    def in_both_streams(self, rows: Tensor, num_domains: int = 1) -> Tensor:
        """Repeat plain rows for their twins; no effect without BatchFormer."""
        return rows if self.streams == 1 else self.join_streams(rows, rows, num_domains)

    def risk(self, logits: Tensor, y: Tensor, num_domains: int = 1, env: int | Tensor | None = None) -> Tensor:
        """Compute the mean cross-entropy of minibatches; with BatchFormer, the weighted mean of both streams.

        Wrappers that act on the risk replace the cross-entropy.

        Args:
            logits: (rows, num_classes), where rows are ``num_domains`` complete minibatches.
            y: (rows,) class indices.
            num_domains: number of minibatches.
            env: position among the training environments of the environment of a single minibatch, or of every label
                of a stream, (rows,), if it is not that of the label's minibatch.

        """
        plain_risk = self.plain_risk(logits, y, num_domains, env)
        _, twin = self.split_streams(logits, num_domains)
        if twin is None:
            return plain_risk
        weight = self.hparams["bf_loss_weight"] if self.hparams["bf_shared"] else 1.0
        labels, _ = self.split_streams(y, num_domains)
        return (1 - weight) * plain_risk + weight * self._mean_loss(twin, labels, num_domains, env)

    def plain_risk(self, logits: Tensor, y: Tensor, num_domains: int = 1, env: int | Tensor | None = None) -> Tensor:
        """Compute the mean cross-entropy of plain rows only; arguments as in ``risk``."""
        plain, _ = self.split_streams(logits, num_domains)
        labels, _ = self.split_streams(y, num_domains)
        return self._mean_loss(plain, labels, num_domains, env)

    def _mean_loss(self, logits: Tensor, y: Tensor, num_domains: int, env: int | Tensor | None) -> Tensor:
        """Compute the mean loss of one stream; arguments as in ``risk``."""
        if self.criterion is None:
            return F.cross_entropy(logits, y, label_smoothing=Recipe.of(self.hparams).label_smoothing)
        self.criterion.was_used = True
        if env is not None:
            return self.criterion(logits, y, env if isinstance(env, Tensor) else torch.full_like(y, env))
        return self.criterion(logits, y, domain_labels(num_domains, y) if num_domains == self.num_domains else None)

    def forward_plain(self, module: nn.Module, minibatches: Minibatches) -> Tensor:
        """Run a module on the plain rows of all environments, without BatchFormer: (environments * n, ...).

        Use this for separate steps on plain features. With unused twins, the encoder would get zero gradients, and
        Adam's momentum would move it.
        """
        plain, _ = self.split_streams(torch.cat([x for x, _ in minibatches]), len(minibatches))
        with pairing(module, None):
            return module(plain)

    def risks(self, logits: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """Compute the risk of every environment, (environments,), from lists of logits and labels."""
        return torch.stack([self.risk(z, y, env=env) for env, (z, y) in enumerate(zip(logits, labels, strict=True))])


def forward_domains(module: nn.Module, minibatches: Minibatches) -> list[Tensor]:
    """Run a module once on all environments, so that attention spans them; return one output per environment."""
    outputs = module(torch.cat([x for x, _ in minibatches]))
    return list(outputs.split([len(x) for x, _ in minibatches]))


def domain_labels(num_domains: int, rows: Tensor) -> Tensor:
    """Return the environment index of every row: (num_domains * n, ...) -> (num_domains * n,)."""
    return torch.arange(num_domains, device=rows.device).repeat_interleave(len(rows) // num_domains)


def class_counts(y: Tensor, num_classes: int) -> Tensor:
    """Count the samples of every class: (N,) -> (num_classes,); unlike bincount, without waiting for the device."""
    return (y[:, None] == torch.arange(num_classes, device=y.device)).sum(dim=0)


def descend(optimizer: Optimizer, loss: Tensor) -> None:
    """Take one optimizer step on a loss."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

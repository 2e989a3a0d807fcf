"""Algorithm: what learns. DomainBed's protocol (update, predict), and what wrappers and the loop rely on."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from dg_batchformer.errors import InputError
from dg_batchformer.hparams import HParam
from dg_batchformer.networks.batchformer import batchformers, pairing, without_batchformer

Minibatches = list[tuple[Tensor, Tensor]]
Metrics = dict[str, float | Tensor]


class Validation(NamedTuple):
    """A model on the held-out splits of the training environments: means over environments.

    ``loss`` is the mean cross-entropy, ``accuracy`` a fraction.
    """

    loss: float
    accuracy: float


class Algorithm(nn.Module):
    """A domain-generalization algorithm: owns its networks and optimizers and does one update at a time.

    Args:
        input_shape: (channels, height, width) or (features,).
        num_classes: size of the logits.
        num_domains: training environments, at least ``min_domains``.
        hparams: the values of this run; see ``search_space``.

    """

    registered = False
    min_domains: ClassVar[int] = 1  # training environments without which the method means nothing
    compares_domains: ClassVar[bool] = False  # whether it adds what vanishes on one: it then trains much as ERM does
    batch_dependent: ClassVar[bool] = False  # whether a prediction depends on the other samples, by definition
    needs_pixels: ClassVar[str] = ""  # why it cannot train on the cached features of a frozen prefix; '' where it can
    differentiates_twice: ClassVar[bool] = False  # through a featurizer, which PyTorch cannot do compiled
    trains_clones: ClassVar[bool] = False  # copies that live for one update: CUDA graphs would be recorded for each
    attends: ClassVar[str] = "joint"  # under BatchFormer, to all domains, or where forwarded alone ``per_domain``
    streams: int = 1  # BatchFormer sets 2: every minibatch is then [n plain rows; n twin rows]
    finished: bool = False  # True ends training early

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__()
        self.check_domains(num_domains)
        self.hparams = hparams
        self.summary: dict[str, float] = {}

    @classmethod
    def check_domains(cls, num_domains: int) -> None:
        """Raise InputError for fewer training environments than the method needs."""
        if num_domains < cls.min_domains:
            raise InputError(
                f"{cls.__name__} needs at least {cls.min_domains} training environments, got {num_domains}; "
                "hold out fewer, or train on more"
            )

    @classmethod
    def has_nothing_to_compare(cls, num_domains: int) -> bool:
        """Return whether a method that compares training environments gets a single one."""
        return cls.compares_domains and num_domains == 1

    def check_pairing(self) -> None:
        """Raise InputError where BatchFormer, whose layer is there already, would come out wrong around this."""

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        """Return the hparams that this algorithm reads beyond the common ones, for a dataset."""
        return {}

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        """Take one optimization step.

        Args:
            minibatches: one (x, y) per training environment, in dataset order, of equal size:
                x ``(N, *input_shape)``, y (N,) class indices.
            unlabeled: x of test environments, for domain adaptation.

        Returns numbers or 0-dim detached tensors; the loop averages each key between two evaluations.

        """
        raise NotImplementedError

    def predict(self, x: Tensor) -> Tensor:
        """Return the logits, ``(N, *input_shape)`` -> (N, num_classes)."""
        raise NotImplementedError

    @property
    def predictor(self) -> nn.Module:
        """Exactly what ``predict`` uses: what is averaged, kept and tested."""
        network = self.network
        assert isinstance(network, nn.Module)
        return network

    def begin_from(self, state: Mapping[str, Tensor]) -> None:
        """Take over initial weights of the predictor, and whatever was copied from it; before the first update."""
        without_batchformer(self.predictor).load_state_dict(state)

    def observe(self, step: int, validation: Validation, evaluate: Callable[[nn.Module], Validation]) -> None:
        """Learn how the current model validates after the update of a step.

        Args:
            evaluate: validates another state of the algorithm that is passed to it.

        """

    def finalize(self, batches: Iterable[Tensor]) -> "Algorithm":
        """Turn into the model that the method returns, after the last update; ``summary`` says how.

        Args:
            batches: training inputs x, ``(N, *input_shape)``, for what has to be re-estimated.

        """
        return self

    def new_optimizer(self, *modules: nn.Module, kind: type[Optimizer] = Adam, **settings: Any) -> Optimizer:
        """Build the optimizer of some modules: ``lr`` and ``weight_decay`` of the run unless given.

        Encoders of BatchFormer get a group of their own, at ``lr * bf_lr_scale``. Every optimizer of an
        algorithm comes from here, also those of clones and restarts.
        """
        settings = {"lr": self.hparams["lr"], "weight_decay": self.hparams["weight_decay"], **settings}
        if kind is Adam:
            settings["fused"] = True
        encoders = {id(p) for module in modules for layer in batchformers(module) for p in layer.parameters()}
        parameters = list(dict.fromkeys(p for module in modules for p in module.parameters()))
        groups: list[dict[str, Any]] = [{"params": [p for p in parameters if id(p) not in encoders]}]
        if encoders:
            encoder_lr = settings["lr"] * self.hparams["bf_lr_scale"]
            groups.append({"params": [p for p in parameters if id(p) in encoders], "lr": encoder_lr})
        return kind(groups, **settings)

    def split_streams(self, rows: Tensor, num_domains: int = 1) -> tuple[Tensor, Tensor | None]:
        """Take plain rows and twins apart: (num_domains * 2 * n, ...) -> two of (num_domains * n, ...).

        Without BatchFormer, the rows and None.
        """
        if self.streams == 1:
            return rows, None
        streams = rows.unflatten(0, (num_domains, 2, -1))
        return streams[:, 0].flatten(0, 1), streams[:, 1].flatten(0, 1)

    def in_both_streams(self, rows: Tensor, num_domains: int = 1) -> Tensor:
        """Repeat plain rows for their twins, as ``split_streams`` takes apart; without BatchFormer, return the rows."""
        return torch.cat([rows.unflatten(0, (num_domains, -1))] * self.streams, dim=1).flatten(0, 1)

    def risk(self, logits: Tensor, y: Tensor, num_domains: int = 1) -> Tensor:
        """Return the mean cross-entropy of minibatches; under BatchFormer both streams, weighted.

        Args:
            logits: (rows, num_classes). y: (rows,). Rows are ``num_domains`` whole minibatches.

        """
        plain_risk = self.plain_risk(logits, y, num_domains)
        _, twin = self.split_streams(logits, num_domains)
        if twin is None:
            return plain_risk
        weight = self.hparams["bf_loss_weight"] if self.hparams["bf_shared"] else 1.0
        labels, _ = self.split_streams(y, num_domains)
        return (1 - weight) * plain_risk + weight * F.cross_entropy(twin, labels)

    def plain_risk(self, logits: Tensor, y: Tensor, num_domains: int = 1) -> Tensor:
        """Return the mean cross-entropy of plain rows alone, for what must not depend on twins; arguments as risk's."""
        plain, _ = self.split_streams(logits, num_domains)
        labels, _ = self.split_streams(y, num_domains)
        return F.cross_entropy(plain, labels)

    def forward_plain(self, module: nn.Module, minibatches: Minibatches) -> Tensor:
        """Run a module on the plain rows of all environments, without BatchFormer, (environments * n, ...).

        For a step of its own on plain features: through twins that nothing reads, the encoder would get gradients of
        zero, along which Adam moves it again.
        """
        plain, _ = self.split_streams(torch.cat([x for x, _ in minibatches]), len(minibatches))
        with pairing(module, None):
            return module(plain)

    def risks(self, logits: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """Return the risk of every environment, (environments,), from their logits and labels one by one."""
        return torch.stack([self.risk(z, y) for z, y in zip(logits, labels, strict=True)])


def forward_domains(module: nn.Module, minibatches: Minibatches) -> list[Tensor]:
    """Run a module once over all environments, so that attention spans them; return one output for each."""
    outputs = module(torch.cat([x for x, _ in minibatches]))
    return list(outputs.split([len(x) for x, _ in minibatches]))


def domain_labels(num_domains: int, rows: Tensor) -> Tensor:
    """Return the environment of every row of equal minibatches, (num_domains * n, ...) -> (num_domains * n,)."""
    return torch.arange(num_domains, device=rows.device).repeat_interleave(len(rows) // num_domains)


def descend(optimizer: Optimizer, loss: Tensor) -> None:
    """Take one step down a loss."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

"""URM — Krishnamachari et al., 2024: make features uniform with a discriminator that takes noise as real."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.catalog.datasets import has_small_images
from dg_batchformer.hparams import HParam

_ACTIVATIONS: dict[str, tuple[type[nn.Module], float]] = {  # with the lower bound of the noise
    "tanh": (nn.Tanh, -1.0),
    "relu": (nn.ReLU, 0.0),
    "sigmoid": (nn.Sigmoid, 0.0),
}


class URM(ERM):
    """Uniform risk minimization: a discriminator on activated features pushes them toward uniform noise.

    The discriminator sees plain features, after the activation.
    """

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        small = has_small_images(dataset)
        return {
            "urm": HParam("adversarial", about="how features are made uniform", choices=("adversarial",)),
            "urm_adv_lambda": HParam(0.1, lambda rng: rng.uniform(0, 0.2), "weight of the adversarial loss", low=0),
            "urm_discriminator_label_smoothing": HParam(
                0.0, about="label smoothing of the discriminator", low=0, high=0.5
            ),
            "urm_discriminator_optimizer": HParam(
                "adam", about="optimizer of the discriminator", choices=("adam", "sgd")
            ),
            "urm_discriminator_hidden_layers": HParam(
                1, lambda rng: rng.choice([1, 2, 3]), "hidden layers of the discriminator", low=0
            ),
            "urm_generator_output": HParam(
                "tanh", lambda rng: rng.choice(["tanh", "relu"]), "activation of features", choices=tuple(_ACTIVATIONS)
            ),
            "urm_discriminator_lr": HParam(
                1e-3 if small else 5e-5,
                lambda rng: 10 ** (rng.uniform(-5.5, -3.5) if small else rng.uniform(-6, -4.5)),
                "learning rate of the discriminator",
                low=0,
            ),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        activation, self.lowest = _ACTIVATIONS[hparams["urm_generator_output"]]
        self.activation = activation()
        self.network = nn.Sequential(self.featurizer, self.activation, self.classifier)
        layers: list[nn.Module] = [nn.Linear(self.featurizer.n_outputs, 100), nn.LeakyReLU()]
        for _ in range(hparams["urm_discriminator_hidden_layers"]):
            layers += [nn.Linear(100, 100), nn.LeakyReLU()]
        self.discriminator = nn.Sequential(*layers, nn.Linear(100, 1))
        by_sgd = hparams["urm_discriminator_optimizer"] == "sgd"
        kind, settings = (SGD, {"momentum": 0.9}) if by_sgd else (Adam, {})
        lr = hparams["urm_discriminator_lr"]
        self.discriminator_opt = self.new_optimizer(self.discriminator, kind=kind, lr=lr, **settings)

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        num_domains = len(minibatches)
        y = torch.cat([y for _, y in minibatches])
        z = self.activation(self.featurizer(torch.cat([x for x, _ in minibatches])))
        plain, _ = self.split_streams(z, num_domains)
        risk = self.risk(self.classifier(z), y, num_domains)
        loss = risk + self.hparams["urm_adv_lambda"] * self._called(plain, real=True)
        descend(self.optimizer, loss)

        features = plain.detach()
        noise = self.lowest + (1 - self.lowest) * torch.rand_like(features)
        smooth = self.hparams["urm_discriminator_label_smoothing"]
        real = self._called(noise, real=True, smooth=smooth)
        fake = self._called(features, real=False, smooth=smooth)
        descend(self.discriminator_opt, real + self.hparams["urm_adv_lambda"] * fake)
        return {"loss": loss.detach()}

    def _called(self, rows: Tensor, *, real: bool, smooth: float = 0.0) -> Tensor:
        """Compute the discriminator's loss for labeling rows as real or fake: (N, D) -> ()."""
        logits = self.discriminator(rows).squeeze(1)
        target = torch.full_like(logits, float(real))
        if smooth:
            target = target + smooth * torch.rand_like(target) * (-1 if real else 1)
        return F.binary_cross_entropy_with_logits(logits, target)

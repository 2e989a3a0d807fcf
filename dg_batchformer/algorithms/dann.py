"""DANN — Ganin et al., 2016: features from which a discriminator cannot tell the domain."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dg_batchformer.algorithms.base import Algorithm, Metrics, Minibatches, descend
from dg_batchformer.catalog import dataset_facts
from dg_batchformer.hparams import HParam
from dg_batchformer.networks import MLP, Classifier, Featurizer


class DANN(Algorithm):
    """Domain-adversarial networks: updates of the discriminator and of featurizer and classifier take turns.

    The discriminator sees plain features; BatchFormer learns from the classification risk. The features of
    a discriminator update carry no gradient, which upstream computes and throws away.
    """

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        small = dataset_facts(dataset).small

        def lr(rng: Any) -> float:
            return 10 ** (rng.uniform(-4.5, -2.5) if small else rng.uniform(-5, -3.5))

        def decay(rng: Any) -> float:
            return 10 ** rng.uniform(-6, -2)

        default_lr = 1e-3 if small else 5e-5
        return {
            "lr_g": HParam(default_lr, lr, "learning rate of featurizer and classifier", low=0),
            "lr_d": HParam(default_lr, lr, "learning rate of the discriminator", low=0),
            "weight_decay_g": HParam(0.0, None if small else decay, "decay of featurizer and classifier", low=0),
            "weight_decay_d": HParam(0.0, decay, "decay of the discriminator", low=0),
            "lambda": HParam(1.0, lambda rng: 10 ** rng.uniform(-2, 2), "weight of the adversarial loss", low=0),
            "d_steps_per_g_step": HParam(
                1, lambda rng: 2 ** rng.uniform(0, 3), "discriminator updates per other update", low=1
            ),
            "grad_penalty": HParam(
                0.0,
                lambda rng: 10 ** rng.uniform(-2, 1),
                "weight of the discriminator's gradient penalty",
                low=0,
            ),
            "beta1": HParam(0.5, lambda rng: rng.choice([0.0, 0.5]), "first decay rate of the Adams", low=0, high=1),
            "mlp_width": HParam(256, lambda rng: 2 ** rng.uniform(6, 10), "width of the discriminator", low=1),
            "mlp_depth": HParam(3, lambda rng: rng.choice([3, 4, 5]), "layers of the discriminator", low=2),
            "mlp_dropout": HParam(
                0.0, lambda rng: rng.choice([0.0, 0.1, 0.5]), "dropout in the discriminator", low=0, high=1
            ),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.featurizer = Featurizer(input_shape, hparams)
        self.classifier = Classifier(self.featurizer.n_outputs, num_classes, hparams["nonlinear_classifier"])
        self.network = nn.Sequential(self.featurizer, self.classifier)
        self.discriminator = MLP(self.featurizer.n_outputs, num_domains, hparams)
        betas = (hparams["beta1"], 0.9)
        self.disc_opt = self.new_optimizer(
            self.discriminator, lr=hparams["lr_d"], weight_decay=hparams["weight_decay_d"], betas=betas
        )
        self.gen_opt = self.new_optimizer(
            self.network, lr=hparams["lr_g"], weight_decay=hparams["weight_decay_g"], betas=betas
        )
        self.updates = 0

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        self.updates += 1
        d_steps = self.hparams["d_steps_per_g_step"]
        discriminates = self.updates % (1 + d_steps) < d_steps
        with torch.set_grad_enabled(not discriminates):
            z = self.featurizer(torch.cat([x for x, _ in minibatches]))
        disc_loss = self._discriminator_loss(z, num_domains=len(minibatches))
        if discriminates:
            descend(self.disc_opt, disc_loss)
            return {"disc_loss": disc_loss.detach()}
        y = torch.cat([y for _, y in minibatches])
        risk = self.risk(self.classifier(z), y, num_domains=len(minibatches))
        gen_loss = risk - self.hparams["lambda"] * disc_loss
        descend(self.gen_opt, gen_loss)
        return {"gen_loss": gen_loss.detach()}

    def _discriminator_loss(self, z: Tensor, num_domains: int) -> Tensor:
        plain, _ = self.split_streams(z, num_domains)
        if not plain.requires_grad:
            plain = plain.detach().requires_grad_()
        domains = torch.arange(num_domains, device=z.device).repeat_interleave(len(plain) // num_domains)
        losses = F.cross_entropy(self.discriminator(plain), domains, reduction="none")
        gradient = torch.autograd.grad(losses.sum(), plain, create_graph=True)[0]
        return losses.mean() + self.hparams["grad_penalty"] * gradient.square().sum(dim=1).mean()

    def predict(self, x: Tensor) -> Tensor:
        return self.network(x)

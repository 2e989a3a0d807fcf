"""DANN and CDANN — Ganin et al., 2016; Li et al., 2018: features from which a discriminator cannot tell the domain."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dg_batchformer.algorithms.base import Algorithm, Metrics, Minibatches, class_counts, descend, domain_labels
from dg_batchformer.catalog.datasets import has_small_images
from dg_batchformer.hparams import HParam
from dg_batchformer.networks import MLP, Classifier, Featurizer


class DANN(Algorithm):
    """Domain-adversarial networks: alternate updates of the discriminator with those of featurizer and classifier.

    The discriminator sees plain features; BatchFormer is trained by the classification risk.

    Differs from DomainBed: discriminator updates do not compute gradients of the featurizer, which upstream computes
    and discards.
    """

    compares_domains = True
    shapes_features = True

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        small = has_small_images(dataset)

        def lr(rng: Any) -> float:
            return 10 ** (rng.uniform(-4.5, -2.5) if small else rng.uniform(-5, -3.5))

        def decay(rng: Any) -> float:
            return 10 ** rng.uniform(-6, -2)

        default_lr = 1e-3 if small else 5e-5
        return {
            "lr_g": HParam(default_lr, lr, "learning rate of featurizer and classifier", low=0),
            "lr_d": HParam(default_lr, lr, "learning rate of the discriminator", low=0),
            "weight_decay_g": HParam(0.0, None if small else decay, "weight decay of featurizer and classifier", low=0),
            "weight_decay_d": HParam(0.0, decay, "weight decay of the discriminator", low=0),
            "lambda": HParam(1.0, lambda rng: 10 ** rng.uniform(-2, 2), "weight of the adversarial loss", low=0),
            "d_steps_per_g_step": HParam(
                1, lambda rng: 2 ** rng.uniform(0, 3), "discriminator updates per update of the other networks", low=1
            ),
            "grad_penalty": HParam(
                0.0,
                lambda rng: 10 ** rng.uniform(-2, 1),
                "weight of the discriminator's gradient penalty",
                low=0,
            ),
            "beta1": HParam(
                0.5, lambda rng: rng.choice([0.0, 0.5]), "beta1 of the Adam optimizers", low=0, high=0.9999
            ),
            "mlp_width": HParam(256, lambda rng: 2 ** rng.uniform(6, 10), "width of the discriminator", low=1),
            "mlp_depth": HParam(3, lambda rng: rng.choice([3, 4, 5]), "layers of the discriminator", low=2),
            "mlp_dropout": HParam(
                0.0, lambda rng: rng.choice([0.0, 0.1, 0.5]), "dropout in the discriminator", low=0, high=1
            ),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.num_classes = num_classes
        self.featurizer = Featurizer(input_shape, hparams)
        self.classifier = Classifier(self.featurizer.n_outputs, num_classes, hparams["nonlinear_classifier"])
        self.network = nn.Sequential(self.featurizer, self.classifier)
        self.discriminator = MLP(self.featurizer.n_outputs, num_domains, hparams)
        betas = (hparams["beta1"], 0.9)
        self.class_embeddings = self.new_class_embeddings(num_classes)
        self.disc_opt = self.new_optimizer(
            self.discriminator,
            self.class_embeddings,
            lr=hparams["lr_d"],
            weight_decay=hparams["weight_decay_d"],
            betas=betas,
        )
        self.gen_opt = self.new_optimizer(
            self.network, lr=hparams["lr_g"], weight_decay=hparams["weight_decay_g"], betas=betas
        )
        self.updates = 0

    def new_class_embeddings(self, num_classes: int) -> nn.Module:
        """Build the class embeddings for the discriminator; none here."""
        return nn.Identity()

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        self.updates += 1
        d_steps = self.hparams["d_steps_per_g_step"]
        discriminates = self.updates % (1 + d_steps) < d_steps
        with torch.set_grad_enabled(not discriminates):
            z = self.featurizer(torch.cat([x for x, _ in minibatches]))
        y = torch.cat([y for _, y in minibatches])
        disc_loss = self._discriminator_loss(z, y, num_domains=len(minibatches))
        if discriminates:
            descend(self.disc_opt, disc_loss)
            return {"disc_loss": disc_loss.detach()}
        risk = self.risk(self.classifier(z), y, num_domains=len(minibatches))
        gen_loss = risk - self.hparams["lambda"] * disc_loss
        descend(self.gen_opt, gen_loss)
        return {"gen_loss": gen_loss.detach()}

    def _discriminator_loss(self, z: Tensor, y: Tensor, num_domains: int) -> Tensor:
        plain, labels = (self.split_streams(rows, num_domains)[0] for rows in (z, y))
        seen = self.seen_by_discriminator(plain, labels)
        if not seen.requires_grad:
            seen.requires_grad_()
        losses = F.cross_entropy(self.discriminator(seen), domain_labels(num_domains, seen), reduction="none")
        gradient = torch.autograd.grad(losses.sum(), seen, create_graph=True)[0]
        penalty = gradient.square().sum(dim=1).mean()
        return self.weigh(losses, labels) + self.hparams["grad_penalty"] * penalty

    def seen_by_discriminator(self, z: Tensor, y: Tensor) -> Tensor:
        """Return the input of the discriminator from plain features and labels: (N, D), (N,) -> (N, D)."""
        return z

    def weigh(self, losses: Tensor, y: Tensor) -> Tensor:
        """Average the losses of samples: (N,), (N,) -> ()."""
        return losses.mean()

    def predict(self, x: Tensor) -> Tensor:
        return self.network(x)


class CDANN(DANN):
    """Conditional domain-adversarial networks: the discriminator sees the class, and classes have equal weight.

    Differs from DomainBed: class weights are based on all classes, not only on those up to the largest in the batch.
    """

    def new_class_embeddings(self, num_classes: int) -> nn.Module:
        """Build the class embeddings, which are added to the features."""
        return nn.Embedding(num_classes, self.featurizer.n_outputs)

    def seen_by_discriminator(self, z: Tensor, y: Tensor) -> Tensor:
        return z + self.class_embeddings(y)

    def weigh(self, losses: Tensor, y: Tensor) -> Tensor:
        counts = class_counts(y, self.num_classes)
        return (losses / (counts[y] * self.num_classes)).sum()

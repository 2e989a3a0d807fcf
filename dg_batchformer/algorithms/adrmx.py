"""ADRMX — Demirel et al., 2023: subtract domain features from label features, and remix them between samples."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dg_batchformer.algorithms.base import Algorithm, Metrics, Minibatches, class_counts, descend, domain_labels
from dg_batchformer.catalog.datasets import has_small_images
from dg_batchformer.hparams import HParam
from dg_batchformer.networks import MLP, Classifier, Featurizer


def domain_contrast(z: Tensor, y: Tensor, temperature: float = 0.07) -> Tensor:
    """Compute the supervised contrastive loss, with equal weight within and across domains: (N, D) -> ()."""
    unit = F.normalize(z, dim=1)
    others = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    similarity = 0.5 * (unit @ unit.T / temperature).exp() * others  # the weights of both kinds are one half
    positive = (y[:, None] == y) & others
    fraction = similarity / (similarity.sum(dim=1, keepdim=True) + 1e-5)
    logs = torch.where(positive, (fraction + 1e-5).log(), 0.0).sum(dim=1)
    count = positive.sum(dim=1)
    return -(logs / count.clamp_min(1)).sum() / ((count > 0).sum() + 1)


def pairs_of_classes(y: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw two samples per class: (N,) -> two indices (num_classes,), and whether a class has two, (num_classes,)."""
    order = (y + torch.rand(len(y), device=y.device)).argsort()  # by class, in random order within
    classes = torch.arange(num_classes, device=y.device)
    first = torch.searchsorted(y[order].contiguous(), classes)
    enough = class_counts(y, num_classes) >= 2
    last = len(y) - 1
    return order[first.clamp_max(last)], order[(first + 1).clamp_max(last)], enough


class ADRMX(Algorithm):
    """Additive disentanglement of domain features with remix loss.

    There is a label featurizer and a domain featurizer. Their difference should predict the class but not the domain,
    also after adding another sample's domain features. BatchFormer is on the label featurizer; contrastive loss,
    discriminator and remix use plain features.

    Differs from DomainBed: the two samples of a remix have the same class (upstream takes the first rows of the batch).
    """

    compares_domains = True

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        if has_small_images(dataset):
            lr = HParam(3e-3, lambda rng: rng.choice([5e-4, 1e-3, 2e-3, 3e-3]), "learning rate", low=0)
        else:
            lr = HParam(3e-5, lambda rng: rng.choice([2e-5, 3e-5, 4e-5, 5e-5]), "learning rate", low=0)
        return {
            "lr": lr,
            "cnt_lambda": HParam(1.0, about="weight of the contrastive loss", low=0),
            "dclf_lambda": HParam(1.0, about="weight of the domain classifier", low=0),
            "disc_lambda": HParam(0.75, about="weight of the discriminator", low=0),
            "rmxd_lambda": HParam(1.0, about="weight of the remix", low=0),
            "d_steps_per_g_step": HParam(2, about="discriminator updates per update of the other networks", low=1),
            "beta1": HParam(0.5, about="beta1 of the Adam optimizers", low=0, high=0.9999),
            "mlp_width": HParam(256, about="width of the discriminator", low=1),
            "mlp_depth": HParam(9, lambda rng: rng.choice([8, 9, 10]), "layers of the discriminator", low=2),
            "mlp_dropout": HParam(0.0, about="dropout in the discriminator", low=0, high=1),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.num_classes = num_classes
        self.featurizer = Featurizer(input_shape, hparams)
        self.featurizer_domain = Featurizer(input_shape, hparams, attends=False)
        width = self.featurizer.n_outputs
        self.discriminator = MLP(width, num_domains, hparams)
        self.classifier = Classifier(width, num_classes, is_nonlinear=True)
        self.classifier_difference = Classifier(width, num_classes, is_nonlinear=True)
        self.classifier_domain = Classifier(width, num_domains, is_nonlinear=True)
        self.network = nn.Sequential(self.featurizer, self.classifier)
        settings: dict[str, Any] = {"betas": (hparams["beta1"], 0.9), "weight_decay": 0.0}
        self.disc_opt = self.new_optimizer(self.discriminator, **settings)
        self.opt = self.new_optimizer(
            self.network, self.featurizer_domain, self.classifier_difference, self.classifier_domain, **settings
        )
        self.updates = 0

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        self.updates += 1
        num_domains = len(minibatches)
        x, y = (torch.cat([batch[part] for batch in minibatches]) for part in (0, 1))
        d_steps = self.hparams["d_steps_per_g_step"]
        discriminates = self.updates % (1 + d_steps) < d_steps
        with torch.set_grad_enabled(not discriminates):
            z_label = self.featurizer(x)
            z_domain = self.featurizer_domain(self.split_streams(x, num_domains)[0])
        z_plain, _ = self.split_streams(z_label, num_domains)
        domains = domain_labels(num_domains, z_plain)
        disc_loss = F.cross_entropy(self.discriminator(z_plain - z_domain), domains)
        if discriminates:
            descend(self.disc_opt, disc_loss)
            return {"loss_disc": disc_loss.detach()}
        losses = self._losses(z_label, z_plain, z_domain, y, domains, num_domains)
        total = losses["loss_clf_int"] + losses["loss_clf_fin"] - self.hparams["disc_lambda"] * disc_loss
        total = total + self.hparams["cnt_lambda"] * (losses["loss_cnt_int"] + losses["loss_cnt_final"])
        total = total + self.hparams["dclf_lambda"] * losses["loss_dmn"]
        total = total + self.hparams["rmxd_lambda"] * losses["loss_remixed"]
        descend(self.opt, total)
        metrics = {**losses, "loss_total": total, "loss_disc": disc_loss}
        return {name: value.detach() for name, value in metrics.items()}

    def _losses(
        self, z_label: Tensor, z_plain: Tensor, z_domain: Tensor, y: Tensor, domains: Tensor, num_domains: int
    ) -> dict[str, Tensor]:
        labels, _ = self.split_streams(y, num_domains)
        difference = z_plain - z_domain
        subtracted = self.in_both_streams(z_domain, num_domains)
        return {
            "loss_clf_int": self.risk(self.classifier(z_label), y, num_domains),
            "loss_clf_fin": self.risk(self.classifier_difference(z_label - subtracted), y, num_domains),
            "loss_cnt_int": domain_contrast(z_plain, labels),
            "loss_cnt_final": domain_contrast(difference, labels),
            "loss_dmn": F.cross_entropy(self.classifier_domain(z_domain), domains),
            "loss_remixed": self.remixed_loss(difference, z_domain, labels),
        }

    def remixed_loss(self, difference: Tensor, z_domain: Tensor, labels: Tensor) -> Tensor:
        own, other, enough = pairs_of_classes(labels, self.num_classes)
        logits = self.classifier(difference[own] + z_domain[other])
        losses = F.cross_entropy(logits, torch.arange(self.num_classes, device=labels.device), reduction="none")
        return torch.where(enough, losses, 0.0).sum() / self.num_classes

    def predict(self, x: Tensor) -> Tensor:
        return self.network(x)

"""SagNet — Nam et al., 2021: classify by content, and make style uninformative."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dg_batchformer.algorithms.base import Algorithm, Metrics, Minibatches, descend
from dg_batchformer.hparams import HParam
from dg_batchformer.networks import Classifier, Featurizer


def _style(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split feature vectors into content, mean and standard deviation: (N, D) -> (N, D), (N, 1), (N, 1)."""
    mean, deviation = z.mean(dim=1, keepdim=True), z.var(dim=1, keepdim=True).add(1e-5).sqrt()
    return (z - mean) / deviation, mean, deviation


class SagNet(Algorithm):
    """Style-agnostic network: the content classifier sees features mixed with another sample's style.

    An adversary classifies features with another sample's content, and the featurizer is trained to fool it.
    BatchFormer acts only before the content classifier: twins mix styles among themselves, with the shares and partners
    of their plain rows. The adversary sees plain features, and fooling it does not update the encoder.

    Differs from DomainBed: the two adversarial steps share one forward pass, which is equivalent without dropout and
    BatchNorm in training mode.
    """

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {"sag_w_adv": HParam(0.1, lambda rng: 10 ** rng.uniform(-2, 1), "weight of the adversarial loss", low=0)}

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.featurizer = Featurizer(input_shape, hparams)
        width, nonlinear = self.featurizer.n_outputs, hparams["nonlinear_classifier"]
        self.classifier = Classifier(width, num_classes, nonlinear)
        self.style_classifier = Classifier(width, num_classes, nonlinear)
        self.network = nn.Sequential(self.featurizer, self.classifier)
        self.optimizer_f = self.new_optimizer(self.featurizer)
        self.optimizer_c = self.new_optimizer(self.classifier)
        self.optimizer_s = self.new_optimizer(self.style_classifier)

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        num_domains = len(minibatches)
        x = torch.cat([x for x, _ in minibatches])
        y = torch.cat([y for _, y in minibatches])

        content_logits = self.classifier(self.with_other_style(self.featurizer(x), num_domains))
        content_loss = self.risk(content_logits, y, num_domains)
        self.optimizer_c.zero_grad()
        descend(self.optimizer_f, content_loss)
        self.optimizer_c.step()

        z = self.forward_plain(self.featurizer, minibatches)
        labels, _ = self.split_streams(y, num_domains)
        style_loss = F.cross_entropy(self.style_logits(z.detach()), labels)
        descend(self.optimizer_s, style_loss)

        deception = -F.log_softmax(self.style_logits(z), dim=1).mean() * self.hparams["sag_w_adv"]
        descend(self.optimizer_f, deception)
        return {"loss_c": content_loss.detach(), "loss_s": style_loss.detach(), "loss_adv": deception.detach()}

    def with_other_style(self, z: Tensor, num_domains: int) -> Tensor:
        """Mix another sample's style into every sample; both streams share partners and shares."""
        plain, twin = self.split_streams(z, num_domains)
        share = torch.rand(len(plain), 1, device=z.device)
        other = torch.randperm(len(plain), device=z.device)

        def mix(features: Tensor) -> Tensor:
            content, mean, deviation = _style(features)
            mixed_mean = share * mean + (1 - share) * mean[other]
            variance = share * deviation.square() + (1 - share) * deviation[other].square()
            return content * variance.sqrt() + mixed_mean

        if twin is None:
            return mix(plain)
        return self.join_streams(mix(plain), mix(twin), num_domains)

    def style_logits(self, z: Tensor) -> Tensor:
        """Classify features with their own style and another sample's content."""
        torch.rand(len(z), 1)  # upstream draws shares here: keep the random stream aligned
        content, mean, deviation = _style(z)
        return self.style_classifier(content[torch.randperm(len(z), device=z.device)].detach() * deviation + mean)

    def predict(self, x: Tensor) -> Tensor:
        return self.network(x)

"""ARM — Zhang et al., 2021: adapt to a domain through the context of a batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dg_batchformer.algorithms.base import Algorithm, Metrics, Minibatches, descend
from dg_batchformer.catalog.datasets import has_small_images
from dg_batchformer.hparams import HParam
from dg_batchformer.networks import Classifier, Featurizer


class _ContextNetwork(nn.Module):
    """Featurizer and classifier on inputs with an extra channel: the mean context of their group."""

    def __init__(self, context: nn.Module, featurizer: nn.Module, classifier: nn.Module, group: int) -> None:
        super().__init__()
        self.context, self.featurizer, self.classifier = context, featurizer, classifier
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(x, self.mean_context(x))

    def mean_context(self, x: Tensor) -> Tensor:
        """Compute the mean context of every sample's group: (N, C, ...) -> (N, 1, ...)."""
        size = self.group if len(x) % self.group == 0 else len(x)
        return self.context(x).unflatten(0, (-1, size)).mean(dim=1).repeat_interleave(size, dim=0)

    def classify(self, x: Tensor, context: Tensor) -> Tensor:
        return self.classifier(self.featurizer(torch.cat([x, context], dim=1)))


def _context_net(input_shape: Sequence[int]) -> nn.Module:
    """Build the context network, which maps x to an extra channel (for vectors, an extra feature)."""
    if len(input_shape) == 1:
        return nn.Sequential(nn.Linear(input_shape[0], 64), nn.ReLU(), nn.Linear(64, 1))
    layers: list[nn.Module] = []
    for channels in (input_shape[0], 64):
        layers += [nn.Conv2d(channels, 64, 5, padding=2), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(64, 1, 5, padding=2))


class ARM(Algorithm):
    """Adaptive risk minimization: a context map, averaged over groups of ``batch_size``, is appended to the input.

    Predictions depend on the group by design. With BatchFormer, a twin has the context of its plain row.

    Differs from DomainBed: the context network is trained (upstream creates it after the optimizer), and vectors get a
    context feature.
    """

    batch_dependent = True
    needs_pixels = "ARM adds a channel to images"

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        if has_small_images(dataset):
            return {}
        return {"batch_size": HParam(8, lambda rng: 8, "images per training environment, and per group", low=2)}

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.featurizer = Featurizer((1 + input_shape[0], *input_shape[1:]), hparams)
        self.classifier = Classifier(self.featurizer.n_outputs, num_classes, hparams["nonlinear_classifier"])
        self.context_net = _context_net(input_shape)
        self.network = _ContextNetwork(self.context_net, self.featurizer, self.classifier, hparams["batch_size"])
        self.optimizer = self.new_optimizer(self.network)

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        x = torch.cat([x for x, _ in minibatches])
        y = torch.cat([y for _, y in minibatches])
        plain, _ = self.split_streams(x, num_domains=len(minibatches))  # compute contexts once, as twins share them
        context = self.in_both_streams(self.network.mean_context(plain), num_domains=len(minibatches))
        loss = self.risk(self.network.classify(x, context), y, num_domains=len(minibatches))
        descend(self.optimizer, loss)
        return {"loss": loss.detach()}

    def predict(self, x: Tensor) -> Tensor:
        return self.network(x)

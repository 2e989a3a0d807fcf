"""MTL — Blanchard et al., 2011: classify a sample together with the mean features of its domain."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dg_batchformer.algorithms.base import Algorithm, Metrics, Minibatches, descend, forward_domains
from dg_batchformer.hparams import HParam
from dg_batchformer.networks import Classifier, Featurizer


class _MarginalNetwork(nn.Module):
    """Classifier on features concatenated with a domain embedding, by default the mean features of the batch."""

    def __init__(self, featurizer: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.featurizer, self.classifier = featurizer, classifier

    def classify(self, z: Tensor, embedding: Tensor) -> Tensor:
        return self.classifier(torch.cat([z, embedding.expand_as(z)], dim=1))

    def forward(self, x: Tensor) -> Tensor:
        z = self.featurizer(x)
        return self.classify(z, z.mean(dim=0))


class MTL(Algorithm):
    """Marginal transfer learning: the classifier sees features and a moving average of the domain's mean features.

    At test time the embedding is the mean of the batch, so predictions depend on the batch by design. Embeddings use
    plain features; BatchFormer acts before the concatenation.

    Differs from DomainBed: the embedding is used (upstream overwrites it with noise).
    """

    batch_dependent = True

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "mtl_ema": HParam(
                0.99,
                lambda rng: rng.choice([0.5, 0.9, 0.99, 1.0]),
                "weight of the new batch in an embedding",
                low=0,
                high=1,
            )
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.featurizer = Featurizer(input_shape, hparams)
        width = self.featurizer.n_outputs
        self.classifier = Classifier(2 * width, num_classes, hparams["nonlinear_classifier"])
        self.network = _MarginalNetwork(self.featurizer, self.classifier)
        self.optimizer = self.new_optimizer(self.network)
        self.embeddings: Tensor
        self.register_buffer("embeddings", torch.zeros(num_domains, width))

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        loss = torch.zeros((), device=self.embeddings.device)
        for env, (z, (_, y)) in enumerate(zip(forward_domains(self.featurizer, minibatches), minibatches, strict=True)):
            ema, mean = self.hparams["mtl_ema"], self.split_streams(z)[0].mean(dim=0)
            embedding = ema * mean + (1 - ema) * self.embeddings[env]
            self.embeddings[env] = embedding.detach()
            loss = loss + self.risk(self.network.classify(z, embedding), y, env=env)
        descend(self.optimizer, loss)
        return {"loss": loss.detach()}

    def predict(self, x: Tensor) -> Tensor:
        return self.network(x)

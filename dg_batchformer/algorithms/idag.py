"""iDAG — Huang et al., 2023: classify by the features that are causes of the label in a learned graph."""

from collections.abc import Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dg_batchformer.algorithms.base import Algorithm, Metrics, Minibatches, descend, domain_labels
from dg_batchformer.catalog.datasets import has_small_images
from dg_batchformer.hparams import HParam
from dg_batchformer.networks import Featurizer
from dg_batchformer.networks.batch_norm import batch_norm_held

_EVERY = 100  # updates between changes of the penalty's multipliers


class Graph(nn.Module):
    """A weighted graph over D features and the label, the last node, as in NOTEARS (Zheng et al., 2018).

    Its weights W (D + 1, D + 1) are the difference of two non-negative matrices. E = exp(W * W), with an element-wise
    square, sums the paths between two nodes; the graph has no cycle if ``trace(E) = D + 1``. Features are masked by the
    paths that lead from them to the label.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.positive = nn.Parameter(torch.zeros(width + 1, width + 1))
        self.negative = nn.Parameter(torch.zeros(width + 1, width + 1))
        with torch.no_grad():
            self.positive[:-1, -1] = 1.0

    @property
    def weights(self) -> Tensor:
        """The weights of edges, from row to column."""
        return self.positive - self.negative

    def paths(self) -> Tensor:
        """Compute E, (D + 1, D + 1)."""
        return torch.matrix_exp(self.weights.square())

    def forward(self, x: Tensor, paths: Tensor | None = None) -> Tensor:
        """Mask features by ``paths``, if they are computed already, (N, D) -> (N, D); the graph gets no gradient."""
        return x * (self.paths() if paths is None else paths)[:-1, -1].detach()

    @torch.no_grad()
    def project(self) -> None:
        """Make both matrices non-negative, without edges from a node to itself."""
        for matrix in (self.positive, self.negative):
            matrix.clamp_(min=0).fill_diagonal_(0)


def moved_means(means: Tensor, cells: Tensor, z: Tensor, memory: float) -> Tensor:
    """Move exponential means by samples one after another, and scale them to norm 1: (K, D) -> (K, D).

    Args:
        means: one for each cell.
        cells: (N,) cell of each sample.
        z: (N, D) samples.
        memory: weight of the mean that a sample moves.

    """
    members = (cells[:, None] == torch.arange(len(means), device=cells.device)).to(z)  # (N, K)
    later = members.flip(0).cumsum(0).flip(0) - members  # samples of the cell that come after this one
    weights = (1 - memory) * members * memory**later
    return F.normalize(memory ** members.sum(dim=0)[:, None] * means + weights.T @ z, dim=1)


def contrast(z: Tensor, prototypes: Tensor, cells: Tensor, temperature: float) -> Tensor:
    """Compute the cross-entropy of the cosine similarities of samples (N, D) to prototypes (K, D), ()."""
    return F.cross_entropy(F.normalize(z, dim=1) @ prototypes.T / temperature, cells)


class iDAG(Algorithm):  # noqa: N801
    """Invariant directed acyclic graph: features that lead to the label are kept, found in a graph of class prototypes.

    Prototypes are moving means of normalised features: p[e, c] of the features of class c in environment e, and q[c] of
    the masked features of class c. The graph (see ``Graph``) must explain the prototypes P (E * C, D) and their labels:

        L = risk(masked z) + nu * contrast(z, p) + [mu * contrast(masked z, q)
            + lambda2 * (1 - cos([P, label] W, P) + CE(h(masked P)))
            + rho / 2 * a^2 + alpha * a + lambda1 * mean(W+ + W-)]

    with the cycles ``a = trace(E) - D - 1``, W = W+ - W-, a random linear classifier h, which the authors' release does
    not train, and ``contrast`` the cross-entropy of cosine similarities. The bracket begins after
    ``idag_anneal_steps`` updates, when the optimizer is restarted. Every 100 updates, rho grows tenfold up to
    ``idag_rho_max`` if ``a`` fell by less than 75 %.

    Prototypes, contrast, graph and BatchNorm's running statistics are those of plain rows. As in the authors' release,
    negatives are prototypes and not the batch: the release masks those of the batch out. ``idag_width`` is 64 for small
    images; the release has 512, and 1024 for DomainNet.
    """

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        width = 64 if has_small_images(dataset) else 512
        return {
            "idag_width": HParam(width, about="projected features, the nodes of the graph", low=1),
            "idag_anneal_steps": HParam(200, lambda rng: rng.choice([200, 400, 600, 800]), "updates before it", low=0),
            "idag_temperature": HParam(0.07, lambda rng: rng.uniform(0.01, 0.07), "of contrast", low=1e-6),
            "idag_memory": HParam(0.99, lambda rng: rng.uniform(0.99, 0.999), "of prototypes", low=0, high=1),
            "idag_lambda1": HParam(0.01, lambda rng: rng.uniform(0.01, 1), "weight of the size of the graph", low=0),
            "idag_lambda2": HParam(0.01, lambda rng: rng.uniform(0.01, 1), "weight of reconstruction", low=0),
            "idag_rho_max": HParam(100.0, lambda rng: 10 ** rng.uniform(1, 6), "largest rho", low=0),
            "idag_nu": HParam(1.0, lambda rng: rng.uniform(1, 2), "weight of contrast by domain and class", low=0),
            "idag_mu": HParam(1.0, lambda rng: rng.uniform(1, 2), "weight of contrast of masked features", low=0),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        width = self.hparams["idag_width"]
        self.featurizer = Featurizer(input_shape, self.hparams)
        self.encoder = nn.Sequential(
            nn.Linear(self.featurizer.n_outputs, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(0.25),
            nn.Linear(width, width),
        )
        self.graph = Graph(width)
        self.classifier = nn.Linear(width, num_classes)
        self.network = nn.Sequential(self.featurizer, self.encoder, self.graph, self.classifier)
        self.label_classifier = nn.Linear(width, num_classes).requires_grad_(False)
        self.prototypes: Tensor
        self.masked_prototypes: Tensor
        self.rho: Tensor
        self.alpha: Tensor
        self.last_cycles: Tensor
        self.register_buffer("prototypes", torch.zeros(num_domains * num_classes, width))
        self.register_buffer("masked_prototypes", torch.zeros(num_classes, width))
        self.optimizer = self.new_optimizer(self.network)
        self.updates = 0
        for name, value in {"rho": 1.0, "alpha": 1.0, "last_cycles": inf}.items():
            self.register_buffer(name, torch.tensor(value))  # on the device, which nothing waits for

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        num_domains = len(minibatches)
        y = torch.cat([y for _, y in minibatches])
        z = self._encode(self.featurizer(torch.cat([x for x, _ in minibatches])), num_domains)
        paths = self.graph.paths()
        masked = self.graph(z, paths)
        risk = self.risk(self.classifier(masked), y, num_domains)
        z, masked, y = (self.split_streams(rows, num_domains)[0] for rows in (z, masked, y))
        cells = domain_labels(num_domains, y) * len(self.masked_prototypes) + y
        self._move_prototypes(z.detach(), masked.detach(), cells, y)
        of_graph, penalties = self._graph_loss(paths)
        temperature = self.hparams["idag_temperature"]
        nu = self.hparams["idag_nu"] * contrast(z, self.prototypes, cells, temperature)
        mu = self.hparams["idag_mu"] * contrast(masked, self.masked_prototypes, y, temperature)
        if self.updates == self.hparams["idag_anneal_steps"]:
            self.optimizer = self.new_optimizer(self.network)  # gradients jump here
        loss = risk + nu
        if self.updates >= self.hparams["idag_anneal_steps"]:
            loss = loss + mu + of_graph
        descend(self.optimizer, loss)
        self.graph.project()
        self.updates += 1
        return {"loss": loss.detach(), "risk": risk.detach(), "contrast": (nu + mu).detach(), **penalties}

    def _encode(self, z: Tensor, num_domains: int) -> Tensor:
        """Project features; the statistics of BatchNorm are those of plain rows, and twins have their own."""
        plain, twins = self.split_streams(z, num_domains)
        plain = self.encoder(plain)
        if twins is None:
            return plain
        with batch_norm_held(self.encoder):
            twins = self.encoder(twins)
        return self.join_streams(plain, twins, num_domains)

    def _move_prototypes(self, z: Tensor, masked: Tensor, cells: Tensor, y: Tensor) -> None:
        memory = self.hparams["idag_memory"]
        self.prototypes = moved_means(self.prototypes, cells, F.normalize(z, dim=1), memory)
        self.masked_prototypes = moved_means(self.masked_prototypes, y, F.normalize(masked, dim=1), memory)

    def _graph_loss(self, paths: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of the graph and its terms; adapt the multipliers."""
        prototypes = self.prototypes
        labels = torch.arange(len(self.masked_prototypes), device=prototypes.device).repeat(self.num_domains)
        explained = (torch.cat([prototypes, labels[:, None]], dim=1) @ self.graph.weights)[:, :-1]
        # Explained begins at 0, where F.cosine_similarity has another gradient than the release.
        reconstruction = F.cosine_embedding_loss(explained, prototypes, torch.ones_like(labels))
        reconstruction = reconstruction + F.cross_entropy(self.label_classifier(prototypes * paths[:-1, -1]), labels)
        cycles = paths.trace() - len(paths)
        terms = {
            "reconstruction": self.hparams["idag_lambda2"] * reconstruction,
            "cycles": self.rho / 2 * cycles.square() + self.alpha * cycles,
            "size": self.hparams["idag_lambda1"] * (self.graph.positive + self.graph.negative).mean(),
        }
        if self.updates % _EVERY == 0:
            self._adapt(cycles.detach())
        return torch.stack([*terms.values()]).sum(), {name: term.detach() for name, term in terms.items()}

    def _adapt(self, cycles: Tensor) -> None:
        """Weigh cycles more if there are not much fewer than at the last call."""
        grows = (self.rho < self.hparams["idag_rho_max"]) & (cycles > 0.25 * self.last_cycles)
        self.rho = torch.where(grows, 10 * self.rho, self.rho)
        self.alpha = torch.where(grows, self.alpha + self.rho * cycles, self.alpha)
        self.last_cycles = cycles

    def predict(self, x: Tensor) -> Tensor:
        return self.network(x)

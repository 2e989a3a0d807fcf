"""Means over pairs of samples (i, j) of a batch, grouped by relation, domains and classes."""

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn import functional as F

RELATIONS = (
    "itself",
    "same class, same domain",
    "same class, other domain",
    "other class, same domain",
    "other class, other domain",
)
ITSELF, SAME_CLASS, OTHER_CLASS, SAME_DOMAIN, OTHER_DOMAIN = (0,), (1, 2), (3, 4), (1, 3), (2, 4)
OTHERS = (1, 2, 3, 4)


class PairMeans:
    """Running means of a quantity over pairs of samples (i, j).

    ``by_domain`` and ``by_class`` exclude i = j; their rows belong to i, their columns to j, and a cell without pairs
    is NaN.
    """

    def __init__(self, num_domains: int, num_classes: int) -> None:
        self.batches: list[Tensor] = []  # (2, relations): sums and counts of one batch
        self.domains = torch.zeros(2, num_domains, num_domains, dtype=torch.double)
        self.classes = torch.zeros(2, num_classes, num_classes, dtype=torch.double)

    def add(self, values: Tensor, rows: Tensor, domains: Tensor, classes: Tensor) -> None:
        """Add one batch.

        Args:
            values: (sequences, rows, samples), where i is sample ``rows[r]`` of its sequence and j runs over all.
            rows: (rows,) indices of the samples i.
            domains, classes: (sequences, samples).

        """
        values, domains, classes = values.double().cpu(), domains.cpu(), classes.cpu()
        rows = rows.cpu()
        itself = F.one_hot(rows, values.shape[-1]).bool().expand_as(values)
        same_class, same_domain = (labels[:, rows, None] == labels[:, None] for labels in (classes, domains))
        relation = torch.where(itself, 0, 1 + 2 * ~same_class + ~same_domain).flatten()
        counts = torch.bincount(relation, minlength=len(RELATIONS)).double()
        sums = torch.bincount(relation, weights=values.flatten(), minlength=len(RELATIONS))
        self.batches.append(torch.stack([sums, counts]))
        among_others = torch.stack([values.masked_fill(itself, 0), (~itself).double()])  # sums and counts
        for labels, totals in ((domains, self.domains), (classes, self.classes)):
            groups = F.one_hot(labels, len(totals[0])).double()
            totals += torch.einsum("srg,tsrj,sjh->tgh", groups[:, rows], among_others, groups)

    @property
    def by_domain(self) -> Tensor:
        """Means by (domain of i, domain of j): (domains, domains)."""
        return self.domains[0] / self.domains[1]

    @property
    def by_class(self) -> Tensor:
        """Means by (class of i, class of j): (classes, classes)."""
        return self.classes[0] / self.classes[1]

    def mean(self, relations: Collection[int]) -> float:
        """Return the mean over all pairs with one of these relations; NaN if there are none."""
        sums, counts = self._totals(relations)
        return float(sums / counts)

    def standard_error(self, relation: int) -> float:
        """Return the standard error over batches of the mean of a relation; NaN for fewer than two batches."""
        sums, counts = torch.stack(self.batches)[:, :, relation].T
        means = (sums / counts)[counts > 0]
        return float(means.std() / len(means) ** 0.5) if len(means) > 1 else float("nan")

    def share(self, relations: Collection[int]) -> float:
        """Return the share of the total, including i = j, that falls on pairs with these relations; in [0, 1]."""
        return float(self._totals(relations)[0] / self._totals(range(len(RELATIONS)))[0])

    def uniform_share(self, relations: Collection[int]) -> float:
        """Return the value of ``share`` if the quantity were equal for all pairs."""
        return float(self._totals(relations)[1] / self._totals(range(len(RELATIONS)))[1])

    def pairs(self, relations: Collection[int]) -> int:
        """Return the number of pairs with these relations."""
        return int(self._totals(relations)[1])

    def _totals(self, relations: Collection[int]) -> Tensor:
        return torch.stack(self.batches).sum(dim=0)[:, list(relations)].sum(dim=1)

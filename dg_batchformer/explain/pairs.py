"""Means over pairs of samples (i, j) of a batch, grouped by relation, domains and classes."""

from collections.abc import Collection, Sequence

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

    Attributes:
        domains, classes: sums and numbers of these pairs, (2, domains, domains) and (2, classes, classes).
        classes_across: the part of ``classes`` where i and j are of different domains.

    """

    def __init__(self, num_domains: int, num_classes: int) -> None:
        self.batches: list[Tensor] = []  # (2, relations): sums and counts of one batch
        self.domains = torch.zeros(2, num_domains, num_domains, dtype=torch.double)
        self.classes = torch.zeros(2, num_classes, num_classes, dtype=torch.double)
        self.classes_across = torch.zeros_like(self.classes)

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
        across = among_others * ~same_domain
        grouped = ((domains, self.domains, among_others), (classes, self.classes, among_others))
        for labels, totals, pairs in (*grouped, (classes, self.classes_across, across)):
            groups = F.one_hot(labels, len(totals[0])).double()
            totals += torch.einsum("srg,tsrj,sjh->tgh", groups[:, rows], pairs, groups)

    @property
    def by_domain(self) -> Tensor:
        """Means by (domain of i, domain of j): (domains, domains)."""
        return self.domains[0] / self.domains[1]

    @property
    def by_class(self) -> Tensor:
        """Means by (class of i, class of j): (classes, classes)."""
        return self.classes[0] / self.classes[1]

    def between(self, of: Sequence[int], to: Sequence[int], *, across: bool) -> tuple[float, int]:
        """Return mean and number of the pairs (i, j) of some classes, in different domains or in the same one.

        Args:
            of, to: the classes of i and of j.
            across: whether i and j are of different domains.

        """
        totals = self.classes_across if across else self.classes - self.classes_across
        sums, counts = totals[:, list(of)][:, :, list(to)].sum(dim=(1, 2))
        return float(sums / counts), int(counts)

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

"""Model soups: averaged weights of runs with the same initialization (Wortsman et al., ICML 2022; DiWA, Rame et al.,
NeurIPS 2022).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

State = Mapping[str, Tensor]


class Soup(NamedTuple):
    """Averaged weights, and the indices of the models averaged."""

    state: State
    members: list[int]


class _Mean:
    """A running mean of state dicts, in double precision."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.first: State = {}
        self.count = 0

    def add(self, state: State) -> None:
        self.first = self.first or state
        self.sums = {name: self.sums.get(name, 0) + value.double() for name, value in state.items()}
        self.count += 1

    def with_one_more(self, state: State) -> dict[str, Tensor]:
        """Return the mean including another state; integer entries (BatchNorm's counters) are those of the first."""
        means = {name: (total + state[name].double()) / (self.count + 1) for name, total in self.sums.items()}
        return {name: means[name].to(value.dtype) if value.is_floating_point() else value for name, value in
                self.first.items()}  # fmt: skip


def uniform_soup(count: int, load: Callable[[int], State]) -> Soup:
    """Average all models.

    Args:
        load: reads the weights of one model by index; at most two are in memory at once.

    """
    mean = _Mean()
    for place in range(count - 1):
        mean.add(load(place))
    return Soup(mean.with_one_more(load(count - 1)), list(range(count)))


def greedy_soup(accuracies: Sequence[float], load: Callable[[int], State], validate: Callable[[State], float]) -> Soup:
    """Start with the best model; add each next best one unless that lowers the validation accuracy.

    Args:
        accuracies: validation accuracy of each model alone.
        load: reads the weights of one model by index.
        validate: returns the validation accuracy of averaged weights.

    """
    order = sorted(range(len(accuracies)), key=lambda place: -accuracies[place])
    soup, best = Soup(load(order[0]), order[:1]), accuracies[order[0]]
    mean = _Mean()
    mean.add(soup.state)
    for place in order[1:]:
        state = load(place)
        candidate = mean.with_one_more(state)
        accuracy = validate(candidate)
        if accuracy >= best:
            mean.add(state)
            soup, best = Soup(candidate, [*soup.members, place]), accuracy
    return soup

"""Race: asynchronous successive halving (Li et al., MLSys 2020), which stops draws that validate worse than others.

A run that reaches a rung continues if its validation accuracy is among the best of the runs that have reached the rung
so far. Nobody waits: the first run always continues, and a run that has stopped is not called back.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dg_batchformer.errors import InputError
from dg_batchformer.spec.run import RunSpec


@dataclass(frozen=True)
class Race:
    """The key ``race`` of a sweep file.

    Args:
        rungs: steps, ascending, after whose evaluation runs are compared.
        keep: share of the runs that continues, in (0, 1); at least one run does.

    """

    rungs: Sequence[int]
    keep: float = 0.5

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Race":
        """Rebuild it from the sweep manifest."""
        return cls(tuple(int(rung) for rung in content["rungs"]), float(content["keep"]))

    @property
    def text(self) -> str:
        """Where runs are compared and which continue, in words."""
        *first, last = map(str, self.rungs)
        steps = f"steps {', '.join(first)} and {last}" if first else f"step {last}"
        return f"{steps}, where only the best {100 * self.keep:.0f} % so far continue"

    def share_of(self, steps: int) -> float:
        """Return the mean fraction of its updates that a run makes, if exactly ``keep`` of the runs pass every rung."""
        ends = [*(rung + 1 for rung in self.rungs), steps]
        trained = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
        return sum(updates * self.keep**rung for rung, updates in enumerate(trained)) / steps

    def check(self, spec: RunSpec) -> None:
        """Raise InputError unless every rung is an evaluation of a run before its last one."""
        for rung in self.rungs:
            if not (rung < spec.steps - 1 and spec.is_checkpoint(rung)):
                raise InputError(
                    f"race: step {rung} cannot be a rung of {spec.method} on {spec.dataset}, which trains "
                    f"{spec.steps} steps and is evaluated every {spec.checkpoint_freq}: give multiples of "
                    f"{spec.checkpoint_freq} below {spec.steps - 1}, or set checkpoint_freq"
                )


class Bracket(NamedTuple):
    """Runs that race against each other: the draws or grid points of a row, its environments and a trial."""

    race: Race
    runs: tuple[str, ...]  # ids


def brackets(race: Race, places: Iterable[tuple[object, str]]) -> dict[str, Bracket]:
    """Return the bracket of every run that has rivals, by run id.

    A run that several rows have does not race, as each of them needs it for itself.

    Args:
        race: the rule.
        places: (row, dataset, environments and trial; run id) of every run.

    """
    by_place: dict[object, dict[str, None]] = {}
    rows: dict[str, set[object]] = {}
    for place, run_id in places:
        by_place.setdefault(place, {})[run_id] = None
        rows.setdefault(run_id, set()).add(place)
    found = [Bracket(race, tuple(ids)) for ids in by_place.values() if len(ids) > 1]
    return {run_id: bracket for bracket in found for run_id in bracket.runs if len(rows[run_id]) == 1}

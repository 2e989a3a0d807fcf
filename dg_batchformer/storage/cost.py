"""The device time of runs: of each row of a sweep, and what training runs together saved."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from dg_batchformer.text.counts import duration, how_many


class Timed(Protocol):
    """The device time of a finished run; see ``storage.folders.TimedState``."""

    @property
    def seconds(self) -> float | None:
        """Device time of training and evaluation; None if unknown."""

    @property
    def seconds_alone(self) -> float | None:
        """Device time that the run would have needed alone; None if it was alone, or if that is unknown."""

    @property
    def seconds_spared(self) -> float | None:
        """Estimated device time that the run would have needed to its end, if a race stopped it; else None."""


@dataclass(frozen=True)
class Cost:
    """The device time of runs that are finished or out of the race.

    Args:
        seconds: sum over the runs.
        saved: seconds that the same runs would have taken in addition, had each been trained alone.
        spared: estimated seconds that runs would have taken in addition, had no race stopped them.
        untimed: number of runs whose time is unknown.

    """

    runs: int
    seconds: float
    saved: float
    untimed: int
    spared: float = 0.0

    @classmethod
    def of(cls, runs: Iterable[Timed]) -> "Cost":
        """Sum over runs; two rows that share a run pay for it twice, unless it is given once."""
        given = list(runs)
        times = [(run.seconds, run.seconds_alone) for run in given if run.seconds is not None]
        saved = sum(alone - seconds for seconds, alone in times if alone is not None and seconds is not None)
        spared = sum(run.seconds_spared or 0.0 for run in given)
        return cls(len(given), sum(seconds or 0.0 for seconds, _ in times), saved, len(given) - len(times), spared)

    @property
    def time(self) -> str:
        """The device time in words; '' if it is unknown."""
        return duration(self.seconds) if self.untimed < self.runs else ""

    @property
    def each(self) -> str:
        """The mean time of a run in words; '' if it is unknown."""
        timed = self.runs - self.untimed
        return duration(self.seconds / timed) if timed else ""

    @property
    def saved_time(self) -> str:
        """The time that training runs together saved, in words; '' if it is less than a second."""
        return duration(self.saved) if self.saved >= 1 else ""

    @property
    def spared_time(self) -> str:
        """The time that racing saved, in words; '' if it is less than a second."""
        return duration(self.spared) if self.spared >= 1 else ""


def cost_text(total: Cost) -> str:
    """Describe the cost of a sweep in a line; '' if it is unknown."""
    if not total.time:
        return ""
    saved = f"; training rows together saved {total.saved_time}" if total.saved_time else ""
    saved += f"; racing saved about {total.spared_time}" if total.spared_time else ""
    unknown = f"; unknown for {how_many(total.untimed, 'run')}" if total.untimed else ""
    return f"device time: {total.time}{saved}{unknown}"

"""Admission control: whether there is memory for another run, based on the memory that workers report."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from dg_batchformer.runtime.memory import available_memory
from dg_batchformer.sweep.launchers.process import WorkerProcess

_FIRST_GUESS = 2**30  # bytes per worker, until one has reported


class Admission:
    """Compares the free memory of the machine and its GPUs with the peak memory of runs so far."""

    def __init__(self) -> None:
        self.most = _FIRST_GUESS  # peak bytes of a worker
        self.most_of_card: defaultdict[str, int] = defaultdict(int)  # peak bytes of a run, by device
        self.free_of_card: dict[str, int] = {}  # bytes, as last reported

    def hear(self, worker: WorkerProcess, told: Mapping[str, Any]) -> None:
        """Record the memory in an event of a worker."""
        worker.held = told["memory"]
        self.most = max(self.most, worker.held)
        card = told.get("card")
        if card is not None:
            worker.held_of_card = card.held
            self.free_of_card[worker.device] = card.free
            self.most_of_card[worker.device] = max(self.most_of_card[worker.device], card.most)

    def is_short(self, worker: WorkerProcess, busy: Collection[WorkerProcess]) -> bool:
        """Return whether a run of this worker might not fit into memory.

        Args:
            worker: that would train it.
            busy: other workers, which train; what their runs have yet to allocate is not available.

        """
        card = worker.device
        on_card = [other.held_of_card for other in busy if other.device == card]
        return not (
            _fits(self.most, available_memory(), worker.held, [other.held for other in busy])
            and _fits(self.most_of_card[card], self.free_of_card.get(card), worker.held_of_card, on_card)
        )


def _fits(most: int, free: int | None, held: int, of_others: Collection[int]) -> bool:
    """Return whether a process that needs ``most`` bytes and holds some of them finds the rest.

    Args:
        most: bytes that every process may need.
        free: bytes; None if unknown, which counts as enough.
        held: bytes that it holds.
        of_others: bytes that processes hold which are going to take what they need.

    """
    return free is None or free + held - sum(max(0, most - other) for other in of_others) >= most

"""Admission control: whether there is memory for another run, based on the memory that workers report."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from dg_batchformer.runtime.memory import available_memory
from dg_batchformer.sweep.launchers.process import WorkerProcess

_FIRST_GUESS = 2**30  # bytes per worker, until one has reported


class Admission:
    """Compares the free memory of the machine and its GPUs with what runs have needed so far."""

    def __init__(self) -> None:
        self.most = _FIRST_GUESS  # bytes that a worker held in a task that is done
        self.most_of_card: defaultdict[str, int] = defaultdict(int)  # the same on its GPU, by device
        self.free_of_card: dict[str, int] = {}  # bytes, as last reported

    def hear(self, worker: WorkerProcess, told: Mapping[str, Any]) -> None:
        """Record the memory in an event of a worker."""
        footprint = worker.footprint
        footprint.held = told["memory"]
        footprint.most = max(footprint.most, footprint.held)
        card = told.get("card")
        if card is not None:
            footprint.held_of_card = card.held
            footprint.most_of_card = max(footprint.most_of_card, card.most)
            self.free_of_card[worker.device] = card.free
        footprint.has_settled |= told["event"] == "step"
        footprint.ran_out |= bool(told.get("out_of_memory"))
        if told["event"] == "free" and not footprint.ran_out:
            self.most = max(self.most, footprint.most)
            self.most_of_card[worker.device] = max(self.most_of_card[worker.device], footprint.most_of_card)

    def is_short(self, worker: WorkerProcess, busy: Collection[WorkerProcess]) -> bool:
        """Return whether a run of this worker might not fit into memory that others would free.

        Args:
            worker: that would train it.
            busy: other workers, which train; what their runs have yet to allocate is not available.

        """
        host = max([self.most, *(other.footprint.most for other in busy)])
        claimed = sum(max(0, host - other.footprint.held) for other in busy if not other.footprint.has_settled)
        if not _fits(host, available_memory(), worker.footprint.held, claimed):
            return True
        beside = [other.footprint for other in busy if other.device == worker.device]
        if not beside:  # nothing of ours would make room
            return False
        card = max([self.most_of_card[worker.device], *(footprint.most_of_card for footprint in beside)])
        claimed = sum(max(0, card - footprint.held_of_card) for footprint in beside if not footprint.has_settled)
        return not _fits(card, self.free_of_card.get(worker.device), worker.footprint.held_of_card, claimed)


def _fits(most: int, free: int | None, held: int, claimed: int) -> bool:
    """Return whether a process that may need ``most`` bytes, and holds some, finds the rest.

    Args:
        most: bytes that it may need.
        free: bytes; None if unknown, which counts as enough.
        held: bytes that it holds.
        claimed: free bytes that others are about to take.

    """
    return free is None or free + held - claimed >= most

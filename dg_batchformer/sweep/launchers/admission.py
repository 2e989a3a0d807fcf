"""Admission control: whether there is memory for another run, based on the memory that workers report."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from dg_batchformer.runtime.memory import HOST, available_memory
from dg_batchformer.sweep.launchers.process import WorkerProcess

_FIRST_GUESS = 2**30  # bytes per worker, until one has reported


class Admission:
    """Compares the free memory of the machine and its GPUs with what runs have needed so far."""

    def __init__(self) -> None:
        self.most = Counter({HOST: _FIRST_GUESS})  # bytes that a worker held in a task that is done, by place
        self.free_of_card: dict[str, int] = {}  # bytes, as last reported

    def hear(self, worker: WorkerProcess, told: Mapping[str, Any]) -> None:
        """Record the memory in an event of a worker."""
        footprint, card = worker.footprint, told.get("card")
        footprint.held[HOST] = told["memory"]
        footprint.most |= Counter({HOST: told["memory"]})
        if card is not None:
            footprint.held[worker.device] = card.held
            footprint.most |= Counter({worker.device: card.most})
            self.free_of_card[worker.device] = card.free
        footprint.has_settled |= told["event"] == "step"
        footprint.ran_out |= bool(told.get("out_of_memory"))
        if told["event"] == "free" and not footprint.ran_out:
            self.most |= footprint.most

    def is_short(self, worker: WorkerProcess, busy: Collection[WorkerProcess]) -> bool:
        """Return whether a run of this worker might not fit into memory that others would free.

        Args:
            worker: that would train it.
            busy: other workers, which train; what their runs have yet to allocate is not available.

        """
        beside = [other for other in busy if other.device == worker.device]  # without any, nothing would make room
        return self._lacks(HOST, available_memory(), worker, busy) or (
            bool(beside) and self._lacks(worker.device, self.free_of_card.get(worker.device), worker, beside)
        )

    def _lacks(self, place: str, free: int | None, worker: WorkerProcess, others: Collection[WorkerProcess]) -> bool:
        """Return whether one kind of memory might be too short; not if it is unknown how much is free."""
        if free is None:
            return False
        most = max([self.most[place], *(other.footprint.most[place] for other in others)])
        unsettled = [other.footprint for other in others if not other.footprint.has_settled]
        claimed = sum(max(0, most - footprint.held[place]) for footprint in unsettled)
        return free + worker.footprint.held[place] - claimed < most

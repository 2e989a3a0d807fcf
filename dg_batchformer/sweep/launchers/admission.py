"""Admission control: whether there is memory for another run, based on the memory that workers report."""

from collections import defaultdict
from collections.abc import Mapping
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
        self.most = max(self.most, told["memory"])
        card = told.get("card")
        if card is not None:
            worker.held_of_card = card.held
            self.free_of_card[worker.device] = card.free
            self.most_of_card[worker.device] = max(self.most_of_card[worker.device], card.most)

    def is_short(self, worker: WorkerProcess) -> bool:
        """Return whether a run of this worker might not fit into memory."""
        available = available_memory()
        if available is not None and available < self.most:
            return True
        free = self.free_of_card.get(worker.device)
        return free is not None and free + worker.held_of_card < self.most_of_card[worker.device]

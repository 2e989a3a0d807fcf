"""Admission of runs: whether there is memory for one more beside others, by what workers tell of theirs."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from dg_batchformer.runtime.memory import available_memory
from dg_batchformer.sweep.launchers.process import WorkerProcess

_FIRST_GUESS = 2**30  # bytes that a worker takes, until one has told


class Admission:
    """Compares the memory that is left, of this machine and of its cards, with the most that a run took so far."""

    def __init__(self) -> None:
        self.most = _FIRST_GUESS  # bytes of a worker
        self.most_of_card: defaultdict[str, int] = defaultdict(int)  # bytes of a run, by device
        self.free_of_card: dict[str, int] = {}  # bytes, as last told

    def hear(self, worker: WorkerProcess, told: Mapping[str, Any]) -> None:
        """Take note of the memory in an event of a worker."""
        self.most = max(self.most, told["memory"])
        card = told.get("card")
        if card is not None:
            worker.held_of_card = card.held
            self.free_of_card[worker.device] = card.free
            self.most_of_card[worker.device] = max(self.most_of_card[worker.device], card.most)

    def is_short(self, worker: WorkerProcess) -> bool:
        """Whether a run of this worker might not fit beside those of others."""
        available = available_memory()
        if available is not None and available < self.most:
            return True
        free = self.free_of_card.get(worker.device)
        return free is not None and free + worker.held_of_card < self.most_of_card[worker.device]

"""Asking a run to stop: the first signal ends it after the present step, its state saved."""

import signal
from types import FrameType

# Ctrl-C, kill and scancel, a terminal that closes, and what SLURM sends ahead of a time limit or a preemption.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Interrupted(Exception):
    """The run was asked to stop, and its state is saved."""


class StopOnSignal:
    """True once a signal of STOPPING came; a second SIGINT interrupts at once. ``nohup`` is respected."""

    def __init__(self) -> None:
        self.asked = False
        for number in STOPPING:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._ask)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # which a worker's server holds back until now

    def __call__(self) -> bool:
        return self.asked

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

"""Graceful stop: the first signal stops a run after the current step, with its state saved."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# Ctrl-C, kill and scancel, a closed terminal, and SLURM's signals before a time limit or preemption.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Interrupted(Exception):
    """The run was stopped by a signal; its state is saved."""


def never() -> bool:
    """Return False: nothing asks to stop."""
    return False


class StopOnSignal:
    """Callable that is true after a signal in STOPPING; a second SIGINT interrupts at once. Respects ``nohup``."""

    def __init__(self) -> None:
        self.asked = False
        for number in STOPPING:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._ask)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # the server that forks workers blocks them until now

    def __call__(self) -> bool:
        return self.asked

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def stopping_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Yield whether Ctrl-C was pressed, and restore its handler afterwards: for a process that has more to do.

    A second Ctrl-C interrupts at once. Only the main thread can receive signals; in another one nothing asks to stop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield never
        return
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)

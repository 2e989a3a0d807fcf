import signal

import pytest

from dg_batchformer.training.stop import STOPPING, StopOnSignal


@pytest.fixture
def _handlers():
    before = {number: signal.getsignal(number) for number in STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
def test_a_closed_terminal_stops_a_run_unless_started_with_nohup():
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may themselves be started with nohup
    stop = StopOnSignal()
    signal.raise_signal(signal.SIGHUP)
    assert stop()

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopOnSignal()
    signal.raise_signal(signal.SIGHUP)
    assert not stop()

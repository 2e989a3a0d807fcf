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
def test_a_terminal_that_closes_asks_a_run_to_stop_and_nohup_lets_it_go_on():
    stop = StopOnSignal()
    signal.raise_signal(signal.SIGHUP)
    assert stop()

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopOnSignal()
    signal.raise_signal(signal.SIGHUP)
    assert not stop()

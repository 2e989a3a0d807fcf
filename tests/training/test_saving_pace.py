from itertools import cycle

import pytest

from dg_batchformer.spec.options import RunOptions
from dg_batchformer.training.saving_pace import SavingPace


class Clock:
    """A clock that only moves when told to."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        patch.setattr("dg_batchformer.training.saving_pace.time.monotonic", lambda: self.now)


def _train(clock: Clock, pace: SavingPace, steps: int, *costs: float) -> tuple[list[float], list[float]]:
    """Train with steps of a second, and checkpoints that take ``costs`` in turns.

    Returns when checkpoints were saved, and their share of the time after each step.
    """
    began, next_cost, spent = clock.now, cycle(costs), 0.0
    moments: list[float] = []
    shares: list[float] = []
    for _ in range(steps):
        clock.now += 1
        if pace.due():
            moments.append(clock.now - began)
            with pace.saving():
                clock.now += (cost := next(next_cost))
            spent += cost
        shares.append(spent / (clock.now - began))
    return moments, shares


@pytest.mark.parametrize("cost", [0.01, 1.0, 4.5])
@pytest.mark.parametrize("save_seconds", [1.0, 60.0])
def test_saving_never_takes_more_than_a_fiftieth_of_the_time_since_training_began(monkeypatch, cost, save_seconds):
    clock = Clock(monkeypatch)

    pace = SavingPace(RunOptions(save_seconds=save_seconds), lambda: int(cost * 4e8))
    moments, shares = _train(clock, pace, 1000, cost, 1.25 * cost)

    assert len(moments) > 2
    assert max(shares) <= 0.02


def test_cheap_checkpoints_are_saved_at_the_interval_asked_for(monkeypatch):
    clock = Clock(monkeypatch)

    moments, _ = _train(clock, SavingPace(RunOptions(save_seconds=60.0), lambda: 4_000_000), 200, 0.0)

    assert moments == [60, 120, 180]


def test_a_first_checkpoint_slower_than_its_size_suggests_is_paid_for_before_the_next(monkeypatch):
    clock = Clock(monkeypatch)

    moments, shares = _train(clock, SavingPace(RunOptions(save_seconds=60.0), lambda: 4_000_000), 1000, 5.0)

    assert moments[:2] == [60, 563]
    assert shares[-1] <= 0.02


def test_zero_seconds_save_after_every_step(monkeypatch):
    clock = Clock(monkeypatch)

    moments, _ = _train(clock, SavingPace(RunOptions(save_seconds=0.0), lambda: 4_000_000_000), 3, 0.0)

    assert moments == [1, 2, 3]

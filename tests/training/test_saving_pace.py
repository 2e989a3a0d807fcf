import pytest

from dg_batchformer.spec.options import RunOptions
from dg_batchformer.training.saving_pace import SavingPace


class Clock:
    """A clock that only moves when told to."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        patch.setattr("dg_batchformer.training.saving_pace.time.monotonic", lambda: self.now)


def _train(clock: Clock, pace: SavingPace, steps: int, cost: float) -> tuple[list[float], list[float]]:
    """Train with steps of a second; return when checkpoints were saved, and their share of the time after each step."""
    began, moments, shares = clock.now, [], []
    for _ in range(steps):
        clock.now += 1
        if pace.due():
            moments.append(clock.now - began)
            with pace.saving():
                clock.now += cost
        shares.append(len(moments) * cost / (clock.now - began))
    return moments, shares


@pytest.mark.parametrize("cost", [0.01, 1.0, 4.5])
@pytest.mark.parametrize("save_seconds", [1.0, 60.0])
def test_saving_never_takes_more_than_a_fiftieth_of_the_time_since_training_began(monkeypatch, cost, save_seconds):
    clock = Clock(monkeypatch)

    moments, shares = _train(
        clock, SavingPace(RunOptions(save_seconds=save_seconds), lambda: int(cost * 4e8)), 1000, cost
    )

    assert len(moments) > 2
    assert max(shares) <= 0.02


def test_cheap_checkpoints_are_saved_at_the_interval_asked_for(monkeypatch):
    clock = Clock(monkeypatch)

    moments, _ = _train(clock, SavingPace(RunOptions(save_seconds=60.0), lambda: 4_000_000), 200, 0.0)

    assert moments == [60, 120, 180]


def test_a_first_checkpoint_slower_than_its_size_suggests_is_paid_for_before_the_next(monkeypatch):
    clock = Clock(monkeypatch)

    moments, shares = _train(clock, SavingPace(RunOptions(save_seconds=60.0), lambda: 4_000_000), 1000, 5.0)

    assert moments[:2] == [60, 500]
    assert shares[-1] <= 0.02


def test_zero_seconds_save_after_every_step(monkeypatch):
    clock = Clock(monkeypatch)

    moments, _ = _train(clock, SavingPace(RunOptions(save_seconds=0.0), lambda: 4_000_000_000), 3, 0.0)

    assert moments == [1, 2, 3]

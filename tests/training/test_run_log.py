"""Notes on a run that is being prepared."""

from dg_batchformer.training import run_log
from dg_batchformer.training.console import Console
from dg_batchformer.training.run_log import PIXEL_CACHE


def test_a_log_shows_every_minute_how_far_a_cache_is_and_how_long_it_takes(monkeypatch, capsys):
    now = iter([0.0, 30.0, 61.0, 90.0, 122.0, 150.0])
    monkeypatch.setattr(run_log.time, "monotonic", lambda: next(now))
    console = Console()

    for done in (1000, 1500, 2000, 2500, 3000, 4000):
        console.caching(PIXEL_CACHE, done, 4000)

    assert capsys.readouterr().out.splitlines() == [
        "note: building the pixel cache: 4,000 images",
        "note: pixel cache: 2,000 of 4,000 images (ETA 2 min)",
        "note: pixel cache: 3,000 of 4,000 images (ETA 61 s)",
    ]


def test_a_log_says_that_another_process_builds_a_cache_and_forgets_that_time_afterwards(monkeypatch, capsys):
    now = iter([0.0, 61.0, 100.0, 130.0, 191.0])
    monkeypatch.setattr(run_log.time, "monotonic", lambda: next(now))
    console = Console()

    for done in (0, 0, 0, 1000, 3000):  # at last, the other process was killed
        console.caching(PIXEL_CACHE, done, 4000)

    assert capsys.readouterr().out.splitlines() == [
        "note: waiting for another process that builds the pixel cache",
        "note: waiting for another process that builds the pixel cache",
        "note: building the pixel cache: 4,000 images",
        "note: pixel cache: 3,000 of 4,000 images (ETA 30 s)",
    ]

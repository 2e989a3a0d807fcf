"""Notes on a run that is being prepared."""

from dg_batchformer.training import console as console_module
from dg_batchformer.training import run_log
from dg_batchformer.training.console import Console
from dg_batchformer.training.run_log import FEATURE_CACHE, PIXEL_CACHE


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


def test_a_terminal_shows_a_bar_for_each_cache_that_says_whether_another_process_builds_it(monkeypatch, capsys):
    monkeypatch.setattr(console_module, "shows_bars", lambda: True)
    console, shown = Console(), []

    for cache, done, total in ((PIXEL_CACHE, 0, 40), (FEATURE_CACHE, 64, 360), (FEATURE_CACHE, 128, 360)):
        console.caching(cache, done, total)
        shown.append((console.bar.desc, console.bar.n, console.bar.total, console.bar.unit))
    console.close()

    assert shown == [
        ("waiting for another process: pixel cache: ", 0, 40, "image"),
        ("feature cache: ", 64, 360, "view"),
        ("feature cache: ", 128, 360, "view"),
    ]
    assert "feature cache:  18%" in capsys.readouterr().err

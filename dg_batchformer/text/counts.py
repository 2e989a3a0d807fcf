"""Format counts, lists of names and durations."""

from collections.abc import Sequence


def plural(noun: str, number: int) -> str:
    """Return the singular or plural of a noun: 1 trial, 3 trials."""
    return noun if number == 1 else f"{noun}s"


def how_many(number: int, noun: str) -> str:
    """Format a count with its noun in singular or plural."""
    return f"{number} {plural(noun, number)}"


def of_trials(seeds: Sequence[int]) -> str:
    """Name trials by their seeds: trial 1, trials 1, 2."""
    return f"{plural('trial', len(seeds))} {', '.join(map(str, seeds))}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Join names with commas, shortened to the first ``most``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def duration(seconds: float) -> str:
    """Format a duration in seconds: 45 s, 12 min, 3.4 h, 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} days"

#!/usr/bin/env python3
"""Simulate comparisons of two rows, and count how often the interval of ``compare`` covers the truth.

A paired difference in points is the gain plus three normal effects: of its environment, of its trial (common to all
environments), and noise. For each setting, coverage, claims without a gain (false positives), and claims of true gains
(power) are counted. Intervals and verdicts are those of ``compare``.
"""

import argparse
import csv
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass, fields
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from dg_batchformer.stats.comparison import Verdict, judge
from dg_batchformer.stats.pairs import Block
from dg_batchformer.stats.statistics import Interval, count_intervals, mean_interval

DESIGNS = ((1, 4), (1, 6), (2, 4), (3, 4))  # datasets, environments of each
TRIALS = (1, 2, 3, 10)
SPREADS = (0.0, 0.5, 2.0)  # standard deviations of environments and of trials; that of noise is 1
GAINS = (0.5, 1.0, 2.0)
POWER_AT = ((1.0, 0.5, 1.0), (0.5, 0.2, 0.5))  # standard deviations of environments, trials, noise
CLAIMS = (Verdict.BETTER, Verdict.WORSE)

Differences = npt.NDArray[np.float64]  # [rows, datasets, environments, trials]


@dataclass(frozen=True)
class Setting:
    """A design: standard deviations in points, and the size of the sweep.

    Args:
        rows: number of rows compared with the baseline. missing: share of missing pairs.

    """

    datasets: int
    environments: int
    trials: int
    environment: float
    trial: float
    noise: float
    rows: int = 1
    missing: float = 0.0

    @property
    def design(self) -> str:
        """Datasets x environments."""
        return f"{self.datasets}x{self.environments}"

    @property
    def spreads(self) -> str:
        """Standard deviations, as printed."""
        return f"{self.environment:g} / {self.trial:g} / {self.noise:g}"

    def draw(self, rng: np.random.Generator) -> Differences:
        """Draw differences of every row from the baseline where no row gains.

        Rows share the baseline, so half of every variance is common to them.
        """
        shape = (self.rows + 1, self.datasets, self.environments, self.trials)
        levels = (
            self.environment * rng.normal(size=(*shape[:3], 1))
            + self.trial * rng.normal(size=(shape[0], 1, 1, self.trials))
            + self.noise * rng.normal(size=shape)
        )
        return (levels[1:] - levels[0]) / np.sqrt(2)

    def blocks(self, differences: Differences, rng: np.random.Generator) -> list[Block]:
        """Return differences of one row as ``compare`` pairs them: [datasets, environments, trials]."""
        there = rng.random(differences.shape) >= self.missing
        found = []
        for dataset, env in np.ndindex(differences.shape[:2]):
            trials = np.flatnonzero(there[dataset, env])
            if len(trials):
                gains = tuple(differences[dataset, env, trials].tolist())
                place = str(dataset), str(env), tuple(trials.tolist())
                found.append(Block(place[0], *place, (0.0,) * len(gains), gains))
        return found


@dataclass(frozen=True)
class Outcome:
    """Shares of the repetitions of a setting.

    Args:
        coverage: all intervals hold the truth; where there is none, nothing is said that could be wrong.
        false_claims: some row is claimed to differ while none does.
        width: of the intervals on average, in points. power: a claim that the first row is better, by ``GAINS``.

    """

    coverage: float
    false_claims: float
    width: float
    power: tuple[float, ...]


def simulate(setting: Setting, repetitions: int, seed: int) -> Outcome:
    """Repeat the comparison of a setting."""
    rng = np.random.default_rng(seed)
    covered = claimed = 0
    widths, powers = [], np.zeros(len(GAINS))
    for _ in range(repetitions):
        rows = [setting.blocks(row, rng) for row in setting.draw(rng)]
        family = count_intervals(rows)
        found = [mean_interval(blocks, family=family) for blocks in rows]  # as compare does
        covered += all(interval is None or interval.low <= 0 <= interval.high for interval in found)
        claimed += any(judge(interval) in CLAIMS for interval in found)
        if found[0] is not None:
            low, high = found[0]
            widths.append(high - low)
            powers += [judge(Interval(low + gain, high + gain)) is Verdict.BETTER for gain in GAINS]
    width = float(np.mean(widths)) if widths else float("nan")
    return Outcome(covered / repetitions, claimed / repetitions, width, tuple((powers / repetitions).tolist()))


def settings(designs: Sequence[tuple[int, int]], trials: Sequence[int]) -> Iterator[Setting]:
    """Yield every setting of the honesty table: one row, then three rows and missing pairs at the extreme spreads."""
    extremes = (SPREADS[0], SPREADS[-1])
    for more, numbers, spreads in (
        ({}, trials, SPREADS),
        ({"rows": 3}, trials[-2:], extremes),
        ({"missing": 0.2}, trials[-2:], extremes),
    ):
        for (datasets, environments), number in product(designs, numbers):
            for environment, trial in product(spreads, spreads):
                yield Setting(datasets, environments, number, environment, trial, 1.0, **more)


def simulate_all(asked: Sequence[Setting], repetitions: int, seed: int, workers: int) -> dict[Setting, Outcome]:
    """Simulate settings in several processes; the seed alone decides the numbers."""
    with ProcessPoolExecutor(workers) as pool:
        found = pool.map(simulate, asked, [repetitions] * len(asked), [seed] * len(asked))
        return dict(zip(asked, found, strict=True))


def honesty(outcomes: dict[Setting, Outcome]) -> str:
    """Return the worst coverage and the most false claims of every design and number of trials, as a table."""
    groups: dict[tuple[object, ...], list[Setting]] = {}
    for setting in outcomes:
        kind = f"{setting.rows} rows" if setting.rows > 1 else "a fifth missing" if setting.missing else "1 row"
        groups.setdefault((kind, setting.design, setting.trials), []).append(setting)
    lines = []
    for place, members in groups.items():
        least = min(members, key=lambda setting: outcomes[setting].coverage)
        most = max(members, key=lambda setting: outcomes[setting].false_claims)
        if members[0].trials == 1:
            lines.append([*place, "no interval", "", "none", ""])
        else:
            shares = percent(outcomes[least].coverage), percent(outcomes[most].false_claims)
            lines.append([*place, shares[0], least.spreads, shares[1], most.spreads])
    headers = ["compared", "environments", "trials", "least coverage", "at", "most false claims", "at"]
    return tabulate(lines, headers, tablefmt="pipe", disable_numparse=True)


def power(outcomes: dict[Setting, Outcome]) -> str:
    """Return the power, the probability of claiming a true gain, as a table."""
    lines = []
    for setting, outcome in outcomes.items():
        width = "no interval" if np.isnan(outcome.width) else f"± {outcome.width / 2:.1f}"
        lines.append([setting.spreads, setting.design, str(setting.trials), width, *map(percent, outcome.power)])
    headers = ["spreads", "environments", "trials", "interval", *(f"gain {gain:g}" for gain in GAINS)]
    return tabulate(lines, headers, tablefmt="pipe", disable_numparse=True)


def percent(share: float) -> str:
    """Format a share."""
    return f"{100 * share:.1f} %"


def write_csv(path: Path, outcomes: dict[Setting, Outcome]) -> None:
    """Write a line for every setting with its outcome."""
    with path.open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        names = [field.name for field in fields(Setting)]
        lines.writerow([*names, "coverage", "false_claims", "width", *(f"power_{gain:g}" for gain in GAINS)])
        for setting, outcome in outcomes.items():
            shares = (outcome.coverage, outcome.false_claims, round(outcome.width, 3), *outcome.power)
            lines.writerow([*astuple(setting), *shares])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=10_000, help="of every setting (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="1x4 and 2x4 environments, up to 3 trials, 300 repetitions"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write every setting there")
    options = parser.parse_args()
    designs, trials = (((1, 4), (2, 4)), (1, 2, 3)) if options.quick else (DESIGNS, TRIALS)
    repetitions = 300 if options.quick else options.repetitions

    asked = list(settings(designs, trials))
    powered = [Setting(*design, number, *spreads) for spreads, design, number in product(POWER_AT, designs, trials)]
    found = simulate_all([*asked, *powered], repetitions, options.seed, options.workers)
    print(
        f"{repetitions:,} repetitions of every setting, seed {options.seed}; spreads are standard deviations in points"
    )
    print("of environments / trials / noise.\n")
    print(honesty({one: found[one] for one in asked}), power({one: found[one] for one in powered}), sep="\n\n")
    if options.csv is not None:
        write_csv(options.csv, found)


if __name__ == "__main__":
    main()

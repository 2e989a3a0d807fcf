"""What a comparison says in words: one sentence, and what to beware of."""

from collections import defaultdict
from collections.abc import Sequence

from dg_batchformer.report.collection import how_many
from dg_batchformer.report.comparison import Comparison, Missing, Verdict
from dg_batchformer.report.pairs import Block, by_dataset
from dg_batchformer.report.statistics import ALPHA, MIN_BLOCKS, RESAMPLES

MIN_TRIALS = 3

DEPENDENCE = (
    "Environments of a dataset share training data: each is trained on when another one is held out. "
    "So they are not independent, and intervals and p-values are optimistic."
)
PROCEDURE = (
    f"The interval is of {RESAMPLES:,} bootstrap resamples: of environments within their dataset, then of trials "
    "within each environment. Means are over environments, then over datasets, as in DomainBed."
)


def signed(points: float) -> str:
    """Return a difference in percentage points with its sign, 0.0 without one."""
    return f"{points:+.1f}" if round(points, 1) else "0.0"


def p_text(p: float) -> str:
    """Return a p-value as people print it."""
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def sentence(comparison: Comparison) -> str:
    """Return whether B helps, by how much, and how sure that is."""
    a, b, mean = comparison.baseline, comparison.other, comparison.mean
    verdict = comparison.verdict
    if mean is None:
        needs = "; it needs a sweep with 'pairs: true'" if comparison.method.needs_pairs else ""
        return f"{a} and {b} cannot be compared: no trial has a test accuracy of both{needs}."
    where = _where(comparison)
    if verdict is Verdict.FEW:
        place = f"{abs(mean):.1f} points {'above' if mean > 0 else 'below'}" if round(mean, 1) else "level with"
        few = how_many(len(comparison.blocks), "environment")
        be = "is" if len(comparison.blocks) == 1 else "are"
        return f"{b} is {place} {a}{_interval(comparison)} {where}, but {few} {be} too few to tell whether it helps."
    if verdict is Verdict.EQUAL:
        return f"{b} is level with {a}, to 0.1 points{_interval(comparison)}, {where}."
    if verdict is Verdict.OPEN:
        return (
            f"The runs do not tell whether {b} improves on {a}: "
            f"the difference is {signed(mean)} points{_interval(comparison)} {where}."
        )
    does = "improves on" if verdict is Verdict.BETTER else "falls behind"
    return f"{b} {does} {a} by {abs(mean):.1f} points{_interval(comparison)} {where}{_reservation(comparison)}."


def _where(comparison: Comparison) -> str:
    names = list(by_dataset(comparison.blocks))
    if len(comparison.blocks) == 1:
        only = comparison.blocks[0]
        return f"on {_environment(only)}"
    datasets = f"{len(names)} datasets ({', '.join(names)})" if len(names) > 1 else names[0]
    return f"on average over {len(comparison.blocks)} environments of {datasets}"


def _interval(comparison: Comparison) -> str:
    """Return the interval: of the size where a direction is claimed, else of the difference, with its signs."""
    if comparison.interval is None:
        return ""
    low, high = comparison.interval
    if comparison.verdict is Verdict.BETTER:
        return f" (95 % interval {low:.1f} to {high:.1f})"
    if comparison.verdict is Verdict.WORSE:
        return f" (95 % interval {-high:.1f} to {-low:.1f})"
    return f" (95 % interval {signed(low)} to {signed(high)})"


def _reservation(comparison: Comparison) -> str:
    p = comparison.signed_rank.corrected
    if p is None or p < ALPHA:
        return ""
    return f", which the signed-rank test does not confirm ({p_text(p)})"


def warnings(comparison: Comparison) -> list[str]:
    """Return what the runs are too few for, and what is left out."""
    blocks, found = comparison.blocks, []
    if 0 < len(blocks) < MIN_BLOCKS:
        few, best = how_many(len(blocks), "environment"), 2 / 2 ** len(blocks)
        found.append(
            f"no p-values: tests of {few} give p = {best:.3f} at best, "
            f"and can give less than {ALPHA} from {MIN_BLOCKS} on"
        )
    if 1 < len(blocks) < MIN_BLOCKS:
        found.append(
            "an interval of so few environments is too narrow: with 4 it holds the truth in as few as 84 of 100 cases"
        )
    alone = [names[0] for names in by_dataset(blocks).values() if len(names) == 1 < len(blocks)]
    if len(alone) == 1:
        where = _environment(alone[0])
        found.append(f"{where} is the only environment of its dataset here: the interval lacks how these differ")
    thin = [block for block in blocks if len(block.trials) < MIN_TRIALS]
    if thin:
        where = ", ".join(f"{_environment(block)} ({len(block.trials)})" for block in thin)
        found.append(f"fewer than {MIN_TRIALS} trials, so chance weighs much: {where}")
    return [*found, *_left_out(comparison)]


def _left_out(comparison: Comparison) -> list[str]:
    """Return the pairs that are missing, by the rows that lack them."""
    lacking: dict[tuple[str, ...], list[Missing]] = defaultdict(list)
    for pair in comparison.missing:
        lacking[pair.lacking].append(pair)
    total = sum(len(block.trials) for block in comparison.blocks) + len(comparison.missing)
    return [
        f"{len(pairs)} of {total} pairs left out, without a test accuracy of {' and of '.join(rows)}: {_pairs(pairs)}"
        for rows, pairs in lacking.items()
    ]


def _pairs(pairs: Sequence[Missing]) -> str:
    """Return pairs by name, environments that lack the same trials together."""
    trials: dict[tuple[str, str], list[int]] = defaultdict(list)
    for pair in pairs:
        trials[pair.dataset, pair.environment].append(pair.trial)
    environments: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for (dataset, name), found in trials.items():
        environments[dataset, tuple(found)].append(name)
    return "; ".join(
        f"{dataset}/{', '.join(names)} (trial{'s' * (len(found) > 1)} {', '.join(map(str, found))})"
        for (dataset, found), names in environments.items()
    )


def _environment(block: Block) -> str:
    return f"{block.dataset}/{block.environment}"

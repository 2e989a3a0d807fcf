"""Describe a comparison: the verdict sentence, and warnings."""

from collections import defaultdict
from collections.abc import Sequence

from dg_batchformer.results.metrics import ACCURACY
from dg_batchformer.stats.comparison import Comparison, Missing, Verdict
from dg_batchformer.stats.pairs import Block, effects
from dg_batchformer.stats.statistics import ALPHA, MIN_ENVIRONMENTS, max_trials
from dg_batchformer.text.counts import how_many, plural

MIN_TRIALS = 3

PROCEDURE = (
    "The 95 % interval adds two t intervals of the mean difference in quadrature: one over environments, within their "
    "dataset, and one over trials. Means are over environments, then over datasets, as in DomainBed."
)
SETTINGS = (
    "Settings of a dataset have the same environments: in the interval and the tests, each counts once, with its mean "
    "over the settings."
)
DEPENDENCE = (
    "Environments of a dataset share training data: each is trained on when another one is held out. "
    "Neither the interval nor the tests account for that dependence. The tests also treat the environments of a trial "
    "as independent, so the verdict is based on the interval alone."
)


def signed(points: float) -> str:
    """Format a difference in percentage points with its sign; zero has none."""
    return f"{points:+.1f}" if round(points, 1) else "0.0"


def p_text(p: float) -> str:
    """Format a p-value: p = 0.012, or p < 0.001."""
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def sentence(comparison: Comparison) -> str:
    """Return the verdict sentence with difference and interval, then differences beyond the algorithm."""
    return _said(comparison) + _apart(comparison)


def joint_coverage(family: int) -> str:
    """Return a sentence on the coverage of several intervals."""
    return f"The intervals of {family} rows have a joint coverage of 95 % (Bonferroni)."


def _apart(comparison: Comparison) -> str:
    differs = comparison.conditions.differs.get(comparison.other)
    return f" The rows differ in more than the algorithm: {'; '.join(differs)}." if differs else ""


def _said(comparison: Comparison) -> str:
    a, b, mean = comparison.baseline, comparison.other, comparison.mean
    verdict = comparison.verdict
    if mean is None:
        needs = "; it needs a sweep with 'pairs: true'" if comparison.method.needs_pairs else ""
        return f"{a} and {b} cannot be compared: no trial has a {comparison.metric.title} for both{needs}."
    where = f"{_what(comparison)}{_where(comparison)}"
    if verdict is Verdict.FEW:
        place = f"{abs(mean):.1f} points {'above' if mean > 0 else 'below'}" if round(mean, 1) else "level with"
        return f"{b} is {place} {a} {where}, but {_why_too_few(comparison.blocks)}."
    if verdict is Verdict.EQUAL:
        return f"{b} is level with {a}, to 0.1 points{_interval(comparison)}, {where}."
    if verdict is Verdict.OPEN:
        return (
            f"These runs do not show whether {b} improves on {a}: "
            f"the difference is {signed(mean)} points{_interval(comparison)} {where}."
        )
    does = "improves on" if verdict is Verdict.BETTER else "falls behind"
    return f"{b} {does} {a} by {abs(mean):.1f} points{_interval(comparison)} {where}."


def order(comparison: Comparison) -> str:
    """Return whether B's lead over A may be due to chance, then differences beyond the algorithm."""
    return _order(comparison) + _apart(comparison)


def _order(comparison: Comparison) -> str:
    verdict = comparison.verdict
    if verdict is Verdict.BETTER:
        return f"The lead is unlikely to be due to chance{_interval(comparison)}."
    if verdict is Verdict.EMPTY:
        return "The order may be due to chance: no trial has a test accuracy for both."
    if verdict is Verdict.FEW:
        return f"The order may be due to chance: {_why_too_few(comparison.blocks)}."
    difference = f"{signed(comparison.mean or 0)} points{_interval(comparison)}"
    return f"The order may be due to chance: the difference is {difference}."


def _what(comparison: Comparison) -> str:
    """Name the metric, unless it is the accuracy."""
    return "" if comparison.metric is ACCURACY else f"in {comparison.metric.title}, "


def _where(comparison: Comparison) -> str:
    blocks = comparison.blocks
    if len(blocks) == 1:
        return f"on {_environment(blocks[0])}"
    names = list(dict.fromkeys(block.dataset for block in blocks))
    benchmarks = dict.fromkeys(block.benchmark for block in blocks)
    if len(benchmarks) == 1:
        names = list(benchmarks)
    datasets = f"{len(names)} datasets ({', '.join(names)})" if len(names) > 1 else names[0]
    settings = list(dict.fromkeys(block.setting for block in blocks))
    tried = f" in {len(settings)} settings ({', '.join(settings)})" if len(benchmarks) > len(names) else ""
    return f"on average over {how_many(len(effects(blocks)), 'environment')} of {datasets}{tried}"


def _interval(comparison: Comparison) -> str:
    """Format the interval: of the absolute difference if a direction is claimed, else with signs."""
    if comparison.interval is None:
        return ""
    low, high = comparison.interval
    if comparison.verdict is Verdict.BETTER:
        return f" (95 % interval {low:.1f} to {high:.1f})"
    if comparison.verdict is Verdict.WORSE:
        return f" (95 % interval {-high:.1f} to {-low:.1f})"
    return f" (95 % interval {signed(low)} to {signed(high)})"


def _why_too_few(blocks: Sequence[Block]) -> str:
    if len(blocks) == 1:
        return "one environment does not show whether it helps on others"
    return "one trial cannot separate a gain from the randomness of splits and seeds; run at least 3 trials"


def warnings(comparison: Comparison) -> list[str]:
    """Return warnings about small samples and missing pairs."""
    blocks, found = comparison.blocks, []
    environments = effects(blocks)
    if 0 < len(environments) < MIN_ENVIRONMENTS:
        few, best = how_many(len(environments), "environment"), 2 / 2 ** len(environments)
        found.append(
            f"no p-values: a test on {few} gives p = {best:.3f} at best; "
            f"{MIN_ENVIRONMENTS} or more are needed for less than {ALPHA}"
        )
    places = [f"{effect.dataset}/{effect.environment}" for effect in environments]
    datasets = [effect.dataset for effect in environments]
    alone = [
        place for place, dataset in zip(places, datasets, strict=True) if datasets.count(dataset) == 1 < len(places)
    ]
    if alone and max_trials(blocks) > 1:
        where = ", ".join(alone)
        found.append(
            f"the only environment of its dataset: {where}; so the interval pools the environments of all datasets"
        )
    thin = [block for block in blocks if len(block.trials) < MIN_TRIALS]
    if thin:
        where = ", ".join(f"{_environment(block)} ({len(block.trials)})" for block in thin)
        found.append(f"fewer than {MIN_TRIALS} trials, so no interval or a wide one: {where}")
    return [*found, *_left_out(comparison)]


def _left_out(comparison: Comparison) -> list[str]:
    """Return one warning per set of rows that lacks pairs."""
    lacking: dict[tuple[str, ...], list[Missing]] = defaultdict(list)
    for pair in comparison.missing:
        lacking[pair.lacking].append(pair)
    total = sum(len(block.trials) for block in comparison.blocks) + len(comparison.missing)
    return [
        f"{len(pairs)} of {total} pairs left out, without a {comparison.metric.title} of {' and of '.join(rows)}: "
        f"{_pairs(pairs)}"
        for rows, pairs in lacking.items()
    ]


def _pairs(pairs: Sequence[Missing]) -> str:
    """Return pairs by name, environments that lack the same trials together."""
    trials: dict[tuple[str, str], list[int]] = defaultdict(list)
    for pair in pairs:
        trials[pair.benchmark, pair.environment].append(pair.trial)
    environments: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for (benchmark, name), found in trials.items():
        environments[benchmark, tuple(found)].append(name)
    return "; ".join(
        f"{benchmark}/{', '.join(names)} ({plural('trial', len(found))} {', '.join(map(str, found))})"
        for (benchmark, found), names in environments.items()
    )


def _environment(block: Block) -> str:
    return f"{block.benchmark}/{block.environment}"

"""The tables that DomainBed's ``collect_results`` prints for the same folder, byte for byte.

They follow its rules where ours differ: unfinished runs count, averages are over whatever environments there are,
datasets that it does not know are left out, and LaTeX headers are cut to the width of the column.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf, isnan
from pathlib import Path

import numpy as np

from dg_batchformer.catalog import ALGORITHM_ORDER, DATASETS, DOMAINBED_DATASETS
from dg_batchformer.errors import InputError
from dg_batchformer.report.evaluations import Evaluations, Floats, concatenate
from dg_batchformer.report.index import read_folders
from dg_batchformer.report.runs import TrainedRun, whole_runs
from dg_batchformer.report.selection import METHODS

_ENVIRONMENTS = {name: DATASETS[name].labels for name in DOMAINBED_DATASETS}


@dataclass(frozen=True)
class _Choice:
    """What a selection method takes of a draw: the validation accuracy that it goes by, and the test accuracy."""

    validation: float
    test: float


@dataclass(frozen=True)
class _Chosen:
    trial: int
    env: int
    test: float


Choose = Callable[[Sequence[TrainedRun], int], _Choice | None]  # (runs of one draw, test environment)


def domainbed_tables(folders: Sequence[Path], methods: Sequence[str], *, latex: bool) -> str:
    """Return DomainBed's tables of the runs directly below some folders.

    Args:
        methods: of ``CHOOSE``, in the order in which they are printed.

    """
    files = [file for folder in folders for file in read_folders(folder).values()]
    runs = [run for file in files for run in file.runs if _is_placed(run)]
    if not runs:
        raise InputError(f"{', '.join(map(str, folders))}: no folder below holds a results.jsonl with records")
    total = sum(len(run.evaluations) for run in runs)
    lines = [*_LATEX_HEAD, f"% Total records: {total}"] if latex else [f"Total records: {total}"]
    for name in methods:
        if latex:
            lines += ["", rf"\subsection{{Model selection: {METHODS[name].title}}}"]
        lines += _method_tables(runs, METHODS[name].title, CHOOSE[name], latex=latex)
    return "\n".join([*lines, *([r"\end{document}"] if latex else [])]) + "\n"


def _is_placed(run: TrainedRun) -> bool:
    with suppress(ValueError):
        run.place()
        return True
    return False


_LATEX_HEAD = (
    r"\documentclass{article}",
    r"\usepackage{booktabs}",
    r"\usepackage{adjustbox}",
    r"\begin{document}",
    r"\section{Full DomainBed results}",
)


def _method_tables(runs: Sequence[TrainedRun], title: str, choose: Choose, *, latex: bool) -> Iterator[str]:
    chosen = _choose(runs, choose)
    found = dict.fromkeys(run.args["algorithm"] for run in runs)
    algorithms = [name for name in ALGORITHM_ORDER if name in found]
    algorithms += [name for name in found if name not in ALGORITHM_ORDER]
    there = {run.args["dataset"] for run in runs}
    datasets = [name for name in _ENVIRONMENTS if name in there]
    for dataset in datasets:
        yield from _heading(dataset, f"Dataset: {dataset}, model selection method: {title}", latex=latex)
        envs = range(len(_ENVIRONMENTS[dataset]))
        cells = [[_trials(chosen.get((dataset, name), []), env) for env in envs] for name in algorithms]
        yield from _table(["Algorithm", *_ENVIRONMENTS[dataset], "Avg"], algorithms, cells, 20, latex=latex)
    yield from _heading("Averages", f"Averages, model selection method: {title}", latex=latex)
    cells = [
        [_trial_averages(chosen.get((dataset, algorithm), [])) for dataset in datasets] for algorithm in algorithms
    ]
    yield from _table(["Algorithm", *datasets, "Avg"], algorithms, cells, 25, latex=latex)


def _heading(title: str, said: str, *, latex: bool) -> list[str]:
    return ["", rf"\subsubsection{{{title}}}", ""] if latex else ["", f"-------- {said}"]


def _choose(runs: Sequence[TrainedRun], choose: Choose) -> Mapping[tuple[str, str], Sequence[_Chosen]]:
    """Choose a draw for every (dataset, algorithm), trial and environment; of equals, the largest hparams seed."""
    groups: dict[tuple[int, str, str, int], dict[int, list[TrainedRun]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        dataset, algorithm, envs, trial, draw = run.place()
        for env in envs:
            groups[trial, dataset, algorithm, env][draw].append(run)
    chosen: dict[tuple[str, str], list[_Chosen]] = defaultdict(list)
    for (trial, dataset, algorithm, env), by_draw in groups.items():
        choices = [choose(by_draw[draw], env) for draw in sorted(by_draw, reverse=True)]
        found = [choice for choice in choices if choice is not None]
        if found:
            best = max(found, key=lambda choice: -inf if isnan(choice.validation) else choice.validation)
            chosen[dataset, algorithm].append(_Chosen(trial, env, best.test))
    return chosen


def _evaluations(runs: Sequence[TrainedRun], held_out: int) -> Evaluations:
    """Return the evaluations of runs that hold out so many environments, in the order of folders and files."""
    found = [run.evaluations for run in runs if len(run.args["test_envs"]) == held_out]
    return concatenate(found) if found else Evaluations.of([])


def _validation_mean(evaluations: Evaluations, env: int) -> Floats:
    """Return the mean accuracy on the held-out splits of the other environments [R]."""
    keys = [f"env{other}_out_acc" for other in range(evaluations.num_environments) if other != env]
    values, _ = evaluations.columns(keys)
    return np.ascontiguousarray(values).mean(axis=1) if keys else np.full(len(evaluations), np.nan)


def _first_max(values: Floats) -> int:
    """Return where Python's max finds the highest: where NaN stands first, there, else never at a NaN."""
    listed = values.tolist()
    return max(range(len(listed)), key=listed.__getitem__)


def _choose_training_domain(runs: Sequence[TrainedRun], env: int) -> _Choice | None:
    evaluations = _evaluations(runs, 1)
    if not len(evaluations):
        return None
    validation = _validation_mean(evaluations, env)
    place = _first_max(validation)
    return _Choice(validation[place], evaluations.column(f"env{env}_in_acc")[place])


def _choose_oracle(runs: Sequence[TrainedRun], env: int) -> _Choice | None:
    evaluations = _evaluations(runs, 1)
    if not len(evaluations):
        return None
    place = int(np.argsort(evaluations.steps, kind="stable")[-1])
    return _Choice(evaluations.column(f"env{env}_out_acc")[place], evaluations.column(f"env{env}_in_acc")[place])


def _choose_leave_one_out(runs: Sequence[TrainedRun], env: int) -> _Choice | None:
    if all(len(run.args["test_envs"]) == 1 for run in runs):
        return None
    single = _evaluations(runs, 1)
    others = [other for other in range(single.num_environments) if other != env]
    pairs: dict[int, dict[int, float]] = {other: {} for other in others}  # accuracy on the other, by step
    for run in runs:
        if len(run.args["test_envs"]) == 2:
            [other] = set(run.args["test_envs"]) - {env}
            values = run.evaluations.column(f"env{other}_in_acc").tolist()
            pairs.get(other, {}).update(zip(run.evaluations.steps.tolist(), values, strict=True))
    steps = single.steps.tolist()
    once = Counter(steps)
    places = [
        place
        for place in np.argsort(single.steps, kind="stable").tolist()
        if once[steps[place]] == 1 and all(steps[place] in pair for pair in pairs.values())
    ]
    if not places or not others:
        return None
    validation = np.array([[pair[steps[place]] for pair in pairs.values()] for place in places]).sum(axis=1) / len(
        others
    )
    best = _first_max(validation)
    return _Choice(validation[best], single.column(f"env{env}_in_acc")[places[best]])


def _choose_auto_lr(runs: Sequence[TrainedRun], env: int) -> _Choice | None:
    choices = []
    for run in whole_runs([run for run in runs if len(run.args["test_envs"]) == 1]):
        last = run.evaluations.latest()
        test = last.get(f"fd_env{env}_in_acc")
        held_out = [f"env{other}_out_acc" for other in range(run.evaluations.num_environments) if other != env]
        if test is not None and all(key in last for key in held_out):
            choices.append(_Choice(float(np.mean([last[key] for key in held_out])), test))
    return choices[_first_max(np.array([choice.validation for choice in choices]))] if choices else None


CHOOSE: Mapping[str, Choose] = {
    "training-domain": _choose_training_domain,
    "leave-one-domain-out": _choose_leave_one_out,
    "oracle": _choose_oracle,
    "auto-lr": _choose_auto_lr,
}


def _trials(chosen: Sequence[_Chosen], env: int) -> list[float]:
    return [choice.test for choice in chosen if choice.env == env]


def _trial_averages(chosen: Sequence[_Chosen]) -> list[float]:
    trials = sorted({choice.trial for choice in chosen})
    return [float(np.mean([choice.test for choice in chosen if choice.trial == trial])) for trial in trials]


def _table(
    header: Sequence[str], algorithms: Sequence[str], cells: Sequence[Sequence[list[float]]], width: int, *, latex: bool
) -> list[str]:
    """Print rows of cells, each the test accuracies over trials, and their mean, cut to a width."""
    rows = [
        [name, *(_mean_and_error(cell, latex=latex) for cell in row), _average(row)]
        for name, row in zip(algorithms, cells, strict=True)
    ]
    if not latex:
        return [_row(row, width, "  ", " ") for row in [header, *rows]]
    bold = [r"\textbf{" + name.replace("%", r"\%") + "}" for name in header]
    return [
        r"\begin{center}",
        r"\adjustbox{max width=\textwidth}{%",
        rf"\begin{{tabular}}{{l{'c' * (len(header) - 1)}}}",
        r"\toprule",
        _row(bold, width, " & ", r" \\"),
        r"\midrule",
        *(_row(row, width, " & ", r" \\") for row in rows),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{center}",
    ]


def _row(cells: Sequence[str], width: int, separator: str, end: str) -> str:
    return separator.join(cell.ljust(width)[:width] for cell in cells) + end


def _mean_and_error(tests: Sequence[float], *, latex: bool) -> str:
    if not tests:
        return "X"
    error = 100 * np.std(np.array(tests) / np.sqrt(len(tests)))
    plus_minus = r"$\pm$" if latex else "+/-"
    return f"{100 * np.mean(tests):.1f} {plus_minus} {error:.1f}"


def _average(cells: Sequence[Sequence[float]]) -> str:
    if not all(cells):
        return "X"
    means = [100 * np.mean(tests) for tests in cells]
    return f"{sum(means) / len(means):.1f}" if means else "X"

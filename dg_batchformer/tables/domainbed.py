"""Reproduce the tables of DomainBed's ``collect_results`` byte for byte.

They follow its rules: unfinished runs count, averages are over any available environments, datasets that it does not
know are skipped, and LaTeX headers are truncated to the column width.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from dg_batchformer.catalog.datasets import DATASETS, DOMAINBED_DATASETS, DOMAINBED_ORDER, known_first
from dg_batchformer.errors import InputError
from dg_batchformer.results.domainbed_selection import CHOOSE, Chosen, choose_draws, group_runs
from dg_batchformer.results.runs import RecordsFile, RunRecords
from dg_batchformer.results.selection import METHODS
from dg_batchformer.tables.render.latex_text import TEXT

_COMMANDS = "\\{}$&#^~%[*"
_ENVIRONMENTS = {name: DATASETS[name].labels for name in DOMAINBED_DATASETS}


def domainbed_tables(files: Iterable[RecordsFile], methods: Sequence[str], *, latex: bool) -> str:
    """Return DomainBed's tables of runs; raise InputError if there are no runs.

    Args:
        files: in the order of their folders.
        methods: names in ``CHOOSE``, in printing order.
        latex: print LaTeX instead of text.

    """
    runs = _placed(files)
    if not runs:
        raise InputError("no folder there has a results.jsonl with records, so DomainBed has nothing to print")
    groups = group_runs(runs)
    algorithms = known_first((run.place.algorithm for run in runs), DOMAINBED_ORDER)
    there = {run.place.dataset for run in runs}
    datasets = [name for name in _ENVIRONMENTS if name in there]
    total = sum(len(run.evaluations) for run in runs)
    lines = [*_LATEX_HEAD, f"% Total records: {total}"] if latex else [f"Total records: {total}"]
    for name in methods:
        if latex:
            lines += ["", rf"\subsection{{Model selection: {METHODS[name].title}}}"]
        chosen = choose_draws(groups, CHOOSE[name])
        lines += _method_tables(chosen, algorithms, datasets, METHODS[name].title, latex=latex)
    return "\n".join([*lines, *([r"\end{document}"] if latex else [])]) + "\n"


def left_out(files: Iterable[RecordsFile]) -> list[str]:
    """Return the datasets of runs for which DomainBed has no table, sorted."""
    return sorted({run.place.dataset for run in _placed(files)} - set(DOMAINBED_DATASETS))


def _placed(files: Iterable[RecordsFile]) -> list[RunRecords]:
    """Return the runs whose args define their position in a sweep."""
    return [run for file in files for run in file.runs if _is_placed(run)]


def _is_placed(run: RunRecords) -> bool:
    try:
        return bool(run.place)
    except ValueError:
        return False


_LATEX_HEAD = (
    r"\documentclass{article}",
    r"\usepackage{booktabs}",
    r"\usepackage{adjustbox}",
    r"\begin{document}",
    r"\section{Full DomainBed results}",
)


def _method_tables(
    chosen: Mapping[tuple[str, str], Sequence[Chosen]],
    algorithms: Sequence[str],
    datasets: Sequence[str],
    title: str,
    *,
    latex: bool,
) -> Iterator[str]:
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


def _trials(chosen: Sequence[Chosen], env: int) -> list[float]:
    return [choice.test for choice in chosen if choice.env == env]


def _trial_averages(chosen: Sequence[Chosen]) -> list[float]:
    trials = sorted({choice.trial for choice in chosen})
    return [float(np.mean([choice.test for choice in chosen if choice.trial == trial])) for trial in trials]


def _table(
    header: Sequence[str], algorithms: Sequence[str], cells: Sequence[Sequence[list[float]]], width: int, *, latex: bool
) -> list[str]:
    """Format rows of cells (test accuracies over trials) with their average, truncated to the column width."""
    rows = [
        [
            _harmless(name, width) if latex else name,
            *(_mean_and_error(cell, latex=latex) for cell in row),
            _average(row),
        ]
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


def _harmless(name: str, width: int) -> str:
    """Return a name truncated to a width, with LaTeX commands escaped, which DomainBed would print raw."""
    cut = ""
    for character in name:
        spelled = TEXT[character] if character in _COMMANDS else character
        if len(cut + spelled) > width:
            break
        cut += spelled
    return cut


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

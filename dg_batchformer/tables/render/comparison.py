"""Render comparisons as text, Markdown, LaTeX and JSON."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from tabulate import tabulate

from dg_batchformer.results.metrics import ACCURACY
from dg_batchformer.stats.comparison import Comparison, PValue
from dg_batchformer.stats.pairs import average, effects
from dg_batchformer.stats.statistics import LEVEL
from dg_batchformer.stats.verdict import (
    DEPENDENCE,
    PROCEDURE,
    SETTINGS,
    joint_coverage,
    p_text,
    sentence,
    signed,
    warnings,
)
from dg_batchformer.tables.render.latex_text import escape
from dg_batchformer.text.counts import how_many
from dg_batchformer.text.printable import in_markdown

_ALIGNMENT = ("left", "left", "right", "right", "right", "right")


def comparison_text(comparisons: Sequence[Comparison]) -> str:
    """Render comparisons as text."""
    parts = []
    for comparison in comparisons:
        parts.append(f"Model selection: {comparison.method.title}\n{sentence(comparison)}")
        if comparison.blocks:
            body = tabulate(_cells(comparison), _headers(comparison), disable_numparse=True, colalign=_ALIGNMENT)
            parts.append("\n".join([body, *(f"- {line}" for line in _facts(comparison))]))
        parts.append("\n".join(f"warning: {warning}" for warning in warnings(comparison)))
    return "\n\n".join([*filter(None, parts), *_notes(comparisons)]) + "\n"


def comparison_markdown(comparisons: Sequence[Comparison]) -> str:
    """Render comparisons as GitHub Markdown."""
    parts = []
    for comparison in comparisons:
        title = f"{comparison.other} against {comparison.baseline}: {comparison.method.title}"
        parts.append(f"## {in_markdown(title)}")
        parts.append(f"**{in_markdown(sentence(comparison))}**")
        if comparison.blocks:
            headers = [in_markdown(header) for header in _headers(comparison)]
            cells = [[in_markdown(cell) for cell in row] for row in _cells(comparison)]
            parts.append(tabulate(cells, headers, tablefmt="pipe", disable_numparse=True, colalign=_ALIGNMENT))
        lines = [*_facts(comparison), *(f"Warning: {warning}" for warning in warnings(comparison))]
        parts.append("\n".join(f"- {in_markdown(line)}" for line in lines))
    return "\n\n".join([*filter(None, parts), *map(in_markdown, _notes(comparisons))]) + "\n"


def comparison_json(comparisons: Sequence[Comparison]) -> str:
    """Render comparisons as a list of JSON objects; numbers in percent and percentage points, null if missing."""
    return json.dumps([_object(comparison) for comparison in comparisons], indent=2, ensure_ascii=False) + "\n"


def comparison_latex(comparisons: Sequence[Comparison]) -> str:
    """Render comparisons as LaTeX tables to include in a paper, with the verdict as caption; needs booktabs."""
    parts = []
    for comparison in comparisons:
        title = f"Model selection: {comparison.method.title}."
        lines = [r"\begin{table}[t]", r"\centering", rf"\caption{{{escape(sentence(comparison))} {escape(title)}}}"]
        if comparison.blocks:
            lines += [rf"\begin{{tabular}}{{{''.join(align[0] for align in _ALIGNMENT)}}}", r"\toprule"]
            lines += [_latex_row(_headers(comparison)), r"\midrule"]
            *rows, last = _cells(comparison)
            lines += [_latex_row(row) for row in rows]
            lines += [*([r"\midrule"] if len(comparison.blocks) > 1 else []), _latex_row(last)]
            lines += [r"\bottomrule", r"\end{tabular}"]
        notes = [*_facts(comparison), *(f"Warning: {warning}" for warning in warnings(comparison))]
        lines += [rf"\par\smallskip{{\footnotesize {escape(note)}.\par}}" for note in notes]
        parts.append("\n".join([*lines, r"\end{table}"]))
    notes = [f"% {note}" for note in _notes(comparisons)]
    return "\n\n".join([*parts, "\n".join(notes)]).rstrip() + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(escape, cells)) + r" \\"


COMPARISON_FORMATS: dict[str, Callable[[Sequence[Comparison]], str]] = {
    "text": comparison_text,
    "markdown": comparison_markdown,
    "latex": comparison_latex,
    "json": comparison_json,
}


def _headers(comparison: Comparison) -> list[str]:
    return ["dataset", "environment", comparison.baseline, comparison.other, "difference", "trials"]


def _cells(comparison: Comparison) -> list[list[str]]:
    """Return one row per block, then their average."""
    blocks = comparison.blocks
    lines = [
        [
            block.benchmark,
            block.environment,
            f"{block.baseline_mean:.1f}",
            f"{block.other_mean:.1f}",
            signed(block.difference),
            str(len(block.trials)),
        ]
        for block in blocks
    ]
    if len(blocks) > 1 and comparison.mean is not None:
        first = average(blocks, [block.baseline_mean for block in blocks])
        second = average(blocks, [block.other_mean for block in blocks])
        lines.append(["Average", "", f"{first:.1f}", f"{second:.1f}", signed(comparison.mean), ""])
    return lines


def _facts(comparison: Comparison) -> list[str]:
    """Return lines on wins, ties and losses, tests, and deviations from protocols."""
    if not comparison.blocks:
        return []
    wins, ties, losses = comparison.outcomes
    environments = how_many(sum(comparison.outcomes), "environment")
    facts = [f"{comparison.other} wins {wins}, ties {ties}, loses {losses} of {environments} (a tie is 0.0 points)"]
    for name, p in (("Wilcoxon signed-rank test", comparison.signed_rank), ("sign test", comparison.sign_test)):
        if p.plain is not None and p.corrected is not None:
            holm = f"; Holm-corrected for {comparison.num_tests} rows: {p_text(p.corrected)}"
            facts.append(f"{name}: {p_text(p.plain)}{holm if comparison.num_tests > 1 else ''}")
    return [*facts, *comparison.conditions.about_protocols()]


def _notes(comparisons: Sequence[Comparison]) -> list[str]:
    """Return notes on the statistical procedure and its limits."""
    notes = []
    if any(comparison.interval for comparison in comparisons):
        family = max(comparison.family for comparison in comparisons)
        together = f" {joint_coverage(family)}"
        notes.append(PROCEDURE + together if family > 1 else PROCEDURE)
        if any(len(effects(comparison.blocks)) < len(comparison.blocks) for comparison in comparisons):
            notes.append(SETTINGS)
    if notes or any(comparison.num_tests for comparison in comparisons):
        notes.append(DEPENDENCE)
    return notes


def _object(comparison: Comparison) -> dict[str, Any]:
    return {
        "selection": comparison.method.name,
        **({} if comparison.metric is ACCURACY else {"metric": comparison.metric.name}),
        "baseline": comparison.baseline,
        "row": comparison.other,
        "verdict": comparison.verdict,
        "sentence": sentence(comparison),
        "mean_difference": comparison.mean,
        "interval": comparison.interval,
        "level": LEVEL,
        "differs": list(comparison.conditions.differs.get(comparison.other, ())),
        "deviations": dict(comparison.conditions.deviations),
        "corrected_for": comparison.family,
        **comparison.outcomes._asdict(),
        "wilcoxon_signed_rank": _p_object(comparison.signed_rank),
        "sign_test": _p_object(comparison.sign_test),
        "blocks": [
            {
                "dataset": block.benchmark,
                "environment": block.environment,
                "baseline": block.baseline_mean,
                "row": block.other_mean,
                "difference": block.difference,
                "trials": block.trials,
            }
            for block in comparison.blocks
        ],
        "missing": [
            {
                "dataset": pair.benchmark,
                "environment": pair.environment,
                "trial": pair.trial,
                "lacking": pair.lacking,
            }
            for pair in comparison.missing
        ],
        "warnings": [*warnings(comparison), DEPENDENCE],
    }


def _p_object(p: PValue) -> dict[str, float | None]:
    return {"p": p.plain, "holm": p.corrected}

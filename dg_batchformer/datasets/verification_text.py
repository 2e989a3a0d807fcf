"""Format a verification as text or JSON."""

import json
from typing import Any

from tabulate import tabulate

from dg_batchformer.datasets.counts import total
from dg_batchformer.datasets.findings import ERROR, NOTE, WARNING, Finding
from dg_batchformer.datasets.verify import Verification
from dg_batchformer.text.counts import how_many

_ITEMS = 8  # items printed per finding; JSON has all
_ROWS = 70  # with more classes, the table has only totals


def as_json(verification: Verification) -> str:
    """Format a verification as JSON; ``data verify --help`` explains the keys."""
    tree, published, recognition = verification.tree, verification.published, verification.recognition
    values: dict[str, Any] = {
        "dataset": tree.name,
        "folder": str(tree.folder),
        "right": verification.is_right,
        "images": len(verification.inspections),
        "bytes": verification.num_bytes,
        "fingerprint": verification.fingerprint,
        "version": None if recognition is None else recognition.version.name,
        "recognised_by": None if recognition is None else recognition.by,
        "counts": tree.counts(),
        "published": published
        and {
            "version": published.name,
            "source": published.source,
            "images": published.total,
            "counts": published.counts,
        },
        "sizes": verification.sizes,
        "modes": verification.modes,
        "findings": [vars(finding) for finding in verification.findings],
    }
    return json.dumps(values, indent=1)


def as_text(verification: Verification) -> str:
    """Format a verification as text: facts, counts and findings, the most serious last."""
    parts = [_facts(verification), _counts(verification)]
    for severity in (NOTE, WARNING, ERROR):
        parts += [_finding(finding) for finding in verification.having(severity)]
    return "\n\n".join([*(part for part in parts if part), _verdict(verification)])


def _facts(verification: Verification) -> str:
    tree = verification.tree
    size = verification.num_bytes / 2**20
    rows = [
        ["images", f"{len(verification.inspections):,} in {tree.folder}, {size:,.1f} MiB"],
        ["version", _version(verification)],
        ["fingerprint", verification.fingerprint or "none: there are no images, or some cannot be read"],
        ["sizes", _sizes(verification)],
        ["modes", ", ".join(f"{mode} {images:,}" for mode, images in verification.modes.items())],
    ]
    return f"{tree.name}\n" + tabulate(rows, tablefmt="plain", disable_numparse=True)


def _version(verification: Verification) -> str:
    recognition, published = verification.recognition, verification.published
    if recognition is not None:
        version = recognition.version
        told = "recognized by its fingerprint" if recognition.by == "fingerprint" else "recognized by counts only"
        return f"{version.name}, {told}: {version.about}"
    if published is None:
        return "unknown: no published counts are available"
    return f"not a published one; the nearest is {published.name} ({published.source})"


def _sizes(verification: Verification) -> str:
    sizes = {name: f"{width} x {height}" for name, (width, height) in verification.sizes.items()}
    if len(set(sizes.values())) == 1:
        return f"all {sizes['min']}"
    return ", ".join(f"{name} {size}" for name, size in sizes.items())


def _counts(verification: Verification) -> str:
    """Return the table of counts; cells that differ from the published count show both: 48 of 379."""
    tree, published = verification.tree, verification.published
    counts = tree.counts()
    wanted = published.counts if published is not None else counts
    kinds = sorted({*tree.classes, *(published.classes if published is not None else ())})
    by_class = published is None or bool(published.classes)
    rows = []
    for kind in kinds if len(kinds) <= _ROWS else []:
        here = [counts[env].get(kind, 0) for env in tree.environments]
        there = [wanted.get(env, {}).get(kind, 0) for env in tree.environments] if by_class else here
        rows.append([kind, *map(_cell, here, there), _cell(sum(here), sum(there))])
    here = [sum(counts[env].values()) for env in tree.environments]
    there = [sum(wanted.get(env, {}).values()) for env in tree.environments]
    rows.append(["all", *map(_cell, here, there), _cell(total(counts), total(wanted))])
    left_out = f"\n({len(kinds)} classes; see --format json for each)" if len(kinds) > _ROWS else ""
    right = ["left", *["right"] * (len(tree.environments) + 1)]
    headers = ["class", *tree.environments, "all"]
    return tabulate(rows, headers=headers, disable_numparse=True, colalign=right) + left_out


def _cell(here: int, there: int) -> str:
    return f"{here:,}" if here == there else f"{here:,} of {there:,}"


def _finding(finding: Finding) -> str:
    number = f" ({len(finding.items):,})" if finding.items else ""
    lines = [f"{finding.severity}: {finding.kind}{number}: {finding.message}"]
    lines += [f"  {item}" for item in _shown(finding)]
    return "\n".join(lines)


def _shown(finding: Finding) -> list[str]:
    items = finding.items
    if len(items) <= _ITEMS + 1:
        return list(items)
    if finding.kind in ("subset", "counts"):
        return ["see the table above"]
    return [*items[:_ITEMS], f"and {len(items) - _ITEMS:,} more; --format json lists all"]


def _verdict(verification: Verification) -> str:
    errors, warnings = len(verification.having(ERROR)), len(verification.having(WARNING))
    also = f"; {how_many(warnings, 'warning')}" if warnings else ""
    name = verification.tree.name
    if errors:
        return f"{name} is not right: {how_many(errors, 'error')}{also}"
    if verification.recognition is not None:
        return f"{name} is right: {verification.recognition}{also}"
    return f"{name} is intact; no published counts are available to compare it with{also}"

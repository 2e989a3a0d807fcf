"""Verify a dataset from the inspection of its files: compare it with published counts, and collect findings."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from dg_batchformer.datasets.base import Identity
from dg_batchformer.datasets.counts import EVERY, Recognition, Version, nearest_version, recognise, total
from dg_batchformer.datasets.findings import ERROR, WARNING, Finding, case_twins, defects, duplicates, oddities, unread
from dg_batchformer.datasets.integrity import Inspection
from dg_batchformer.datasets.tree import Tree


@dataclass(frozen=True)
class Verification:
    """Result of verifying a dataset.

    Args:
        inspections: of every image, in the order of ``tree.placed``.
        published: the version that the counts are compared with; None for custom datasets.
        recognition: the published version that the data matches; None if it matches none.
        fingerprint: as in records; None if a file cannot be read.

    """

    tree: Tree
    inspections: Sequence[Inspection]
    published: Version | None
    recognition: Recognition | None
    fingerprint: str | None
    findings: Sequence[Finding]

    @property
    def is_right(self) -> bool:
        """Whether there are no errors."""
        return not self.having(ERROR)

    def having(self, severity: str) -> list[Finding]:
        """Return the findings with a severity."""
        return [finding for finding in self.findings if finding.severity == severity]

    @property
    def num_bytes(self) -> int:
        """Size of all images on disk, in bytes."""
        return sum(found.num_bytes for found in self.inspections)

    @cached_property
    def modes(self) -> dict[str, int]:
        """Number of images by Pillow mode, most frequent first."""
        return dict(Counter(found.mode for found in self.inspections if found.mode).most_common())

    @cached_property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """(width, height) of the images with minimal, median and maximal area."""
        ordered = sorted((found.size for found in self.inspections if found.mode), key=lambda size: size[0] * size[1])
        if not ordered:
            return {}
        return {"min": ordered[0], "median": ordered[len(ordered) // 2], "max": ordered[-1]}


def verify(tree: Tree, inspections: Sequence[Inspection], *, strict: bool = False) -> Verification:
    """Verify a dataset.

    Args:
        tree: its folder.
        inspections: of its images, in the order of ``tree.placed``.
        strict: treat warnings as errors.

    """
    counts = tree.counts()
    fingerprint = _fingerprint(tree, inspections)
    recognition = recognise(tree.name, counts, fingerprint)
    published = recognition.version if recognition is not None else nearest_version(tree.name, counts)
    findings = [
        *_missing(tree, published),
        *([] if published is None else _differing(tree, published)),
        *([] if recognition is None else _other_files(recognition)),
        *unread(tree, ERROR if published is None else WARNING),
        *case_twins(tree),
        *defects(tree, inspections),
        *duplicates(tree, inspections, ERROR if published is None else WARNING),
        *oddities(tree, inspections),
    ]
    if strict:
        findings = [replace(found, severity=ERROR) if found.severity == WARNING else found for found in findings]
    return Verification(tree, inspections, published, recognition, fingerprint, findings)


def _fingerprint(tree: Tree, inspections: Sequence[Inspection]) -> str | None:
    if not inspections or not all(found.digest for found in inspections):
        return None
    return Identity.of(
        (environment, kind, found.digest)
        for (environment, kind, _), found in zip(tree.placed, inspections, strict=True)
    ).fingerprint


def _missing(tree: Tree, published: Version | None) -> list[Finding]:
    """Find folders one level too deep, environments without a folder or image, and missing classes."""
    findings = []
    if tree.nested:
        findings.append(Finding("nested", ERROR, tree.nested))
    if tree.missing:
        findings.append(Finding("missing environment", ERROR, "environments without a folder", tuple(tree.missing)))
    if not tree.placed:
        return [*findings, Finding("nothing", ERROR, "no images in environment/class/image")]
    empty = [name for name, classes in tree.images.items() if not classes and name not in tree.missing]
    if empty:
        message = "environments without an image in a class folder, which cannot be trained on"
        findings.append(Finding("empty environment", ERROR, message, tuple(empty)))
    wanted = sorted({*tree.classes, *(published.classes if published is not None else ())})
    lacking = tuple(
        f"{environment}/{kind}"
        for environment, classes in tree.images.items()
        for kind in wanted
        if classes and kind not in classes and _is_wanted(environment, kind, published)
    )
    if lacking:
        known = published is not None and bool(published.classes)
        findings.append(Finding("missing class", ERROR if known else WARNING, "classes without an image", lacking))
    return findings


def _is_wanted(environment: str, kind: str, published: Version | None) -> bool:
    if published is None or not published.classes:
        return True
    return bool(published.counts.get(environment, {}).get(kind))


def _differing(tree: Tree, published: Version) -> list[Finding]:
    """Find unpublished classes, and counts that differ from the published ones."""
    findings = []
    unknown = {kind for kind in tree.classes if published.classes and kind not in published.classes}
    if unknown:
        items = tuple(f"{env}/{kind}" for env, classes in tree.images.items() for kind in classes if kind in unknown)
        findings.append(Finding("unknown class", ERROR, f"folders that are not a class of {published.name}", items))
    differences = {cell: pair for cell, pair in published.differences(tree.counts()).items() if cell[1] not in unknown}
    if not differences:
        return findings
    here, cells = total(tree.counts()), tuple(_cell(*cell, *pair) for cell, pair in differences.items())
    if not unknown and all(images < wanted for images, wanted in differences.values()):
        message = f"a subset of {published.name}: {here:,} of {published.total:,} images"
        return [Finding("subset", ERROR, message, cells)]
    message = f"counts that differ from {published.name}, {here:,} images instead of {published.total:,}"
    return [*findings, Finding("counts", ERROR, message, cells)]


def _cell(environment: str, kind: str, here: int, wanted: int) -> str:
    place = environment if kind == EVERY else f"{environment}/{kind}"
    return f"{place}: {here:,} of {wanted:,}"


def _other_files(recognition: Recognition) -> list[Finding]:
    if recognition.by == "fingerprint" or recognition.version.fingerprint is None:
        return []
    about = f"the counts match {recognition.version.name}, but the files differ: re-encoded, or changed"
    return [Finding("other files", WARNING, about)]

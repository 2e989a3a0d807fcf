"""Findings on the files of a dataset: damage, duplicates, and unusual images."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dg_batchformer.datasets.integrity import Inspection
from dg_batchformer.datasets.tree import Tree
from dg_batchformer.text.spelling import twins

ERROR, WARNING, NOTE = "error", "warning", "note"
"""Severities: the data is wrong; should be checked; for information."""

SMALL_SIDE = 8  # pixels; smaller images show nothing


@dataclass(frozen=True)
class Finding:
    """All findings of one kind.

    Args:
        kind: such as ``missing class``. severity: ERROR, WARNING or NOTE.
        items: files, relative to the folder of the dataset, or classes as ``environment/class``.

    """

    kind: str
    severity: str
    message: str
    items: tuple[str, ...] = ()


def unread(tree: Tree, severity: str) -> list[Finding]:
    """Find files that look like images but are never read."""
    names = tuple(tree.name_of(file) for file in tree.unread)
    about = "files that look like images but are not read: unsupported format, or beside class folders"
    return [Finding("unread", severity, about, names)] if names else []


def case_twins(tree: Tree) -> list[Finding]:
    """Find environments and classes with names that differ in case alone: they may be meant as one."""
    names = {"environments": tree.environments, "classes": tree.classes}
    items = tuple(f"{what}: {', '.join(group)}" for what, of in names.items() for group in twins(of))
    about = "names that differ in case alone: each is an environment or a class of its own"
    return [Finding("case", WARNING, about, items)] if items else []


_DEFECTS = {
    "unreadable": "files that cannot be read",
    "empty": "empty files",
    "no image": "files that are not images, despite their extensions",
    "too large": "images above the memory limit",
    "truncated": "truncated or damaged images; training uses the decodable part",
    "broken": "images that cannot be decoded",
}


def defects(tree: Tree, inspections: Sequence[Inspection]) -> list[Finding]:
    """Find the images that cannot be fully decoded, by defect."""
    found = defaultdict(list)
    for (_, _, file), inspection in zip(tree.placed, inspections, strict=True):
        if inspection.defect:
            reason = f" ({inspection.reason})" if inspection.reason else ""
            found[inspection.defect].append(f"{tree.name_of(file)}{reason}")
    return [Finding(kind, ERROR, about, tuple(found[kind])) for kind, about in _DEFECTS.items() if found[kind]]


_EQUAL = {
    "leak": "the same image in several environments: test images are trained on",
    "two labels": "the same image in several classes",
    "duplicate": "the same image several times in a class: validation images may be trained on",
}


def duplicates(tree: Tree, inspections: Sequence[Inspection], severity: str) -> list[Finding]:
    """Find files of equal content; each group is reported once, as its most serious kind."""
    groups = defaultdict(list)
    for place, inspection in zip(tree.placed, inspections, strict=True):
        if inspection.num_bytes:
            groups[inspection.digest].append(place)
    found = defaultdict(list)
    for group in groups.values():
        if len(group) > 1:
            found[_meaning(group)].append(" = ".join(tree.name_of(file) for _, _, file in group))
    return [Finding(kind, severity, about, tuple(found[kind])) for kind, about in _EQUAL.items() if found[kind]]


def _meaning(group: Sequence[tuple[str, str, Path]]) -> str:
    if len({environment for environment, _, _ in group}) > 1:
        return "leak"
    return "two labels" if len({kind for _, kind, _ in group}) > 1 else "duplicate"


_TINY = f"images with a side below {SMALL_SIDE} pixels"
_DEEP = "images of more than 8 bits; conversion to RGB clips values above 255"
_ROTATED = "images with an EXIF rotation, which is ignored, as in DomainBed"
_UNUSUAL = "images of other modes than RGB and grey; training converts them to RGB"


def oddities(tree: Tree, inspections: Sequence[Inspection]) -> list[Finding]:
    """Find unread files, and intact images with unexpected properties."""
    tiny, deep, rotated, unusual = [], [], [], []
    for (_, _, file), found in zip(tree.placed, inspections, strict=True):
        name = tree.name_of(file)
        if found.mode and min(found.size) < SMALL_SIDE:
            tiny.append(f"{name} ({found.size[0]} x {found.size[1]})")
        if found.mode.startswith(("I", "F")):
            deep.append(f"{name} ({found.mode})")
        elif found.mode not in ("RGB", "L", ""):
            unusual.append(f"{name} ({found.mode})")
        if found.rotated:
            rotated.append(name)
    strays = [tree.name_of(path) + "/" * path.is_dir() for path in tree.strays]
    every = [
        Finding("stray", WARNING, "files and folders that are not read", tuple(strays)),
        Finding("tiny", WARNING, _TINY, tuple(tiny)),
        Finding("16-bit", WARNING, _DEEP, tuple(deep)),
        Finding("rotated", NOTE, _ROTATED, tuple(rotated)),
        Finding("mode", NOTE, _UNUSUAL, tuple(unusual)),
    ]
    return [finding for finding in every if finding.items]

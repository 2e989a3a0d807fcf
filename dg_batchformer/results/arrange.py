"""Choose, rename and order the rows of tables, and show grid points as rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dg_batchformer.errors import InputError, unknown
from dg_batchformer.results.collection import CollectedRun, Collection


@dataclass(frozen=True)
class Arrangement:
    """The rows to show, of those that sweeps have.

    Args:
        grid_points: show every grid point as a row of its own, such as ``ERM, lr 1e-05``, instead of choosing one.
        rename: new names of rows. ``SWEEP:ROW`` renames a row of one sweep only, ``ROW`` that of every sweep.
        rows: the rows to show, in this order, by their new names; () shows all.
        order: rows that come first, in this order, by their new names.

    """

    grid_points: bool = False
    rename: Mapping[str, str] = field(default_factory=dict)
    rows: Sequence[str] = ()
    order: Sequence[str] = ()


AS_THEY_ARE = Arrangement()


def arranged(collections: Sequence[Collection], asked: Arrangement) -> list[Collection]:
    """Return sweeps with the rows that an arrangement asks for; raise InputError for a row that none of them has."""
    if asked.grid_points:
        collections = [_by_grid_point(collection) for collection in collections]
    if asked.rename:
        collections = _renamed(collections, asked.rename)
    known = list(dict.fromkeys(label for collection in collections for label in collection.rows))
    for option, labels, allowed in (("rows", asked.rows, known), ("order", asked.order, asked.rows or known)):
        for place, label in enumerate(labels):
            if label not in allowed:
                raise unknown("row", label, allowed)
            if label in labels[:place]:
                raise InputError(f"{option} names {label!r} twice; name every row once")
    if not asked.rows:
        return list(collections)
    return [_only(collection, asked.rows) for collection in collections]


def in_order(labels: Sequence[str], asked: Arrangement) -> list[str]:
    """Return labels in the order that an arrangement asks for."""
    first = [label for label in asked.order if label in labels]
    others = [label for label in asked.rows or labels if label in labels and label not in first]
    return [*first, *others]


def _by_grid_point(collection: Collection) -> Collection:
    """Give every grid point a row of its own, in the place of its row."""
    runs = [_named_by_point(run) for run in collection.runs]
    by_label: dict[str, dict[str, None]] = {label: {} for label in collection.rows}
    for before, after in zip(collection.runs, runs, strict=True):
        by_label[before.label][after.label] = None
    rows = [new for label, found in by_label.items() for new in (found or [label])]
    return replace(collection, rows=list(dict.fromkeys(rows)), runs=runs)


def _named_by_point(run: CollectedRun) -> CollectedRun:
    return replace(run, label=f"{run.label}, {run.candidate.point}", point={}) if run.point and not run.winner else run


def _renamed(collections: Sequence[Collection], names: Mapping[str, str]) -> list[Collection]:
    """Rename rows; a name for one sweep goes before a name for all."""
    known = {label for collection in collections for label in _spellings(collection)}
    for name in names:
        if name not in known:
            raise unknown("row", name, sorted(known))
    found = []
    for collection in collections:
        new = {label: names.get(f"{collection.name}:{label}", names.get(label, label)) for label in collection.rows}
        runs, searched = (
            [replace(run, label=new[run.label]) for run in some] for some in (collection.runs, collection.searched)
        )
        found.append(replace(collection, rows=list(dict.fromkeys(new.values())), runs=runs, searched=searched))
    return found


def _spellings(collection: Collection) -> list[str]:
    """Return how rows can be named: ``ROW``, and ``SWEEP:ROW``."""
    return [*collection.rows, *(f"{collection.name}:{label}" for label in collection.rows)]


def _only(collection: Collection, labels: Sequence[str]) -> Collection:
    return replace(
        collection,
        rows=[label for label in collection.rows if label in labels],
        runs=[run for run in collection.runs if run.label in labels],
        searched=[run for run in collection.searched if run.label in labels],
    )

"""Group the kept models of a sweep into soups, and reject those that cannot be averaged."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from dg_batchformer.errors import InputError, unknown
from dg_batchformer.models.load import read_content
from dg_batchformer.spec.manifest import read_sweep_manifest
from dg_batchformer.spec.run_folder import read_spec
from dg_batchformer.storage.folders import RunFolder, State, SweepFolder


class Group(NamedTuple):
    """Runs of one row, dataset, test environments and trial, ordered by draw."""

    label: str
    name: str
    runs: list[RunFolder]


def read_groups(sweep: SweepFolder, row: str | None) -> list[Group]:
    """Return the groups of one row, or of all rows; raise InputError if no run has kept its model."""
    manifest = read_sweep_manifest(sweep)
    if row is not None and row not in manifest.rows:
        raise unknown(f"row of {sweep.path}", row, manifest.rows)
    groups: dict[tuple[str, str], list[RunFolder]] = defaultdict(list)
    for run in manifest.runs:
        if row in (None, run.label):
            groups[run.label, run.place].append(sweep.run(run.spec.id))
    found = [Group(label, f"{label} on {place}", runs) for (label, place), runs in groups.items()]
    if not any(run.model_file.is_file() for group in found for run in group.runs):
        raise InputError(
            f"{sweep.path} holds no kept models; run its sweep with --keep final, and with another --results_dir if it "
            "is already trained"
        )
    return found


def kept_members(group: Group) -> list[RunFolder]:
    """Return the finished runs of a group that kept their model; raise InputError if there are fewer than two."""
    kept = [run for run in group.runs if run.state() is State.DONE and run.model_file.is_file()]
    if len(kept) < 2:
        raise InputError(
            f"{group.name}: {len(kept)} of {len(group.runs)} runs {'has' if len(kept) == 1 else 'have'} kept a model, "
            "but a soup takes at least 2; give the sweep 'draws: 2' or more, and --keep final"
        )
    return kept


def refuse_unrelated(group: Group, runs: Sequence[RunFolder]) -> None:
    """Raise InputError unless all models share their initial weights; otherwise averaging is meaningless."""
    begun = {str(read_content(run.model_file, read_spec(run)).get("init", "")) for run in runs}
    if begun == {""}:
        raise InputError(f"{group.name}: its models do not record their initial weights; train them again")
    if len(begun) > 1:
        raise InputError(
            f"{group.name}: its {len(runs)} models started from {len(begun)} different initial weights, but only "
            "models with the same can be averaged; give the sweep 'hparams: {init: linear_probe}', or a file as init"
        )

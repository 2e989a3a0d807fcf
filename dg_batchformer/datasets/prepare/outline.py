"""Dry run of ``data prepare``."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from dg_batchformer.catalog.datasets import dataset_facts
from dg_batchformer.datasets.prepare.build import Workspace, refuse_existing
from dg_batchformer.datasets.prepare.disk import amount
from dg_batchformer.datasets.prepare.layouts import find_environments
from dg_batchformer.datasets.prepare.material import sort_material
from dg_batchformer.datasets.prepare.mirrors import choose_mirrors
from dg_batchformer.datasets.prepare.sources import find_source


def outline(name: str, data_dir: Path, given: Sequence[Path] = (), mirror: int | None = None) -> Iterator[str]:
    """Yield lines on what would be downloaded or used, and where it would be written.

    Raises InputError if that would fail for a known reason.

    """
    source, facts = find_source(name), dataset_facts(name)
    target = data_dir / facts.folder
    refuse_existing(name, target)
    if given:
        yield f"{name} would be built from"
        material = sort_material(given, facts, source)
        for folder in material.folders:
            found = find_environments(folder, facts, source)
            yield f"  {folder}: {', '.join(path.name for path in found.values()) or 'no environment'}"
        for file in (*material.archives, *material.tables, *material.annotations, *material.duplicates):
            yield f"  {file}, {amount(file.stat().st_size)}"
    else:
        mirrors = choose_mirrors(name, source, mirror)
        yield f"{name} would be downloaded from the first of these that works" if mirror is None else f"{name} from"
        for number, chosen in mirrors.items():
            yield f"  {number}  {chosen.about}"
            for remote in chosen.files:
                yield f"     {remote.address}  {'size unknown' if remote.size is None else amount(remote.size)}"
        yield f"downloads are kept in {Workspace(data_dir, name).downloads}"
    near = next(place for place in (data_dir, *data_dir.absolute().parents) if place.exists())
    yield f"into {target}, where {amount(shutil.disk_usage(near).free)} are free"

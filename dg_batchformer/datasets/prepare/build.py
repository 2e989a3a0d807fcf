"""Prepare a dataset atomically: build it in a temporary folder, check it, and rename it into place."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dg_batchformer.catalog.class_folders import images_below, say_unread
from dg_batchformer.catalog.datasets import DatasetFacts, dataset_facts
from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.datasets.folders import ImageFolders
from dg_batchformer.datasets.prepare import layouts, parquet, terra
from dg_batchformer.datasets.prepare.archives import Damaged, extract, first_file
from dg_batchformer.datasets.prepare.disk import writing
from dg_batchformer.datasets.prepare.download import Patience
from dg_batchformer.datasets.prepare.material import Material, sort_material
from dg_batchformer.datasets.prepare.mirrors import fetch_dataset
from dg_batchformer.datasets.prepare.sources import Source, find_source
from dg_batchformer.errors import InputError
from dg_batchformer.storage.folders import sync_folder
from dg_batchformer.storage.lock import held

Note = Callable[[str], None]


class Workspace:
    """Paths of the temporary folder for preparing a dataset; the only place that defines their names."""

    def __init__(self, data_dir: Path, name: str) -> None:
        self.folder = data_dir / ".prepare" / name
        self.lock_file = self.folder / "lock"
        self.downloads = self.folder / "downloads"
        self.unpacked = self.folder / "unpacked"
        self.built = self.folder / "built"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the folder, and remove stale files of killed processes except downloads; raise Busy if it is in use."""
        with ExitStack() as stack:
            with writing(self.folder):
                self.downloads.mkdir(parents=True, exist_ok=True)
                stack.enter_context(held(self.lock_file))
            try:
                for folder in (self.unpacked, self.built):
                    shutil.rmtree(folder, ignore_errors=True)
                    folder.mkdir()
                yield
            finally:
                for folder in (self.unpacked, self.built):
                    shutil.rmtree(folder, ignore_errors=True)

    def remove(self) -> None:
        """Remove the folder, including downloads."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()


def prepare(
    name: str,
    data_dir: Path,
    given: Sequence[Path] = (),
    mirror: int | None = None,
    *,
    note: Note,
    patience: Patience | None = None,
) -> ImageFolders:
    """Prepare a dataset in ``data_dir``, and return it.

    Args:
        name: of a dataset in ``sources.SOURCES``.
        data_dir: folder with the datasets' folders.
        given: archives, parquet files, annotations or folders; if empty, the dataset is downloaded.
        mirror: number of the only mirror to use; None tries all.
        note: called with messages for the user.
        patience: timeouts and retries of downloads.

    Raises InputError if that fails; then the dataset's folder does not exist, and finished downloads are kept.

    """
    source, facts = find_source(name), dataset_facts(name)
    target, space = data_dir / facts.folder, Workspace(data_dir, name)
    refuse_existing(name, target)
    with space.alone():
        refuse_existing(name, target)
        files = given or fetch_dataset(name, source, mirror, space.downloads, patience or Patience(), note)
        built = space.built / facts.folder
        built.mkdir()
        try:
            _fill(built, sort_material(files, facts, source), space.unpacked, facts, source, note)
        except Damaged:
            shutil.rmtree(space.downloads)  # so that it is downloaded again next time
            raise
        _check(name, space.built)
        with writing(data_dir):
            os.sync()  # one fsync per file would take minutes for a million files
            built.rename(target)
            sync_folder(data_dir)
    space.remove()
    return _load(name, data_dir)


def refuse_existing(name: str, target: Path) -> None:
    """Raise InputError if the dataset exists already; it is never overwritten."""
    if target.exists() or target.is_symlink():
        raise InputError(
            f"{target} exists already; check it with: data verify {name}, or move it away to prepare it again"
        )


def _fill(built: Path, material: Material, unpacked: Path, facts: DatasetFacts, source: Source, note: Note) -> None:
    """Write the images of a dataset to environment/class/image."""
    if material.tables:
        parquet.write_images(material.tables, built, facts, source)
        return
    labels = [path for path in material.archives if source.camera_traps and first_file(path).endswith(".json")]
    if labels or material.annotations:
        layouts.link_images(_camera_traps(material, labels, unpacked, note), built, note)
        return
    for archive in material.archives:
        extract(archive, unpacked)
    if source.duplicates and not material.duplicates:
        note(f"duplicates are kept, while papers remove them: give the list of duplicates too, {source.duplicates}")
    environments = _environments([*material.folders, unpacked], facts, source)
    unread = [file for folder in environments.values() for file in images_below(folder)[1]]
    if unread:
        note(say_unread(unread))
    layouts.link_images(layouts.images_of(environments, source, material.left_out), built, note)


def _environments(folders: Iterable[Path], facts: DatasetFacts, source: Source) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in folders:
        found = {**layouts.find_environments(folder, facts, source), **found}
    missing = [name for name in facts.names if name not in found]
    if missing:
        held = ", ".join(found) or "no environment"
        raise InputError(
            f"the files given for {facts.name} contain {held}, but lack the folders {', '.join(missing)}; nothing was "
            "prepared"
        )
    return {name: found[name] for name in facts.names}


def _camera_traps(material: Material, labels: list[Path], unpacked: Path, note: Note) -> Iterator[tuple[str, Path]]:
    """Yield (place, file) of the annotated images; only these are extracted from archives."""
    for archive in labels:
        extract(archive, unpacked, lambda name: name.endswith(".json"))
    places = terra.places_of([*material.annotations, *terra.find_annotations(unpacked)])
    for archive in material.archives:
        if archive not in labels:
            extract(archive, unpacked, places.__contains__)
    files = {path.name: path for folder in (*material.folders, unpacked) for path in folder.rglob("*.*")}
    missing = sorted(places.keys() - files.keys())
    if len(missing) == len(places):
        raise InputError(
            f"none of the {len(places):,} annotated images was given; eccv_18_all_images_sm.tar.gz contains them"
        )
    if missing:
        shown = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        note(f"{len(missing):,} of {len(places):,} annotated images are missing, and skipped: {shown}")
    return terra.images_of(places, files)


def _check(name: str, root: Path) -> None:
    """Raise InputError unless the dataset loads with the known environments and number of classes."""
    dataset = _load(name, root)
    known = dataset.facts.num_classes
    if known is not None and dataset.num_classes != known:
        raise InputError(
            f"the files given for {name} have {dataset.num_classes} classes ({', '.join(dataset.classes)}) instead of "
            f"{known}; nothing was prepared"
        )


def _load(name: str, root: Path) -> ImageFolders:
    dataset = get_dataset_class(name)(root, [0], {"image_size": 224})
    assert isinstance(dataset, ImageFolders)  # true for every dataset with a source
    return dataset

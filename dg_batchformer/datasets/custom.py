"""Custom datasets: a folder of images, or a manifest that lists them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from dg_batchformer.catalog.class_folders import SPLITS
from dg_batchformer.catalog.custom import find_own, folder_environments
from dg_batchformer.catalog.datasets import DatasetFacts
from dg_batchformer.catalog.image_formats import is_read
from dg_batchformer.catalog.image_manifest import Row, read_manifest
from dg_batchformer.datasets.folders import FilesByClass, ImageFolders
from dg_batchformer.errors import InputError
from dg_batchformer.spec.run import REFERENCE, RunSpec
from dg_batchformer.text.spelling import one_form, twins

_IMBALANCED = 3  # ratio of the largest to the smallest class from which a note is shown


class OwnImages(ImageFolders):
    """A dataset that is not in the catalog; ``catalog/custom.py`` finds it.

    Args:
        facts: of the run; its environments must match those on disk.

    """

    registered = False

    def __init__(
        self, root: Path | None, test_envs: Sequence[int], hparams: dict[str, Any], *, facts: DatasetFacts
    ) -> None:
        self.part_of: dict[Path, str] = {}  # split of every image; empty if the manifest has no splits
        super().__init__(root, test_envs, hparams, facts=facts)
        if self.part_of:
            for environment in self.environments:
                environment.parts = [self.part_of[file] for file in environment.files]
            self.notes.append(f"{facts.name} has a column split: its val images are the validation set in every trial")
        if "test" in self.part_of.values():
            self.notes.append(
                f"{facts.name} has test images: test accuracy is computed on those of the test environments; those of "
                "training environments are not used"
            )
        if all(name.casefold() in SPLITS for name in facts.names):
            self.notes.append(
                f"the domains of {facts.name} have names of splits ({', '.join(facts.names)}), but domains should be "
                "different sources of data; each of them is split further"
            )
        self.notes += [*_twins(self), *_imbalance(self)]

    @classmethod
    def of_run(cls, spec: RunSpec, root: Path | None, hparams: dict[str, Any]) -> Self:
        dataset = cls(root, spec.test_envs, hparams, facts=spec.facts)
        if dataset.part_of and spec.holdout_fraction != REFERENCE["holdout_fraction"]:
            raise InputError(
                f"holdout_fraction {spec.holdout_fraction} has no effect on {spec.dataset}, whose manifest defines the "
                "validation images; remove it, or the column split"
            )
        return dataset

    def way_out(self) -> str:
        return f"list the images in {self.facts.name}.csv beside that folder (path,label,domain[,split])"

    def find(self, root: Path | None) -> FilesByClass:
        place = find_own(self.facts.name, root)
        if place.is_dir():
            called = self._match_environments(place, folder_environments(place))
            return self.read_environments(place, "domains of class folders", called)
        rows = read_manifest(place)
        called = self._match_environments(place, {row.domain for row in rows})
        if rows[0].split:
            self.part_of = {place.parent / row.path: row.split for row in rows}
        return {
            name: _by_class(place.parent, [row for row in rows if row.domain == spelled])
            for name, spelled in called.items()
        }

    def _match_environments(self, place: Path, there: Iterable[str]) -> dict[str, str]:
        """Return the spelling on disk of the run's environments, which may differ in Unicode form.

        Raises InputError if the data has other environments than the run.
        """
        spelled = {one_form(name): name for name in there}
        if spelled.keys() != {one_form(name) for name in self.facts.names}:
            raise InputError(
                f"{place} has the environments {', '.join(sorted(there)) or 'none'}, but the run uses "
                f"{', '.join(self.facts.names)}; restore the original data, or train in another folder"
            )
        return {name: spelled[one_form(name)] for name in self.facts.names}


def _by_class(folder: Path, rows: Sequence[Row]) -> dict[str, list[Path]]:
    """Return files by class, in the same order as for class folders."""
    files: dict[str, list[Path]] = {label: [] for label in sorted({row.label for row in rows})}
    for row in sorted(rows, key=lambda row: (str(row.path.parent), row.path.name)):
        if not (folder / row.path).is_file():
            raise InputError(f"{row.place}: there is no file {folder / row.path}")
        if not is_read(folder / row.path):
            raise InputError(f"{row.place}: {folder / row.path} has an unsupported format; convert it to JPEG or PNG")
        files[row.label].append(folder / row.path)
    return files


def _twins(dataset: ImageFolders) -> list[str]:
    """Return notes on domains and classes whose names differ only in case."""
    names = {"domains": [environment.name for environment in dataset], "classes": dataset.classes}
    groups = {what: ", ".join(" and ".join(group) for group in twins(of)) for what, of in names.items()}
    return [f"{dataset.facts.name} has different {what} {said}" for what, said in groups.items() if said]


def _imbalance(dataset: ImageFolders) -> list[str]:
    """Return a note on environments with strongly imbalanced classes."""
    found = []
    for environment in dataset:
        counts = Counter(dataset.classes[label] for label in environment.labels).most_common()
        (largest, most), (smallest, fewest) = counts[0], counts[-1]
        if most >= _IMBALANCED * fewest:
            found.append(f"{environment.name} ({most} of {largest}, {fewest} of {smallest})")
    if not found:
        return []
    way_out = "hparam class_balanced samples the classes of an environment equally often"
    return [f"{dataset.facts.name} has imbalanced classes, most and fewest images: {', '.join(found)}; {way_out}"]

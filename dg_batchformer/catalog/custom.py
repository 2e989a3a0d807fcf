"""Custom datasets: find one by name, and list its environments.

``DIR/NAME.csv`` or ``DIR/NAME.json`` lists its images, see ``catalog/image_manifest.py``; without either, the images
lie in ``DIR/NAME/domain/class/``.
Every RunSpec contains the environments, so that a run can be read later without its data.
"""

from pathlib import Path
from typing import NamedTuple

from dg_batchformer.catalog.class_folders import folders_in, is_junk
from dg_batchformer.catalog.datasets import DATASETS, is_dataset
from dg_batchformer.catalog.image_manifest import SUFFIXES, read_manifest
from dg_batchformer.catalog.installed import installed_names
from dg_batchformer.errors import InputError, unknown
from dg_batchformer.text.command import command
from dg_batchformer.text.spelling import folded, one_form, one_spelling

_LEAST = 2  # environments: one to train on, one to test on


class Found(NamedTuple):
    """A dataset in the form that RunSpec takes.

    Args:
        dataset: its name; a custom dataset is spelled as on disk.
        environments: sorted names for a custom dataset; () for one in the catalog.

    """

    dataset: str
    environments: tuple[str, ...]


def find_dataset(name: str, data_dir: Path | None) -> Found:
    """Find a dataset by the name that the user typed.

    Raises InputError if it is neither in the catalog nor on disk, or has fewer than two environments.
    """
    if is_dataset(name):
        return Found(name, ())
    place = find_own(name, data_dir)
    if place.is_dir():
        names = folder_environments(place)
        if len(names) < _LEAST:
            raise InputError(f"{_too_few(place, names)}; expected {place}/domain/class/image{_misplaced(place)}")
    else:
        names = sorted({row.domain for row in read_manifest(place)})
        if len(names) < _LEAST:
            raise InputError(f"{_too_few(place, names)}; name more of them in the column domain")
    return Found(place.name if place.is_dir() else place.stem, tuple(names))


def namesakes(name: str, data_dir: Path | None) -> list[str]:
    """Return a note on every folder and manifest that has the name of a catalog dataset but is not read for it."""
    if name not in DATASETS or data_dir is None or not data_dir.is_dir():
        return []
    folder = DATASETS[name].folder
    source = f"reads {data_dir / folder}" if folder else "is built in"
    entries = [path for path in sorted(data_dir.iterdir()) if folded(_data_name(path)) == folded(name)]
    others = [path for path in entries if not folder or path.resolve() != (data_dir / folder).resolve()]
    return [f"{path} is not read: {name} {source}; rename it to use it as a custom dataset" for path in others]


def _data_name(path: Path) -> str:
    """Return the name of a folder or manifest as a custom dataset; '' for anything else."""
    if path.is_dir():
        return path.name
    return path.stem if path.suffix in SUFFIXES else ""


def find_own(name: str, data_dir: Path | None) -> Path:
    """Return the manifest, or else the folder, of a custom dataset; raise InputError if there is neither."""
    if known := _known_as(name):
        own = namesakes(known, data_dir) if name != DATASETS[known].folder else []
        raise InputError("; ".join([f"unknown dataset {name!r}; did you mean {known!r}?", *own]))
    if name != Path(name).name:
        place = Path(name)
        raise InputError(f"dataset {name!r} is a path; give the name {place.name} and --data_dir {place.parent}")
    if data_dir is None or is_junk(name):
        raise _unknown(name, None)
    if Path(name).suffix in SUFFIXES and (data_dir / name).is_file():
        raise InputError(f"dataset {name!r} is a manifest; give its name without the extension: {Path(name).stem}")
    name = _as_on_disk(name, data_dir)
    manifests = [file for suffix in SUFFIXES if (file := data_dir / f"{name}{suffix}").is_file()]
    if len(manifests) > 1:
        raise InputError(f"{' and '.join(map(str, manifests))} are two manifests of the same name; remove one")
    folder = data_dir / name
    if manifests or folder.is_dir():
        return [*manifests, folder][0]
    if data_dir.name == name and data_dir.is_dir():
        raise InputError(f"--data_dir {data_dir} has no folder {name}; give its parent: --data_dir {data_dir.parent}")
    raise _unknown(name, data_dir)


def _as_on_disk(name: str, data_dir: Path) -> str:
    """Return a name in the Unicode form of its folder or manifest; unchanged if there is none."""
    if name.isascii() or not data_dir.is_dir():
        return name
    forms = sorted({entry for entry in map(_data_name, data_dir.iterdir()) if one_form(entry) == one_form(name)})
    if len(forms) > 1:
        raise _two_forms(data_dir, name)
    return forms[0] if forms else name


def folder_environments(folder: Path) -> list[str]:
    """Return the names of subfolders that contain folders themselves, sorted.

    Raises InputError if two names differ only in Unicode form.
    """
    names = [path.name for path in folders_in(folder) if folders_in(path)]
    for name, spelling in one_spelling(names).items():
        if name != spelling:
            raise _two_forms(folder, name)
    return names


def _too_few(place: Path, names: list[str]) -> str:
    found = f"one domain, {names[0]}" if names else "no domain"
    return f"{place} has {found}, but at least {_LEAST} are needed: one to train on, one to test on"


def _two_forms(place: Path, name: str) -> InputError:
    return InputError(f"{place} has {name} twice, in two Unicode forms (NFC and NFD) of one name; rename one of them")


def _misplaced(folder: Path) -> str:
    """Return a hint if domains and class folders lie at the wrong level, else ''."""
    for wrapping in folders_in(folder):
        domains = folder_environments(wrapping)
        if len(domains) >= _LEAST:
            inside = ", ".join(domains[:3])
            return (
                f" ({wrapping.name} holds {inside}: if these are the domains, give --dataset {wrapping.name} "
                f"--data_dir {folder})"
            )
    holding = [path.name for path in folders_in(folder) if not folders_in(path)]
    return f" ({', '.join(holding[:3])} hold no class folders)" if holding else ""


def _known_as(name: str) -> str | None:
    """Return the catalog dataset whose name, in any case, or folder is ``name``; None if there is none."""
    for facts in DATASETS.values():
        if name.casefold() == facts.name.casefold() or name == facts.folder:
            return facts.name
    return None


def _unknown(name: str, data_dir: Path | None) -> InputError:
    own = f"a custom dataset is {name}/domain/class/image or {name}.csv in --data_dir {data_dir or 'DIR'}"
    known = [*DATASETS, *installed_names("datasets"), *_names_in(data_dir)]
    return unknown("dataset", name, known, see=f"see: {command('list', 'datasets')}; {own}")


def _names_in(data_dir: Path | None) -> set[str]:
    """Return the names of possible custom datasets in a folder."""
    if data_dir is None or not data_dir.is_dir():
        return set()
    names = {_data_name(path) for path in data_dir.iterdir()} - {""}
    return {name for name in names if not is_junk(name) and _known_as(name) is None}

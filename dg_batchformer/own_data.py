"""Data of one's own, by a name that the catalog does not have: where it lies, and which environments it has.

``DIR/NAME.csv`` or ``DIR/NAME.json`` lists its images, see ``manifest.py``; else ``DIR/NAME/domain/class/image`` is it.
The environments become part of every RunSpec, so that nobody who reads a run later needs the data.
"""

from pathlib import Path

from dg_batchformer.catalog import DATASETS
from dg_batchformer.errors import InputError, unknown
from dg_batchformer.manifest import SUFFIXES, read_manifest

_LEAST = 2  # environments: one to train on and one to test on


def own_environments(name: str, data_dir: Path | None) -> tuple[str, ...]:
    """Return the environments of data of one's own, sorted; () for a dataset of the catalog.

    Raises InputError where the name is of neither, and for data without two environments.
    """
    if name in DATASETS:
        return ()
    place = find_own(name, data_dir)
    if place.is_dir():
        names = folder_environments(place)
        if len(names) < _LEAST:
            raise InputError(f"{_too_few(place, names)}; expected is {place}/domain/class/image{_misplaced(place)}")
    else:
        names = sorted({row.domain for row in read_manifest(place)})
        if len(names) < _LEAST:
            raise InputError(f"{_too_few(place, names)}; name more of them in the column domain")
    return tuple(names)


def find_own(name: str, data_dir: Path | None) -> Path:
    """Return the manifest or else the folder of data of one's own; raise InputError where there is none."""
    _refuse_folder_of_known(name)
    if data_dir is None or name != Path(name).name or is_junk(name):
        raise _unknown(name, "DIR")
    if Path(name).suffix in SUFFIXES and (data_dir / name).is_file():
        raise InputError(f"dataset {name!r} is a manifest; give its name without the ending: {Path(name).stem}")
    manifests = [file for suffix in SUFFIXES if (file := data_dir / f"{name}{suffix}").is_file()]
    if len(manifests) > 1:
        raise InputError(f"{' and '.join(map(str, manifests))} are two manifests of one name; take one away")
    folder = data_dir / name
    if manifests or folder.is_dir():
        return [*manifests, folder][0]
    if data_dir.name == name and data_dir.is_dir():
        raise InputError(f"--data_dir {data_dir} has no folder {name}; give its parent, {data_dir.parent}")
    raise _unknown(name, str(data_dir))


def folder_environments(folder: Path) -> list[str]:
    """Return the folders in a folder that hold folders in turn, sorted."""
    return sorted(path.name for path in _folders(folder) if _folders(path))


def is_junk(name: str) -> bool:
    """Whether a name is hidden, or what archives of other systems leave behind."""
    return name.startswith((".", "__MACOSX"))


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not is_junk(path.name)]


def _too_few(place: Path, names: list[str]) -> str:
    found = f"one domain, {names[0]}" if names else "no domain"
    return f"{place} has {found}, and at least {_LEAST} are needed: to train on, and to test on"


def _misplaced(folder: Path) -> str:
    """Say so where class folders lie where domains are expected."""
    holding = sorted(path.name for path in _folders(folder) if not _folders(path))
    return f" ({', '.join(holding[:3])} hold no class folders)" if holding else ""


def _refuse_folder_of_known(name: str) -> None:
    for facts in DATASETS.values():
        if name.casefold() == facts.name.casefold() or name == facts.folder:
            raise InputError(f"unknown dataset {name!r}; did you mean {facts.name!r}?")


def _unknown(name: str, data_dir: str) -> InputError:
    own = f"of your own: --data_dir {data_dir} with {name}/domain/class/image or {name}.csv in it"
    return unknown("dataset", name, DATASETS, see=f"see: python -m dg_batchformer list datasets; {own}")

"""Forks of DomainBed as plug-ins: ``fork:PATH``, a checkout whose code is part of the identity of its runs.

A run names a fork as ``fork:PATH@DIGEST``, where the digest covers the code. Its identity has the name of the folder
and the digest, so that a checkout may be moved but not edited.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dg_batchformer.errors import InputError
from dg_batchformer.storage.safe_read import read_bytes

FORK = "fork"
CONFIG = "config.yaml"  # beside the package in SWAD's layout: more defaults of hparams
MAX_CODE = 2**24  # bytes of one file
_PARTS = ("algorithms", "hparams_registry", "networks")
_WRITTEN = re.compile(rf"{FORK}:(?P<path>.+?)(?:@(?P<digest>[0-9a-f]{{16}}))?", re.DOTALL)


class Fork(NamedTuple):
    """A checkout of a fork, and the digest of its code."""

    folder: Path
    digest: str

    @property
    def name(self) -> str:
        """The name of the folder, with which names of its algorithms begin."""
        return self.folder.name

    @property
    def identity(self) -> str:
        """The fork in the identity of a run, wherever the checkout is."""
        return f"{FORK}:{self.name}@{self.digest}"

    def __str__(self) -> str:
        return f"{FORK}:{self.folder}@{self.digest}"


def is_fork(plugin: str) -> bool:
    """Whether a plug-in is a checkout of a fork."""
    return plugin.startswith(f"{FORK}:")


def parse_fork(plugin: str) -> Fork:
    """Parse ``fork:PATH`` or ``fork:PATH@DIGEST``; without a digest, compute that of the code, which is not imported.

    Raises InputError if PATH is not the checkout of a fork, or cannot be part of the name of an algorithm.
    """
    found = _WRITTEN.fullmatch(plugin)
    if found is None:
        raise InputError(f"plug-in {plugin!r} names no folder; write fork:PATH, where PATH is a checkout of a fork")
    path = os.path.expanduser(found["path"])  # noqa: PTH111  # an unknown user is no error
    folder = Path(os.path.abspath(path))  # noqa: PTH100  # keep the name of a link
    if not folder.name or set("+@, ") & set(folder.name):
        raise InputError(
            f"plug-in {plugin!r}: {folder.name!r} cannot begin the name of an algorithm; rename the folder"
        )
    return Fork(folder, found["digest"] or code_digest(folder))


def plugin_identity(plugin: str) -> str:
    """Return how a plug-in enters the identity of a run: forks without the path of their checkout."""
    return parse_fork(plugin).identity if is_fork(plugin) else plugin


def package_of(folder: Path) -> Path:
    """Return the package of a checkout, the subfolder with algorithms, networks and the registry of hparams.

    Raises InputError if there is none, or several of which none is called ``domainbed``.
    """
    if not folder.is_dir():
        raise InputError(f"fork {folder} is not a folder; clone the fork, and give the folder of the clone")
    packages = [path for path in sorted(folder.iterdir()) if all(_has(path, part) for part in _PARTS)]
    named = [path for path in packages if path.name == "domainbed"] or packages
    if len(named) == 1:
        return named[0]
    modules = ", ".join(_PARTS)
    if named:
        raise InputError(f"fork {folder} has several packages with {modules}: {', '.join(path.name for path in named)}")
    raise InputError(
        f"fork {folder} has no package with the modules {modules}; give the folder that contains domainbed/"
    )


def code_digest(folder: Path) -> str:
    """Return 16 hex digits of the sha256 over the Python files of a checkout and its config.yaml.

    It covers the package of the fork, and other folders beside it as far as they have modules.
    """
    digest = hashlib.sha256()
    config = folder / CONFIG
    for file in [*_modules(folder, package_of(folder)), *([config] if config.is_file() else [])]:
        content = hashlib.sha256(read_bytes(file, MAX_CODE)).hexdigest()
        digest.update(f"{file.relative_to(folder).as_posix()}\n{content}\n".encode())
    return digest.hexdigest()[:16]


def top_level_names(folder: Path) -> set[str]:
    """Return the names of modules and packages that a folder has."""
    return {path.stem for path in folder.iterdir() if path.suffix == ".py" or _has_modules(path)}


def _has(package: Path, part: str) -> bool:
    return (package / f"{part}.py").is_file() or (package / part).is_dir()


def _has_modules(folder: Path) -> bool:
    return folder.name.isidentifier() and folder.is_dir() and any(folder.glob("*.py"))


def _modules(folder: Path, package: Path) -> Iterator[Path]:
    """Yield Python files in a fixed order; outside the package, skip folders without any, which may hold data."""
    yield from sorted(folder.glob("*.py"))
    for path in sorted(folder.iterdir()):
        if path == package:
            yield from sorted(path.rglob("*.py"))
        elif _has_modules(path) and not path.is_symlink():
            yield from _modules(path, package)

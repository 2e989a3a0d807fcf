"""Write the sweep file of a sweep that is given as a dict, and take it back if the sweep cannot be started."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dg_batchformer.errors import InputError
from dg_batchformer.storage.folders import SweepFolder, atomic_write, write_text
from dg_batchformer.storage.safe_read import NOTE, read_bytes


@contextmanager
def sweep_file(
    asked: str | Path | Mapping[str, Any], name: str | None, question: str, results_dir: Path
) -> Iterator[Path]:
    """Yield the path of a sweep file.

    A dict is first written to a file in the folder of its results. After an InputError, the message names the sweep
    instead of a line of the file; the file is as it was before, unless the sweep was declared, so that its runs need
    it.
    """
    if not isinstance(asked, Mapping):
        if name is not None:
            raise InputError(f"the name of a sweep file is its own, {Path(asked).stem!r}; drop name={name!r}")
        if question:
            raise InputError("the question of a sweep file is its first comment; drop question")
        yield Path(asked)
        return
    if not name or Path(name).name != name or name == "..":
        raise InputError(f"a sweep given as a dict needs a name for its folder in {results_dir}, got name={name!r}")
    file = results_dir / name / f"{name}.yaml"
    folder = SweepFolder(file.parent)
    declared = _written(folder)
    before = _write_sweep_file(file, asked, question)
    try:
        yield file
    except InputError as error:
        if _written(folder) == declared:
            _take_back(file, before)
        raise InputError(re.sub(rf"^{re.escape(str(file))}:\d+: ", f"sweep {name}: ", str(error))) from None


def _take_back(file: Path, before: bytes | None) -> None:
    """Give a sweep file its content before, or remove it if there was none."""
    if before is not None:
        with atomic_write(file) as target:
            target.write(before)
        return
    file.unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        file.parent.rmdir()


def _written(folder: SweepFolder) -> int | None:
    """Return when a sweep was last declared; None if it never was."""
    return folder.sweep_file.stat().st_mtime_ns if folder.sweep_file.exists() else None


def _write_sweep_file(file: Path, asked: Mapping[str, Any], question: str) -> bytes | None:
    """Write a sweep file; return its content before, None if there was none."""
    import yaml

    comment = "".join(f"# {line}\n" for line in question.splitlines())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        before = read_bytes(file, NOTE) if file.exists() else None
        write_text(file, comment + yaml.safe_dump(dict(asked), sort_keys=False, allow_unicode=True))
    except yaml.YAMLError as error:
        raise InputError(f"the sweep {file.stem} contains a value that YAML cannot represent: {error}") from None
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}; give another results_dir") from None
    return before

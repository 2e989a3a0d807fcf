"""Download all files of a dataset from the first mirror that works."""

from collections.abc import Callable
from pathlib import Path

from dg_batchformer.datasets.prepare.archives import is_archive
from dg_batchformer.datasets.prepare.download import Patience, Unavailable, fetch
from dg_batchformer.datasets.prepare.sources import Mirror, RemoteFile, Source
from dg_batchformer.errors import InputError
from dg_batchformer.storage.parquet import NoPyarrow, require_pyarrow


def choose_mirrors(name: str, source: Source, number: int | None) -> dict[int, Mirror]:
    """Return the mirrors to try by number, from 1: all, or the requested one; raise InputError if there is none."""
    mirrors = dict(enumerate(source.mirrors, start=1))
    if not mirrors:
        raise InputError(f"{name} has no automatic download; get it from {source.page} and give it with --from")
    if number is None:
        return mirrors
    if number not in mirrors:
        known = ", ".join(f"{number} {mirror.about}" for number, mirror in mirrors.items())
        raise InputError(f"{name} has no mirror {number}; its mirrors are {known}")
    return {number: mirrors[number]}


def fetch_dataset(
    name: str, source: Source, number: int | None, folder: Path, patience: Patience, note: Callable[[str], None]
) -> list[Path]:
    """Download the files of a dataset from the first mirror that delivers all of them; return their paths.

    Args:
        name: of the dataset, for messages.
        source: of the dataset.
        number: the only mirror to try; None for all.
        folder: destination; keeps complete and partial downloads for the next call.
        patience: timeouts and retries.
        note: called with the reason why a mirror is skipped.

    Raises InputError if no mirror works.

    """
    problems = []
    for tried, mirror in choose_mirrors(name, source, number).items():
        try:
            if any(file.name.endswith(".parquet") for file in mirror.files):
                require_pyarrow()
            return [_fetch(file, folder, patience) for file in mirror.files]
        except (Unavailable, NoPyarrow) as problem:
            problems.append(f"mirror {tried}: {problem}")
            note(problems[-1])
    raise InputError(
        f"{name} could not be downloaded ({'; '.join(problems)}); try again later, "
        f"or get it from {source.page} in a browser and give it with --from"
    )


def _fetch(file: RemoteFile, folder: Path, patience: Patience) -> Path:
    """Download a file; raise Unavailable also if it should be an archive but is not."""
    path = fetch(file, folder, patience)
    if path.suffix in (".zip", ".gz") and not is_archive(path):
        path.unlink()
        raise Unavailable(f"{file.address} did not deliver a zip or tar")
    return path

"""Archives of strangers: zip and tar, taken out without leaving the folder, filling the disk or keeping half.

Refused are names that lead elsewhere, links, devices, a name that occurs twice, encryption, damage, and archives that
grow far beyond their own size: those of images hardly grow.
"""

import bz2
import gzip
import io
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, NamedTuple

from tqdm import tqdm

from dg_batchformer.datasets.folders import is_junk
from dg_batchformer.datasets.prepare.disk import amount, require_room, writing
from dg_batchformer.errors import InputError

_GROWTH = 20  # times its own size; annotations grow tenfold, images hardly
_ALWAYS_ALLOWED = 1 << 30
_MOST_MEMBERS = 2_000_000  # DomainNet has 0.6 million images
_DECOMPRESSORS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile, RuntimeError,
    NotImplementedError, UnicodeError, OverflowError,
)  # fmt: skip


class Damaged(InputError):
    """A file that cannot be read: another copy of it may be whole."""


class _Refused(Exception):
    """What an archive holds that nobody takes out."""


class _Member(NamedTuple):
    """One entry: ``kind`` is 'file', 'folder', or what it is instead; ``open`` gives the content of a file."""

    name: str
    kind: str
    open: Callable[[], IO[bytes]]


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or tar, by its content; whether a whole one shows when it is opened."""
    try:
        return _is_zip(path) or tarfile.is_tarfile(path)
    except _DAMAGE:
        return True


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:  # zipfile.is_zipfile looks at the end, where a tar may hold a zip
        return file.read(2) == b"PK"


def first_file(archive: Path) -> str:
    """Return the name of the first file in an archive that is not junk; '' if there is none."""
    with archive.open("rb") as raw, _reading(archive):
        for member in _members(archive, raw):
            if member.kind == "file" and not _is_hidden(_safe_parts(member.name)):
                return member.name
    return ""


def extract(archive: Path, folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Take the files of an archive out into a folder that nobody else uses, which exists.

    Args:
        archive: zip, or tar with any of its compressions.
        folder: gets the files. Where an InputError is raised it holds a part of them, and is to be thrown away.
        wanted: whether a file, by the last part of its name, is taken out; hidden files and __MACOSX never are.

    Raises InputError for an archive that is damaged or dangerous, and where there is no room.

    """
    size = archive.stat().st_size
    require_room(folder, _content_size(archive, size), f"what is in {archive.name}")
    bar = tqdm(total=size, desc=archive.name, unit="B", unit_scale=True, disable=None, leave=False)
    with bar, archive.open("rb") as raw, writing(folder), _reading(archive):
        for number, member in enumerate(_members(archive, raw)):
            if number >= _MOST_MEMBERS:
                raise _Refused(f"more than {_MOST_MEMBERS:,} entries")
            parts = _safe_parts(member.name)
            if member.kind not in ("file", "folder"):
                raise _Refused(f"{member.name!r}, {member.kind}")
            if member.kind == "file" and not _is_hidden(parts) and wanted(parts[-1]):
                _write(member, folder.joinpath(*parts))
            bar.update(min(raw.tell(), size) - bar.n)


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Say in one sentence what is wrong with an archive."""
    try:
        yield
    except _Refused as problem:
        raise InputError(f"{archive} holds {problem}; such an archive is not opened") from None
    except _DAMAGE as error:
        said = str(error) or type(error).__name__
        raise Damaged(f"{archive} cannot be read ({said}); it is damaged or protected: get it again") from None


def _write(member: _Member, place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as content, place.open("xb") as out:  # x: also names that only this disk takes for equal
            shutil.copyfileobj(content, out, 1 << 20)
    except (FileExistsError, NotADirectoryError):
        raise _Refused(f"{member.name!r} twice") from None


def _members(archive: Path, raw: IO[bytes]) -> Iterator[_Member]:
    return _zip_members(raw, archive) if _is_zip(archive) else _tar_members(raw, archive)


def _allowance(archive: Path) -> int:
    """Return how many bytes an archive may grow to."""
    return max(_ALWAYS_ALLOWED, _GROWTH * archive.stat().st_size)


def _bomb(archive: Path) -> _Refused:
    return _Refused(f"more than {amount(_allowance(archive))}, far more than images of its size would")


def _content_size(archive: Path, size: int) -> int:
    """Return how many bytes come out, where that is known before: zip tells, and compressing a tar saves little."""
    if not _is_zip(archive):
        return size
    with _reading(archive), zipfile.ZipFile(archive) as content:
        return min(sum(info.file_size for info in content.infolist()), _allowance(archive))


def _zip_members(raw: IO[bytes], archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(raw) as content:
        if sum(info.file_size for info in content.infolist()) > _allowance(archive):
            raise _bomb(archive)  # what is read never exceeds the sizes that are told
        for info in content.infolist():
            mode = info.external_attr >> 16
            if info.is_dir() or stat.S_ISDIR(mode):
                kind = "folder"
            elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
                kind = "file"
            else:
                kind = "a link" if stat.S_ISLNK(mode) else "a device"
            yield _Member(info.filename, kind, lambda info=info: content.open(info))  # type: ignore[misc]


def _tar_members(raw: IO[bytes], archive: Path) -> Iterator[_Member]:
    start = raw.read(8)
    raw.seek(0)
    decompress = next((opener for mark, opener in _DECOMPRESSORS.items() if start.startswith(mark)), nullcontext)
    with decompress(raw) as plain, tarfile.open(fileobj=(metered := _Metered(plain, archive)), mode="r:") as content:
        while (info := content.next()) is not None:
            content.members.clear()  # type: ignore[attr-defined]  # a list of all would be large
            if info.isdir():
                kind = "folder"
            elif info.isreg() and not info.issparse():
                kind = "file"
            else:
                kind = "a link" if info.issym() or info.islnk() else "a device or the like"
            yield _Member(info.name, kind, lambda info=info: content.extractfile(info))  # type: ignore[arg-type, misc]
        if metered.ran_out:  # cut between two files, which tarfile takes for an end
            raise tarfile.ReadError("its end is missing")


class _Metered(io.RawIOBase):
    """What a tar unpacks to, up to the allowance: headers and skipped files count too.

    ``ran_out`` holds whether the last read found nothing.
    """

    def __init__(self, plain: IO[bytes], archive: Path) -> None:
        self.plain, self.archive, self.allowance = plain, archive, _allowance(archive)
        self.ran_out = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0 or self.plain.tell() + size > self.allowance:
            raise _bomb(self.archive)
        content = self.plain.read(size)
        self.ran_out = size > 0 and not content
        return content

    def seek(self, position: int, whence: int = 0) -> int:
        if whence == 0 and position > self.allowance:
            raise _bomb(self.archive)
        return self.plain.seek(position, whence)

    def tell(self) -> int:
        return self.plain.tell()


def _safe_parts(name: str) -> tuple[str, ...]:
    """Return the folders and file of an entry; raise _Refused where they lead out of where it is put."""
    parts = name.replace("\\", "/").split("/")  # backslashes are what some programs on Windows write
    if (not parts[0] and len(parts) > 1) or re.match(r"[A-Za-z]:", name):
        raise _Refused(f"{name!r}, an absolute path")
    if ".." in parts:
        raise _Refused(f"{name!r}, a path that leads out of it")
    if any(ord(character) < 32 for character in name):
        raise _Refused(f"{name!r}, a name of control characters")
    return tuple(part for part in parts if part not in ("", "."))


def _is_hidden(parts: tuple[str, ...]) -> bool:
    return not parts or any(map(is_junk, parts))

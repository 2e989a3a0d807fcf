"""Safely extract untrusted zip and tar archives: never outside the folder, and never more than a size limit.

Rejects paths that lead outside, links, devices, repeated names, encryption, damage, and decompression bombs: archives
of images hardly grow in bytes or entries. Each read is bounded too, as a name or header may claim gigabytes.
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
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from tqdm import tqdm

from dg_batchformer.catalog.class_folders import is_junk
from dg_batchformer.datasets.prepare.disk import amount, require_room, writing
from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.storage.safe_read import ARCHIVE, open_regular
from dg_batchformer.storage.zip_files import open_zip

_GROWTH = 20  # limit on unpacked size relative to the archive; annotations grow tenfold, images hardly
_ALWAYS_ALLOWED = 1 << 30
_MOST_MEMBERS = 2_000_000  # DomainNet has 0.6 million images
_FEW_MEMBERS = 100_000  # in an archive of any size
_BYTES_PER_MEMBER = 128  # minimal compressed size per entry above that number; a PNG of a digit has 300
_ZIP_DIRECTORY = 1 << 26  # limit in bytes; DomainNet's largest has 23 MB
_HEADER = 1 << 20  # limit in bytes on the names, links and attributes of one tar entry
_XZ_MEMORY = 1 << 29
_DEEPEST = 64
_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile, RuntimeError,
    NotImplementedError, *MALFORMED,
)  # fmt: skip


class Damaged(InputError):
    """A damaged file; another copy may be intact."""


class Refused(Exception):
    """A dangerous archive entry; the message describes it."""


class _Member(NamedTuple):
    """An archive entry: ``kind`` is 'file', 'folder' or a description; ``open`` opens the content of a file."""

    name: str
    kind: str
    open: Callable[[], IO[bytes]]


def is_archive(path: Path) -> bool:
    """Return whether a file is a zip or tar, by its first bytes; it may still be damaged."""
    with open_regular(path, ARCHIVE) as raw:
        try:
            if not _is_zip(raw):
                tarfile.TarInfo.frombuf(_plain(raw).read(tarfile.BLOCKSIZE), "utf-8", "replace")
        except tarfile.HeaderError:
            return False
        except (*_DAMAGE, OSError):
            pass
    return True


def _is_zip(raw: IO[bytes]) -> bool:
    """Return whether a file starts as a zip; ``zipfile.is_zipfile`` checks the end, where a tar may contain a zip."""
    raw.seek(0)
    return raw.read(2) == b"PK"


def first_file(archive: Path) -> str:
    """Return the name of the first file in an archive that is not junk; '' if there is none."""
    with open_regular(archive, ARCHIVE) as raw, reading(archive):
        for member in _members(archive, raw):
            if member.kind == "file" and not _is_hidden(_safe_parts(member.name)):
                return member.name
    return ""


def extract(archive: Path, folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Extract the files of an archive to an existing folder that no other process uses.

    Args:
        archive: a zip, or a tar with any compression.
        folder: the destination; after an InputError it is incomplete, and should be deleted.
        wanted: a filter on file names without folders; hidden files and __MACOSX are always skipped.

    Raises InputError if the archive is damaged or dangerous, or the disk is full.

    """
    size = archive.stat().st_size
    bar = tqdm(total=size, desc=archive.name, unit="B", unit_scale=True, disable=None, leave=False)
    with bar, open_regular(archive, ARCHIVE) as raw, writing(folder), reading(archive):
        require_room(folder, _content_size(raw, archive), f"the content of {archive.name}")
        for member in _members(archive, raw):
            parts = _safe_parts(member.name)
            if member.kind not in ("file", "folder"):
                raise Refused(f"{member.name!r}, {member.kind}")
            if member.kind == "file" and not _is_hidden(parts) and wanted(parts[-1]):
                _write(member, folder.joinpath(*parts))
            bar.update(min(raw.tell(), size) - bar.n)


@contextmanager
def reading(archive: Path) -> Iterator[None]:
    """Convert errors on an archive to InputError."""
    try:
        yield
    except InputError:
        raise
    except Refused as problem:
        raise InputError(f"{archive} contains {problem}; such archives are not extracted") from None
    except _DAMAGE as error:
        said = str(error) or type(error).__name__
        raise Damaged(f"{archive} cannot be read ({said}); it is damaged or encrypted: download it again") from None


def _write(member: _Member, place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        # x: also detects names that are equal on this file system only
        with member.open() as content, place.open("xb") as out:
            shutil.copyfileobj(content, out, 1 << 20)
    except (FileExistsError, NotADirectoryError):
        raise Refused(f"{member.name!r} twice") from None


def _members(archive: Path, raw: IO[bytes]) -> Iterator[_Member]:
    most = most_entries(archive)
    members = _zip_members(raw, archive) if _is_zip(raw) else _tar_members(raw, archive)
    for number, member in enumerate(members):
        if number >= most:
            raise Refused(f"more than {most:,} entries")
        yield member


def most_entries(archive: Path) -> int:
    """Return the limit on the number of entries of an archive, by its size."""
    return min(_MOST_MEMBERS, max(_FEW_MEMBERS, archive.stat().st_size // _BYTES_PER_MEMBER))


def allowance(archive: Path) -> int:
    """Return the limit on the unpacked size of an archive, in bytes."""
    return max(_ALWAYS_ALLOWED, _GROWTH * archive.stat().st_size)


def _bomb(archive: Path) -> Refused:
    return Refused(f"more than {amount(allowance(archive))}, far too much for an archive of images of its size")


def _content_size(raw: IO[bytes], archive: Path) -> int:
    """Estimate the unpacked size in bytes: declared by a zip; about the archive's size for a tar of images."""
    if not _is_zip(raw):
        return archive.stat().st_size
    with open_zip(raw, _ZIP_DIRECTORY) as content:
        return min(sum(info.file_size for info in content.infolist()), allowance(archive))


def _zip_members(raw: IO[bytes], archive: Path) -> Iterator[_Member]:
    with open_zip(raw, _ZIP_DIRECTORY) as content:
        if sum(info.file_size for info in content.infolist()) > allowance(archive):
            raise _bomb(archive)  # entries never unpack beyond their declared sizes
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
    plain = _Metered(_plain(raw), archive)
    with tarfile.open(fileobj=plain, mode="r:") as content:
        while True:
            plain.left = _HEADER
            if (info := content.next()) is None:
                break
            plain.left = plain.allowance
            content.members.clear()  # type: ignore[attr-defined]  # tarfile would keep a list of all
            content.pax_headers.clear()  # type: ignore[attr-defined]  # and all global headers
            if info.isdir():
                kind = "folder"
            elif info.isreg() and not info.issparse():
                kind = "file"
            else:
                kind = "a link" if info.issym() or info.islnk() else "a device or the like"
            yield _Member(info.name, kind, lambda info=info: content.extractfile(info))  # type: ignore[arg-type, misc]
        if plain.ran_out:  # truncated between two files, which tarfile does not notice
            raise tarfile.ReadError("its end is missing")


def _plain(raw: IO[bytes]) -> Any:
    """Return a decompressing reader from the start of a file."""
    raw.seek(0)
    start = raw.read(8)
    raw.seek(0)
    for mark, opened in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", _Xz)):
        if start.startswith(mark):
            return opened(raw)
    return raw


class _Xz:
    """Reader for xz files with a memory limit, which ``lzma.open`` lacks."""

    def __init__(self, raw: IO[bytes]) -> None:
        self.raw = raw
        self.stream = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes; none at the end."""
        content = b""
        while not content:
            more = b""
            if self.stream.eof:  # another stream may follow, after zeros
                more = (self.stream.unused_data or self.raw.read(1 << 16)).lstrip(b"\0")
                if not more:
                    return b""
                self.stream = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
            elif self.stream.needs_input and not (more := self.raw.read(1 << 16)):
                raise EOFError("its end is missing")
            content = self.stream.decompress(more, size)
        return content


class _Metered(io.RawIOBase):
    """A forward-only stream of an unpacked tar with a size limit, which includes headers and skipped files.

    Attributes:
        left: bytes that may still be read before the caller resets it.
        ran_out: whether the last read was at the end.

    """

    def __init__(self, plain: Any, archive: Path) -> None:
        self.plain, self.archive, self.allowance = plain, archive, allowance(archive)
        self.position, self.left, self.ran_out = 0, _HEADER, False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self.position + size > self.allowance:
            raise _bomb(self.archive)
        if not 0 <= size <= self.left:
            raise Refused(f"an entry with more than {amount(_HEADER)} of name and attributes")
        self.left -= size
        parts, begin = [], self.position
        while self.position < begin + size and (part := self._part(begin + size - self.position)):
            parts.append(part)
        self.ran_out = size > 0 and not parts
        return b"".join(parts)

    def seek(self, position: int, whence: int = 0) -> int:
        if position > self.allowance:
            raise _bomb(self.archive)
        while self.position < position and self._part(min(position - self.position, 1 << 20)):
            pass
        return self.position

    def tell(self) -> int:
        return self.position

    def _part(self, size: int) -> bytes:
        try:
            part = self.plain.read(size)
        except OSError as error:  # bz2 and gzip raise it for damage
            raise tarfile.ReadError(error.strerror or str(error)) from None
        self.position += len(part)
        return part


def _safe_parts(name: str) -> tuple[str, ...]:
    """Return the path components of an entry; raise Refused if the path is unsafe."""
    parts = name.replace("\\", "/").split("/")  # some Windows programs write backslashes
    if (not parts[0] and len(parts) > 1) or re.match(r"[A-Za-z]:", name):
        raise Refused(f"{name!r}, an absolute path")
    if ".." in parts:
        raise Refused(f"{name!r}, a path outside the archive")
    if any(ord(character) < 32 for character in name):
        raise Refused(f"{name!r}, a name with control characters")
    if len(parts) > _DEEPEST:
        raise Refused(f"{name!r:.60}, a path of more than {_DEEPEST} folders")
    return tuple(part for part in parts if part not in ("", "."))


def _is_hidden(parts: tuple[str, ...]) -> bool:
    return not parts or any(map(is_junk, parts))

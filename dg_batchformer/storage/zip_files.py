"""Zip files of others: how many entries they list, and how they compress these, is bounded before anything is read.

Bytes that are stored or deflated unpack to no more than an entry tells; ``zipfile`` has no such bound for others.
"""

import zipfile
from typing import IO

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def open_zip(stream: IO[bytes], largest_directory: int) -> zipfile.ZipFile:
    """Open a zip file; raise BadZipFile for one that is damaged or not to be trusted.

    Args:
        stream: of the file; it stays open.
        largest_directory: bytes that its directory may have, at least 46 for every entry.

    """
    bounded = _Bounded(stream, largest_directory)
    content = zipfile.ZipFile(bounded)  # reads the whole directory at once
    bounded.most = None
    for entry in content.infolist():
        if entry.compress_type not in _METHODS:
            raise zipfile.BadZipFile(f"{entry.filename!r} is compressed in another way than by deflate")
    return content


class _Bounded:
    """A stream of which at most so many bytes are read at once."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self.stream = stream
        self.most: int | None = max(most, 2**17)  # zipfile looks for the directory in the last 64 KiB
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        if self.most is not None and size > self.most:
            raise zipfile.BadZipFile(f"its directory has more than {self.most:,} bytes")
        return self.stream.read(size)

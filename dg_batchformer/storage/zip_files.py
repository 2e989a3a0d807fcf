"""Open untrusted zip files: bound the size of the directory, and reject unusual compression.

``zipfile`` never unpacks a stored or deflated entry beyond its declared size; other methods have no such bound.
"""

import zipfile
from typing import IO

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def open_zip(stream: IO[bytes], largest_directory: int) -> zipfile.ZipFile:
    """Open a zip file; raise BadZipFile if it is damaged or exceeds the limits.

    Args:
        stream: the open file; it stays open.
        largest_directory: limit on the size of its directory, in bytes; every entry takes at least 46.

    """
    bounded = _Bounded(stream, largest_directory)
    content = zipfile.ZipFile(bounded)  # reads the whole directory at once
    bounded.most = None
    for entry in content.infolist():
        if entry.compress_type not in _METHODS:
            raise zipfile.BadZipFile(f"{entry.filename!r} is compressed by a method other than deflate")
    return content


class _Bounded:
    """A stream that limits the bytes of one read."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self.stream = stream
        self.most: int | None = max(most, 2**17)  # zipfile looks for the directory in the last 64 KiB
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        if self.most is not None and size > self.most:
            raise zipfile.BadZipFile(f"its directory has more than {self.most:,} bytes")
        return self.stream.read(size)

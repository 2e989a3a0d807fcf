"""A partial download: the bytes so far, and the version of the file on the server."""

import hashlib
from email.message import Message
from pathlib import Path
from typing import Any

from dg_batchformer.storage.folders import read_object, write_json


class Part:
    """A partial download from one address: ``NAME.MARK.part``, and a JSON file with its version.

    MARK is a hash of the address, so that bytes of different mirrors never mix.
    """

    def __init__(self, target: Path, address: str) -> None:
        mark = hashlib.sha256(address.encode()).hexdigest()[:8]
        self.path = target.with_name(f"{target.name}.{mark}.part")
        self.version_file = self.path.with_suffix(".json")

    @property
    def size(self) -> int:
        """Number of bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def is_whole(self) -> bool:
        """Whether the file has the announced size, as if the process was killed just before the rename."""
        return self.size > 0 and self._version().get("total") == self.size

    def request_headers(self) -> dict[str, str]:
        """Return headers that request the rest of the same version, or else the whole file."""
        if not self.size:
            return {}
        version = self._version()
        validator = version.get("ETag") or version.get("Last-Modified")
        return {"Range": f"bytes={self.size}-", **({"If-Range": str(validator)} if validator else {})}

    def continues(self, total: int | None) -> bool:
        """Return whether a file of size ``total`` may be the one that the part belongs to."""
        return not self.size or self._version().get("total") == total

    def remember(self, headers: Message, total: int | None) -> None:
        """Store the version; weak validators are dropped, as they do not guarantee equal bytes."""
        version = {name: headers[name] for name in ("ETag", "Last-Modified") if headers.get(name)}
        strong = {name: value for name, value in version.items() if not value.startswith("W/")}
        write_json(self.version_file, {**strong, "total": total})

    def discard(self) -> None:
        """Remove the part."""
        self.path.unlink(missing_ok=True)
        self.version_file.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        """Rename the complete file to its target."""
        self.path.replace(target)
        self.version_file.unlink(missing_ok=True)

    def _version(self) -> dict[str, Any]:
        return read_object(self.version_file)

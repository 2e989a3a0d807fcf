"""A file that is partly there: what came so far, and of which version on the server it is."""

import hashlib
from email.message import Message
from pathlib import Path
from typing import Any

from dg_batchformer.storage.folders import read_object, write_json


class Part:
    """The part of a file that came from one address: ``NAME.MARK.part``, and beside it what tells its version.

    The mark is the address's, so that bytes of two mirrors never mix.
    """

    def __init__(self, target: Path, address: str) -> None:
        mark = hashlib.sha256(address.encode()).hexdigest()[:8]
        self.path = target.with_name(f"{target.name}.{mark}.part")
        self.version_file = self.path.with_suffix(".json")

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def is_whole(self) -> bool:
        """Whether all that the server announced is there, as after a process that was killed just then."""
        return self.size > 0 and self._version().get("total") == self.size

    def request_headers(self) -> dict[str, str]:
        """Return headers that ask for the rest if the version is still the same, else for the whole file."""
        if not self.size:
            return {}
        version = self._version()
        validator = version.get("ETag") or version.get("Last-Modified")
        return {"Range": f"bytes={self.size}-", **({"If-Range": str(validator)} if validator else {})}

    def continues(self, total: int | None) -> bool:
        """Whether a file of that size may be the one of which the part is."""
        return not self.size or self._version().get("total") == total

    def remember(self, headers: Message, total: int | None) -> None:
        """Keep what tells the version; weak validators promise no equal bytes, so they are left out."""
        version = {name: headers[name] for name in ("ETag", "Last-Modified") if headers.get(name)}
        strong = {name: value for name, value in version.items() if not value.startswith("W/")}
        write_json(self.version_file, {**strong, "total": total})

    def discard(self) -> None:
        """Remove the part."""
        self.path.unlink(missing_ok=True)
        self.version_file.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        """Give the whole file its name."""
        self.path.replace(target)
        self.version_file.unlink(missing_ok=True)

    def _version(self) -> dict[str, Any]:
        return read_object(self.version_file)

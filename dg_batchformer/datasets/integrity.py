"""Inspect image files: read and fully decode each one, on all cores, and report defects.

A JPEG is decoded at an eighth of its size: this reads every coded bit, so that it detects the same defects as a full
decode. It only skips the transform from coefficients to pixels, which cannot fail.
"""

import hashlib
import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dg_batchformer.datasets.decoding import NotAnImage, TooLarge, Undecodable, decode, open_image
from dg_batchformer.errors import InputError
from dg_batchformer.runtime.parallel import in_every_core
from dg_batchformer.storage.safe_read import IMAGE, read_bytes

_ORIENTATION = 0x0112  # EXIF: 1, or absent, is upright


class Inspection(NamedTuple):
    """Result of inspecting a file.

    ``defect`` is '' for an intact image, else ``unreadable``, ``empty`` (no bytes), ``no image`` (unsupported format),
    ``too large``, ``truncated`` (partly decodable) or ``broken`` (not decodable); ``reason`` may have details. Without
    pixels, ``mode`` is '' and ``size``, (width, height), is (0, 0). ``digest`` is the SHA-256 of the bytes, '' if none
    were read.
    """

    digest: str
    num_bytes: int
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    rotated: bool = False
    defect: str = ""
    reason: str = ""


def inspect_files(files: Sequence[Path]) -> Iterator[Inspection]:
    """Yield the inspection of each file, in order; raise InputError if a worker process is killed."""
    return in_every_core(inspect_file, files)


def inspect_file(file: Path) -> Inspection:
    """Read and fully decode a file."""
    try:
        content = read_bytes(file, IMAGE)
    except OSError as error:
        return Inspection("", 0, defect="unreadable", reason=error.strerror or str(error))
    found = Inspection(hashlib.sha256(content).hexdigest(), len(content))
    if not content:
        return found._replace(defect="empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about odd metadata
        try:
            return _decoded(found, content)
        except NotAnImage as error:
            return found._replace(defect="no image", reason=str(error))
        except TooLarge as error:
            return found._replace(defect="too large", reason=str(error))
        except Undecodable as error:
            return _damaged(found, file, str(error))


def _decoded(found: Inspection, content: bytes) -> Inspection:
    with open_image(io.BytesIO(content)) as image:
        size, mode = image.size, image.mode
        if image.format == "JPEG":
            image.draft("YCbCr", (1, 1))
        image.load()
        rotated = "exif" in image.info and image.getexif().get(_ORIENTATION, 1) != 1
    return found._replace(size=size, mode=mode, rotated=rotated)


def _damaged(found: Inspection, file: Path, reason: str) -> Inspection:
    try:
        image, _ = decode(file)
    except InputError:
        return found._replace(defect="broken", reason=reason)
    return found._replace(size=image.size, mode=image.mode, defect="truncated", reason=reason)

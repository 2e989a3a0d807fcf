"""Look into image files: read and decode each one whole, on all cores, and tell what a run should know of it.

A JPEG is decoded at an eighth of its size: every coded bit is read, so that whatever is missing or broken shows as in a
full decode, and only the arithmetic that turns coefficients into pixels, which cannot fail, is left out.
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
    """What was found in a file.

    ``defect`` is '' for a whole image, else ``unreadable``, ``empty`` (no byte), ``no image`` (in no format that is
    read), ``too large``, ``truncated`` (a part is missing) or ``broken`` (nothing can be decoded); ``reason`` may say
    more. Without pixels,
    ``mode`` is '' and ``size``, (width, height), is (0, 0). ``digest`` is the sha256 of the bytes, '' for none read.
    """

    digest: str
    num_bytes: int
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    rotated: bool = False
    defect: str = ""
    reason: str = ""


def inspect_files(files: Sequence[Path]) -> Iterator[Inspection]:
    """Yield what is found in each file, in their order; raise InputError where a process dies of one."""
    return in_every_core(inspect_file, files)


def inspect_file(file: Path) -> Inspection:
    """Read a file and decode all of it."""
    try:
        content = read_bytes(file, IMAGE)
    except OSError as error:
        return Inspection("", 0, defect="unreadable", reason=error.strerror or str(error))
    found = Inspection(hashlib.sha256(content).hexdigest(), len(content))
    if not content:
        return found._replace(defect="empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on odd metadata
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

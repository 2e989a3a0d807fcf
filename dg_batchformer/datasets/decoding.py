"""Decode image files that others made: only the formats that are named, and within a limit of memory.

Every image of the package is opened here. Pillow's own search over all formats would start programs for some of them
(Ghostscript for PostScript, whatever the ending says), so the first bytes choose the only decoder that is tried. The
header tells how much memory an image takes before any of it is decoded. Of several frames or pages the first is read.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile

from dg_batchformer.catalog.image_formats import HEAD, READ_FORMATS, format_of
from dg_batchformer.errors import InputError
from dg_batchformer.storage.safe_read import IMAGE, open_regular

MOST_PIXELS = 89_478_485  # Pillow's own limit, from which on it warns
_FRUGAL, _LAVISH = 8, 16  # bytes a pixel while decoding: the image and its conversion; with buffers of the decoder too
_MOST_BYTES = _FRUGAL * MOST_PIXELS
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF
warnings.simplefilter("error", Image.DecompressionBombWarning)


class Undecodable(Exception):
    """An image that cannot be decoded; the message says why."""


class NotAnImage(Undecodable):
    """A file that is in none of the formats that are read."""


class TooLarge(Undecodable):
    """An image that would take more memory than any may."""


def decode(file: Path) -> tuple[Image.Image, bool]:
    """Decode an image to RGB; also return whether the file was whole. A truncated one gives what is there.

    Raises InputError, naming the file, where nothing can be decoded.
    """
    try:
        return decode_whole(file), True
    except (NotAnImage, TooLarge) as error:
        raise _refused(file, error) from None
    except Undecodable:
        pass
    ImageFile.LOAD_TRUNCATED_IMAGES = True  # Pillow's switch is the process's: not for threads
    try:
        return decode_whole(file), False
    except Undecodable as error:
        raise _refused(file, error) from None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def truncated(file: Path) -> str:
    """Return the note on an image of which a part is missing."""
    return f"{file} is truncated; what is there was used"


def decode_whole(file: Path) -> Image.Image:
    """Decode an image to RGB; raise Undecodable where a part is missing or broken."""
    with open_file(file) as image:
        if image.mode == "RGB":
            image.load()
            return image
        return image.convert("RGB")


@contextmanager
def open_file(file: Path) -> Iterator[Image.Image]:
    """Open an image file as ``open_image`` does; raise Unreadable where it is not a regular file of a sane size."""
    with _undecodable(), open_regular(file, IMAGE) as stream, open_image(stream) as image:
        yield image


@contextmanager
def open_image(stream: BinaryIO) -> Iterator[Image.Image]:
    """Open an image in one of ``READ_FORMATS``, whose pixels are decoded where they are first asked for.

    Raises NotAnImage for any other format, TooLarge for what would take too much memory, and Undecodable, also from
    within, for whatever else is wrong with it.
    """
    head = stream.read(HEAD)
    stream.seek(0)
    name = format_of(head)
    if name not in READ_FORMATS:
        found = f"it is {name}" if name else "it begins like no image" if head else "it is empty"
        raise NotAnImage(f"{found}, and {', '.join(READ_FORMATS)} are read")
    with _undecodable(), Image.open(stream, formats=[name]) as image:
        pixels = max(image.width * image.height, _tile(image))
        allowed = _MOST_BYTES // (_LAVISH if name == "WEBP" or "progressive" in image.info else _FRUGAL)
        if pixels > allowed:
            raise _too_large(allowed)
        yield image


def size_of(file: Path) -> tuple[int, int]:
    """Return height and width from the header; raise Undecodable where it tells none."""
    with open_file(file) as image:
        return image.height, image.width


def _tile(image: Image.Image) -> int:
    """Return the pixels of a tile of a TIFF, which may be far larger than the image; 0 for other images."""
    tags = getattr(image, "tag_v2", None) or {}
    return int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_LENGTH, 0))


@contextmanager
def _undecodable() -> Iterator[None]:
    """Turn whatever Pillow raises on the bytes of strangers into Undecodable."""
    try:
        yield
    except (Undecodable, InputError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(MOST_PIXELS) from None
    except MemoryError:
        raise Undecodable("it does not fit into memory") from None
    except Exception as error:
        raise Undecodable(" ".join(str(error).split()) or type(error).__name__) from None


def _too_large(allowed: int) -> TooLarge:
    return TooLarge(f"it has more than the {allowed:,} pixels that an image of its kind may have")


def _refused(file: Path, error: Undecodable) -> InputError:
    return InputError(f"{file} cannot be decoded as an image ({error}); replace it or take it out")

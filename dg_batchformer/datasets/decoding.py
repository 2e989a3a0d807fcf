"""Decode untrusted image files: a fixed list of formats, and a memory limit.

All images are opened here. Pillow's format detection would run external programs for some formats (Ghostscript for
PostScript, whatever the extension), so the first bytes select a single decoder. The header gives the memory that an
image needs before it is decoded. Only the first frame or page is read.
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

MOST_PIXELS = 89_478_485  # Pillow's limit, above which it warns
_FRUGAL, _LAVISH = 8, 16  # bytes per pixel while decoding: image and conversion; plus buffers of some decoders
_MOST_BYTES = _FRUGAL * MOST_PIXELS
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF
warnings.simplefilter("error", Image.DecompressionBombWarning)


class Undecodable(Exception):
    """An image that cannot be decoded; the message says why."""


class NotAnImage(Undecodable):
    """A file with an unsupported format."""


class TooLarge(Undecodable):
    """An image that exceeds the memory limit."""


def decode(file: Path) -> tuple[Image.Image, bool]:
    """Decode an image to RGB, and return it with whether the file was complete; a truncated file is decoded partly.

    Raises InputError, with the file's name, if nothing can be decoded.
    """
    try:
        return decode_whole(file), True
    except (NotAnImage, TooLarge) as error:
        raise _refused(file, error) from None
    except Undecodable:
        pass
    ImageFile.LOAD_TRUNCATED_IMAGES = True  # a global setting of Pillow: not thread-safe
    try:
        return decode_whole(file), False
    except Undecodable as error:
        raise _refused(file, error) from None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def truncated(file: Path) -> str:
    """Return the note on a truncated image."""
    return f"{file} is truncated; the decodable part is used"


def decode_whole(file: Path) -> Image.Image:
    """Decode an image to RGB; raise Undecodable if any part is missing or broken."""
    with open_file(file) as image:
        if image.mode == "RGB":
            image.load()
            return image
        return image.convert("RGB")


@contextmanager
def open_file(file: Path) -> Iterator[Image.Image]:
    """Open an image file as ``open_image`` does; raise Unreadable if it is not a regular file, or too large."""
    with _undecodable(), open_regular(file, IMAGE) as stream, open_image(stream) as image:
        yield image


@contextmanager
def open_image(stream: BinaryIO) -> Iterator[Image.Image]:
    """Open an image in one of ``READ_FORMATS``; its pixels are decoded on first access.

    Raises NotAnImage for any other format, TooLarge for an image above the memory limit, and Undecodable, also inside
    the context, for any other defect.
    """
    head = stream.read(HEAD)
    stream.seek(0)
    name = format_of(head)
    if name not in READ_FORMATS:
        found = f"it is {name}" if name else "its format is unknown" if head else "it is empty"
        raise NotAnImage(f"{found}; supported formats: {', '.join(READ_FORMATS)}")
    with _undecodable(), Image.open(stream, formats=[name]) as image:
        pixels = max(image.width * image.height, _tile(image))
        allowed = _MOST_BYTES // (_LAVISH if name == "WEBP" or "progressive" in image.info else _FRUGAL)
        if pixels > allowed:
            raise _too_large(allowed)
        yield image


def size_of(file: Path) -> tuple[int, int]:
    """Return (height, width) from the header; raise Undecodable if it is malformed."""
    with open_file(file) as image:
        return image.height, image.width


def _tile(image: Image.Image) -> int:
    """Return the number of pixels in a tile of a TIFF, which may exceed the image; 0 for other images."""
    tags = getattr(image, "tag_v2", None) or {}
    return int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_LENGTH, 0))


@contextmanager
def _undecodable() -> Iterator[None]:
    """Convert any exception of Pillow to Undecodable."""
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
    return TooLarge(f"it has more than {allowed:,} pixels, the limit for such images")


def _refused(file: Path, error: Undecodable) -> InputError:
    return InputError(f"{file} cannot be decoded as an image ({error}); replace or remove it")

"""Supported image formats, by file extension and magic number, and files that look like images."""

from pathlib import Path

from dg_batchformer.storage.safe_read import WEIGHTS, open_regular

# torchvision's extensions, and two more that are common for JPEG files.
READ_ENDINGS = (".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_OTHER_ENDINGS = (
    ".apng", ".arw", ".avif", ".cr2", ".cr3", ".dib", ".dng", ".eps", ".exr", ".gif", ".heic", ".heif", ".hif", ".ico",
    ".j2k", ".jif", ".jp2", ".jxl", ".nef", ".orf", ".pbm", ".pnm", ".psd", ".raf", ".rw2", ".svg", ".tga", ".xcf",
)  # fmt: skip

# Pillow's names of the formats to decode, regardless of the extension: published datasets have GIFs named .jpg.
READ_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP")
_STARTS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    *((start, "TIFF") for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((b"P%d" % kind, "PPM") for kind in range(1, 7)),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "PDF"),
    (b"8BPS", "Photoshop"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"<svg", "SVG"),
)  # fmt: skip
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "HEIC"),
}
HEAD = 32  # bytes needed to detect a format


def format_of(head: bytes) -> str:
    """Detect an image format from the first bytes of a file; '' if it is unknown."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "")
    return next((name for start, name in _STARTS if head.startswith(start)), "")


def has_read_ending(name: str) -> bool:
    """Return whether a file name has a supported extension."""
    return name.lower().endswith(READ_ENDINGS)


def is_read(file: Path) -> bool:
    """Return whether a file has a supported format, by its extension or else by its first bytes."""
    return has_read_ending(file.name) or _format_of(file) in READ_FORMATS


def could_be_image(file: Path) -> bool:
    """Return whether a file looks like an image, supported or not, by its extension or its first bytes."""
    return file.name.lower().endswith((*READ_ENDINGS, *_OTHER_ENDINGS)) or _format_of(file) != ""


def _format_of(file: Path) -> str:
    try:
        with open_regular(file, WEIGHTS) as stream:
            return format_of(stream.read(HEAD))
    except OSError:
        return ""

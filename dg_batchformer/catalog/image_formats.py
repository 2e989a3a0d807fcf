"""Image formats: which are read, by file ending and by first bytes, and which files could be meant as images."""

from pathlib import Path

from dg_batchformer.storage.safe_read import WEIGHTS, open_regular

# torchvision's endings, and two more that cameras and browsers give JPEG.
READ_ENDINGS = (".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_OTHER_ENDINGS = (
    ".apng", ".arw", ".avif", ".cr2", ".cr3", ".dib", ".dng", ".eps", ".exr", ".gif", ".heic", ".heif", ".hif", ".ico",
    ".j2k", ".jif", ".jp2", ".jxl", ".nef", ".orf", ".pbm", ".pnm", ".psd", ".raf", ".rw2", ".svg", ".tga", ".xcf",
)  # fmt: skip

# Pillow's names of the formats that are decoded, whatever the ending says: published datasets have GIFs named .jpg.
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
HEAD = 32  # bytes that tell a format


def format_of(head: bytes) -> str:
    """Return the name of the image format that a file begins with; '' for none that is known."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "")
    return next((name for start, name in _STARTS if head.startswith(start)), "")


def has_read_ending(name: str) -> bool:
    """Whether files of that name are read as images."""
    return name.lower().endswith(READ_ENDINGS)


def is_read(file: Path) -> bool:
    """Whether a file is in a format that is read, by its ending or else by its first bytes."""
    return has_read_ending(file.name) or _format_of(file) in READ_FORMATS


def could_be_image(file: Path) -> bool:
    """Whether a file could be meant as an image: by its ending, or by its first bytes."""
    return file.name.lower().endswith((*READ_ENDINGS, *_OTHER_ENDINGS)) or _format_of(file) != ""


def _format_of(file: Path) -> str:
    try:
        with open_regular(file, WEIGHTS) as stream:
            return format_of(stream.read(HEAD))
    except OSError:
        return ""

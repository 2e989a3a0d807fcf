"""Untrusted images: only supported formats are decoded, within a memory limit and without starting programs."""

import random
import struct
import subprocess
import zlib
from contextlib import suppress

import pytest
from PIL import EpsImagePlugin, Image

from dg_batchformer.datasets.decoding import MOST_PIXELS, decode
from dg_batchformer.datasets.integrity import inspect_file
from dg_batchformer.errors import InputError

_ENDINGS = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "BMP": "bmp", "PPM": "ppm", "TIFF": "tif", "WEBP": "webp"}


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width, height):
    """Return a small file that declares a size."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(b"\0" * 100_000)) + _chunk(b"IEND", b"")


def _tiff(width, height, tile):
    """Return a small file with one tile that declares a size."""
    long, tags = 4, {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: 200, 325: 50}
    entries = b"".join(struct.pack("<HHII", tag, long, 1, value) for tag, value in tags.items())
    return (b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries).ljust(200, b"\0") + zlib.compress(b"\0" * 100_000)


@pytest.mark.parametrize("name", _ENDINGS)
def test_a_supported_format_is_decoded_whatever_its_extension(tmp_path, name):
    file = tmp_path / "image.jpg"
    Image.new("RGB", (12, 9), (200, 30, 90)).save(file, name)

    image, whole = decode(file)

    assert (image.mode, image.size, whole) == ("RGB", (12, 9), True)
    assert all(abs(got - want) < 12 for got, want in zip(image.getpixel((5, 5)), (200, 30, 90), strict=True))
    assert inspect_file(file).defect == ""


def test_postscript_named_as_a_jpeg_is_refused_and_starts_no_program(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: started.append("gs"))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: started.append("program"))
    file = tmp_path / "image.jpg"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n")

    with pytest.raises(
        InputError, match=r"image.jpg cannot be decoded as an image \(it is PostScript; supported formats: JPEG, PNG"
    ):
        decode(file)

    assert inspect_file(file).defect == "no image"
    assert started == []


@pytest.mark.parametrize("name", ["GIF", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_read(tmp_path, name):
    file = tmp_path / "image.png"
    first, *others = (Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue"))
    first.save(file, name, save_all=True, append_images=others)

    image, _ = decode(file)

    assert image.getpixel((4, 4))[0] > 200


@pytest.mark.parametrize(
    "content",
    [_png(9_460, 9_460), _png(60_000, 60_000), _tiff(16, 16, 16_384), _tiff(12_000, 12_000, 64)],
    ids=["PNG", "larger PNG", "tile of a TIFF", "TIFF"],
)
def test_images_that_need_too_much_memory_are_refused_from_their_header(tmp_path, content):
    file = tmp_path / "image.png"
    file.write_bytes(content)

    with pytest.raises(InputError, match=rf"it has more than {MOST_PIXELS:,} pixels, .*; replace or remove it"):
        decode(file)

    assert inspect_file(file).defect == "too large"


def test_formats_whose_decoder_needs_more_memory_may_have_fewer_pixels(tmp_path):
    file = tmp_path / "image.webp"
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "lime")]
    frames[0].save(file, save_all=True, append_images=frames[1:])
    content = bytearray(file.read_bytes())
    assert content[12:16] == b"VP8X"
    content[24:30] = (7_499).to_bytes(3, "little") * 2
    file.write_bytes(content)

    with pytest.raises(InputError, match=rf"it has more than {MOST_PIXELS // 2:,} pixels"):
        decode(file)

    assert inspect_file(file).defect == "too large"


@pytest.mark.parametrize("name", _ENDINGS)
def test_damaged_bytes_raise_only_one_sentence_errors(tmp_path, name):
    file, rng = tmp_path / "image.png", random.Random(0)
    Image.effect_noise((20, 20), 80).convert("RGB").save(file, name)
    content = file.read_bytes()

    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(rng.randrange(1, 6)):
            damaged[rng.randrange(min(len(damaged), 200))] = rng.randrange(256)
        file.write_bytes(damaged)
        inspect_file(file)
        with suppress(InputError):
            decode(file)

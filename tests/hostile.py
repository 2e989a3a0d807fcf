"""Hostile and broken input for every reader: special files, damaged bytes, made-up values, bombs, texts.

For the property tests, and for the tool that tries many more.
"""

import bz2
import copy
import gzip
import io
import json
import lzma
import math
import os
import pickle
import random
import re
import socket
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

# Invisible characters and cursor movements. Progress bars on stderr may return to the line start and move up.
UNSEEN = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)
TEXTS = (
    "\x1b[2J\x1b]0;title\x07", "\x9b31m", "a\rb", "a\x08\x08", "\u202egnp.exe", "\u2066x\u2069", "\u200f", "\ud800",
    "\udcff", "a\nb", "\tx", "\u2028", "\x00", "=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", " =1", "[x](http://a.b)",
    "![x](http://a.b/c.png)", "<img src=x onerror=alert(1)>", "a|b", "https://a.b/c", "www.a.b", "&lt;b&gt;", "`code`",
    "[1cm]", "*", "* star", "\\input{/etc/passwd}", "}$&#^_~%{", "\\write18{ls}", "${jndi:x}", "\U000e0041\U000e0042",
    "../../x", "/etc/passwd", "$(touch ran)", "'; touch ran; '", "%s%n{0.__class__}", "x" * 5000,
)  # fmt: skip
VALUES = (
    None, True, -1, 0, 10**30, 2**63, 1e308, math.nan, math.inf, "", [], {}, [[[[]]]], {"a": {}}, [None], ["x", 1],
    {"": 0}, "1", 0.5, -math.inf, [1] * 1000,
)  # fmt: skip


def texts(rng: random.Random, count: int) -> list[str]:
    """Return texts composed of hostile and plain parts."""
    parts = (*TEXTS, "ERM", " ", "é", "晴", "\\", "1.5")
    return ["".join(rng.choices(parts, k=rng.randint(1, 4))) for _ in range(count)]


# Paths that are not regular files.


def _link(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


def _sparse(size: int) -> Callable[[Path], object]:
    return lambda path: (path.touch(), os.truncate(path, size))


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


SPECIAL: dict[str, Callable[[Path], object]] = {
    "FIFO": os.mkfifo,
    "/dev/zero": _link("/dev/zero"),
    "/dev/stdin": _link("/dev/stdin"),
    "directory": os.mkdir,
    "socket": _socket,
    "link to nothing": _link("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "empty": Path.touch,
    "zeros": _sparse(100_000_000),
    "far too large": _sparse(2**36),
    "brackets": lambda path: path.write_bytes(b"[" * 1_000_000),
    "empty lists": lambda path: path.write_bytes(b"[" + b"[]," * 1_000_000 + b"[]]"),
    "empty lines": lambda path: path.write_bytes(b"\n" * 10_000_000),
    "one digit after another": lambda path: path.write_bytes(b"9" * 1_000_000),
}


def put(path: Path, kind: str) -> None:
    """Replace a file with something that is not a regular file."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    SPECIAL[kind](path)


# Damaged bytes and made-up values.


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return the bytes with some cut, flipped, repeated, exchanged or inserted."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 50))):
        begin = rng.randrange(len(content) + 1)
        end = min(len(content), begin + int(2 ** rng.uniform(0, 12)))
        match rng.randrange(6):
            case 0:
                del content[begin:]
            case 1 if begin < len(content):
                content[begin] ^= 1 << rng.randrange(8)
            case 2:
                content[begin:begin] = content[begin:end]
            case 3:
                del content[begin:end]
            case 4:
                content[begin:end] = rng.randbytes(end - begin)
            case _:
                inserted = (
                    b"\xff" * 8,
                    b"\0" * 8,
                    b"\n",
                    b'"',
                    b"{",
                    b"[" * 5000,
                    b"NaN",
                    b"\xed\xa0\x80",
                    b"1" * 5000,
                )
                content[begin:begin] = rng.choice(inserted)
    return bytes(content)


def made_up(value: Any, rng: random.Random) -> Any:
    """Return JSON with an unusual value or name in one place at any depth."""
    value = copy.deepcopy(value)
    place = value
    while isinstance(place, dict | list) and place:
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        below = place[key]
        if not isinstance(below, dict | list) or not below or rng.random() < 0.2:
            match rng.randrange(5):
                case 0:
                    del place[key]
                case 1 if isinstance(place, dict):
                    place[rng.choice(TEXTS)] = place.pop(key)
                case 2:
                    place[key] = rng.choice(TEXTS)
                case 3:
                    place[key] = [below] * 3
                case _:
                    place[key] = rng.choice(VALUES)
            return value
        place = below
    return rng.choice(VALUES)


def nested(depth: int) -> str:
    """Return JSON (and YAML) of nested lists."""
    return "[" * depth + "]" * depth


class Runs:
    """Code that runs when unpickled, and writes a file ``ran``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("ran", "w")


CODE = "open('ran', 'w').close()\n"

# Bombs: small files that unpack to large ones.


def _zip(path: Path, method: int, *, entries: int = 1, size: int = 100, name: str = "photo/dog/{}.jpg") -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for number in range(entries):
            archive.writestr(name.format(number), bytes(size))


def _zip_of_entries(path: Path) -> None:
    """Write a zip whose directory lists one file 1.5 million times."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"")
    content = path.read_bytes()
    begin, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    many = content[begin:end] * 1_500_000
    tail = bytearray(content[end:])
    struct.pack_into("<HHI", tail, 8, 65535, 65535, len(many))
    path.write_bytes(content[:begin] + many + tail)


def _untrue_size(path: Path) -> None:
    """Make a zip's directory say that every entry has 100 bytes."""
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        place = content.find(mark)
        while place >= 0:
            struct.pack_into("<I", content, place + offset, 100)
            place = content.find(mark, place + 1)
    path.write_bytes(content)


def _bomb_in_zip(path: Path, method: int) -> None:
    with zipfile.ZipFile(path, "w", method) as archive, archive.open("photo/dog/1.jpg", "w", force_zip64=True) as entry:
        for _ in range(100):
            entry.write(bytes(1_000_000))
    _untrue_size(path)


def _tar(path: Path, compress: Callable[[bytes], bytes], *headers: tarfile.TarInfo, tail: int = 0) -> None:
    path.write_bytes(compress(b"".join(header.tobuf(tarfile.GNU_FORMAT) for header in headers) + bytes(tail)))


def _entry(name: str, kind: bytes, size: int = 0, target: str = "") -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.size, header.linkname = kind, size, target
    return header


def _tar_of(size: int) -> bytes:
    return _entry("photo/dog/1.jpg", tarfile.REGTYPE, size).tobuf(tarfile.GNU_FORMAT)


def _large(path: Path, compress: Callable[[bytes], bytes]) -> None:
    """Write a tar of one file of 3 GB, as many compressed streams."""
    part = 100_000_000
    more = compress(bytes(part))
    path.write_bytes(compress(_tar_of(30 * part) + bytes(part)) + 29 * more)


def _xz_dictionary(path: Path) -> None:
    path.write_bytes(_xz_with_dictionary(lzma.compress(_tar_of(10) + bytes(2000), preset=0)))


def _xz_with_dictionary(content: bytes) -> bytes:
    """Return an xz file whose block asks for a dictionary of 4 GiB."""
    changed = bytearray(content)
    length = (changed[12] + 1) * 4
    place = changed.index(b"\x21\x01", 12) + 2
    changed[place] = 40
    changed[12 + length - 4 : 12 + length] = struct.pack("<I", zlib.crc32(bytes(changed[12 : 12 + length - 4])))
    return bytes(changed)


ARCHIVES: dict[str, Callable[[Path], object]] = {
    "zip, deflated, size untrue": lambda path: _bomb_in_zip(path, zipfile.ZIP_DEFLATED),
    "zip, bzip2": lambda path: _bomb_in_zip(path, zipfile.ZIP_BZIP2),
    "zip, lzma": lambda path: _bomb_in_zip(path, zipfile.ZIP_LZMA),
    "zip, many entries": _zip_of_entries,
    "zip, leads out": lambda path: _zip(path, zipfile.ZIP_STORED, name="../../{}.jpg"),
    "zip, deep": lambda path: _zip(path, zipfile.ZIP_STORED, name="a/" * 5000 + "{}.jpg"),
    "zip, long name": lambda path: _zip(path, zipfile.ZIP_STORED, name="a" * 60_000 + "{}.jpg"),
    "tar, leads out": lambda path: _tar(path, bytes, _entry("../../x.jpg", tarfile.REGTYPE)),
    "tar, link": lambda path: _tar(path, bytes, _entry("photo", tarfile.SYMTYPE, target="/etc"), tail=2048),
    "tar, hard link": lambda path: _tar(path, bytes, _entry("photo", tarfile.LNKTYPE, target="/etc/passwd"), tail=2048),
    "tar, device": lambda path: _tar(path, bytes, _entry("photo", tarfile.CHRTYPE), tail=2048),
    **{
        f"tar, {name} of {size:,} bytes": lambda path, kind=kind, size=size: (
            _tar(path, bytes, _entry("x", kind, size)),
            os.truncate(path, 2**33),
        )
        for name, kind in {"name": b"L", "link": b"K", "attributes": b"x", "all attributes": b"g"}.items()
        for size in (2**20 + 1, 2**29, 2**33 - 512)
    },
    "tar, names in names": lambda path: _tar(path, bytes, *[_entry("x", b"L", 0)] * 5000),
    "tar, many entries": lambda path: path.write_bytes(
        gzip.compress(_entry("a/b", tarfile.DIRTYPE).tobuf() * 150_000, 1)
    ),
    "tar.gz, 3 GB": lambda path: _large(path, gzip.compress),
    "tar.bz2, 3 GB": lambda path: _large(path, bz2.compress),
    "tar.xz, 3 GB": lambda path: _large(path, lambda content: lzma.compress(content, preset=0)),
    "tar.xz, a dictionary of 4 GiB": _xz_dictionary,
}


_COLUMNS = {"env": [0], "split": ["in"], "label": [0], "predicted": [0], "confidence": [0.5]}


def _npz(path: Path, **columns: Any) -> None:
    np.savez_compressed(path, **{**_COLUMNS, **columns})


def _npz_of_zeros(path: Path) -> None:
    """Write predictions of 250 million images, 2 GB in 2 MB."""
    header = _saved(np.save, np.zeros(0, np.int64)).replace(b"(0,), }         ", b"(250000000,), }")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, value in _COLUMNS.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                out.write(_saved(np.save, np.array(value)) if name != "env" else header)
                for _ in range(2000 * (name == "env")):
                    out.write(bytes(1_000_000))


def _untrue_shape(path: Path) -> None:
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (100000000000,), }"
    header += b" " * (118 - len(header)) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("env", "split", "label", "predicted", "confidence"):
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)


PREDICTIONS: dict[str, Callable[[Path], object]] = {
    "2 GB of zeros": _npz_of_zeros,
    "a shape of 800 GB": _untrue_shape,
    "a pickle": lambda path: _npz(path, env=np.array([Runs()], object)),
    "other columns": lambda path: np.savez(path, x=[1]),
    "one array": lambda path: path.write_bytes(_saved(np.save, np.zeros(3))),
    "lengths that differ": lambda path: _npz(path, env=[0, 1]),
    "texts for numbers": lambda path: _npz(path, label=["a"]),
    "labels out of range": lambda path: _npz(path, label=[10**9], env=[-5]),
}


def _saved(save: Callable[[Any, Any], object], value: Any) -> bytes:
    save(stream := io.BytesIO(), value)
    return stream.getvalue()


def _deflated(path: Path) -> None:
    """Write a file of torch.save whose zeros are compressed, 2 GB in 2 MB."""
    small = io.BytesIO()
    torch.save({"predictor": {"weight": torch.zeros(1)}}, small)
    with zipfile.ZipFile(small) as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb:
        for entry in plain.infolist():
            if "/data/" in entry.filename:
                with bomb.open(entry.filename, "w", force_zip64=True) as out:
                    for _ in range(2000):
                        out.write(bytes(1_000_000))
            else:
                bomb.writestr(entry.filename, plain.read(entry))


def _huge_view(path: Path) -> None:
    torch.save({"spec": {}, "predictor": {"weight": torch.zeros(1).expand(100_000, 100_000)}}, path)


TENSORS: dict[str, Callable[[Path], object]] = {
    "compressed zeros": _deflated,
    "a view of 40 GB": _huge_view,
    "code": lambda path: torch.save({"spec": Runs()}, path),
    "code, in a pickle alone": lambda path: path.write_bytes(pickle.dumps(Runs())),
    "a list": lambda path: torch.save([1], path),
    "a dict of nothing": lambda path: torch.save({}, path),
    "a state of nothing": lambda path: torch.save({"format": "dg_batchformer checkpoint 1", "state": {}}, path),
    "lists in lists": lambda path: torch.save({"spec": _lists(100)}, path),
}


def _lists(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def png(width: int, height: int) -> bytes:
    """Return a small PNG that declares a large size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(min(height * (1 + 3 * width), 10_000_000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(ran) (w) file closefile\n{} loop\n"

IMAGES: dict[str, Callable[[Path], object]] = {
    "PostScript": lambda path: path.write_bytes(EPS),
    "a PNG of 16383 x 16383": lambda path: path.write_bytes(png(16383, 16383)),
    "a PNG of 2^31 x 2^31": lambda path: path.write_bytes(png(2**31 - 1, 2**31 - 1)),
    "a PNG of 9000 x 9000": lambda path: path.write_bytes(png(9000, 9000)),
    "a PNG of 0 x 0": lambda path: path.write_bytes(png(0, 0)),
    "a text": lambda path: path.write_bytes(b"no image"),
    "SVG": lambda path: path.write_bytes(b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    "a GIF of 65535 x 65535": lambda path: path.write_bytes(b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b";"),
}

YAMLS = {
    "laughs": "a: &a [x, x]\n" + "".join(f"{c}: &{c} [{', '.join([f'*{p}'] * 9)}]\n" for p, c in pairwise("abcdefghi")),
    "tag": "datasets: !!python/object/apply:os.system ['touch ran']\n",
    "new": "datasets: !!python/object/new:subprocess.Popen [['touch', 'ran']]\n",
    "nested": f"datasets: {nested(1000)}\n",
    "itself": "datasets: &x [*x]\n",
    "long": "datasets: [" + "Toy, " * 5_000 + "Toy]\n",
    "many trials": "datasets: [Toy]\nalgorithms: [ERM]\ntrials: 1000000000\ndraws: 1000000000\n",
    "number": "datasets: [Toy]\nalgorithms: [ERM]\nsteps: " + "9" * 5000 + "\n",
    "octal": "datasets: [Toy]\nalgorithms: [ERM]\nsteps: 1:30:00\n",
    "date": "datasets: [9999-99-99]\nalgorithms: [ERM]\n",
    "bytes": "datasets: !!binary =\n",
    "set": "datasets: !!set {a}\nalgorithms: !!omap [a: b]\n",
    "merge": "<<: [1, 2]\ndatasets: [Toy]\n",
    "controls": "datasets: [\"\\e[2J\", \"\\u202E\"]\nalgorithms: [\"\\0\"]\n",
    "labels": "datasets: [Toy]\nalgorithms: [{name: ERM, label: \"a\\nb\"}]\n",
    "plugin": "datasets: [Toy]\nalgorithms: [Planted]\nplugins: [\"../planted\"]\n",
}  # fmt: skip

MANIFESTS = {
    "leads out": b"path,label,domain\n../../../etc/passwd,a,b\n",
    "absolute": b"path,label,domain\n/etc/passwd,a,b\n",
    "nul": b"path,label,domain\na\0.jpg,a,b\nb.jpg,a,c\n",
    "quotes": b'path,label,domain\n"a.jpg,a,b\n',
    "a field of 10 MB": b"path,label,domain\n" + b"a" * 10_000_000 + b",a,b\n",
    "many columns": b"," * 1_000_000 + b"\n",
    "many rows": b"path,label,domain\n" + b"a,b,c\n" * 30_000,
    "controls": "path,label,domain\na.jpg,\x1b[2J,\u202e\nb.jpg,=1+1,\x1b\n".encode(),
    "latin-1": "path,label,domain\né.jpg,a,b\n".encode("latin-1"),
    "UTF-16": "path,label,domain\na.jpg,a,b\n".encode("utf-16"),
    "nested": nested(100_000).encode(),
    "entries": b'[{"path": ["x"], "label": {}, "domain": null}]',
    "surrogates": b'[{"path": "\\ud800", "label": "\\ud800", "domain": "a"}, {"path": "b", "label": "", "domain": ""}]',
    "nothing": b"",
}  # fmt: skip


def records_of(rng: random.Random, lines: list[dict[str, Any]]) -> bytes:
    """Return a results.jsonl of made-up records."""
    return b"".join(json.dumps(made_up(line, rng)).encode() + b"\n" for line in lines)

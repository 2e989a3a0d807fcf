"""Datasets in Hugging Face's format: parquet files with the columns image, domain and label."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from dg_batchformer.catalog.class_folders import is_image
from dg_batchformer.catalog.datasets import DatasetFacts
from dg_batchformer.datasets.prepare.archives import Damaged, allowance, most_entries
from dg_batchformer.datasets.prepare.disk import amount, writing
from dg_batchformer.datasets.prepare.layouts import environment_named
from dg_batchformer.datasets.prepare.sources import Source
from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.storage.parquet import require_pyarrow
from dg_batchformer.storage.parquet_pages import page_sizes
from dg_batchformer.storage.safe_read import ARCHIVE, IMAGE, TEXT, open_regular

_COLUMNS = ("image", "domain", "label")
_ROWS = 256  # maximal number of rows in memory
_SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png"}
Namer = Callable[[Any], str]


def write_images(files: Iterable[Path], folder: Path, facts: DatasetFacts, source: Source) -> None:
    """Write the images of parquet files to environment/class/image.

    An image keeps its file name if the table has one; otherwise its name is its row number.

    Raises InputError if the table lacks a column, or has a domain that is unknown for the dataset.

    """
    require_pyarrow()
    with writing(folder):
        images = chain.from_iterable(map(_images, sorted(files)))
        for row, (domain, label, content, own_name) in enumerate(images):
            environment = environment_named(domain, facts, source)
            if environment is None:
                raise InputError(f"{facts.name} has no domain {domain!r}; its domains are {', '.join(facts.names)}")
            place = folder / environment / _component(label)
            place.mkdir(parents=True, exist_ok=True)
            name = own_name or f"{row:06}{_suffix(content)}"
            target = place / name
            if target.exists():
                target = place / f"{row:06}_{name}"
            target.write_bytes(content)


def _images(path: Path) -> Iterator[tuple[str, str, bytes, str]]:
    """Yield (domain, label, content, file name or '') for every row; raise InputError if the file is damaged."""
    import pyarrow

    room, most = allowance(path), most_entries(path)
    try:
        for number, (domain, label, image) in enumerate(_rows(path)):
            content, name = bytes(image["bytes"]), Path(image.get("path") or "").name
            name = name if is_image(name) and name.isprintable() else ""
            room -= len(content)
            if room < 0 or number >= most:
                raise InputError(f"{path} unpacks to far too much for a table of images of its size, and is not read")
            if not (name or _suffix(content)):
                raise ValueError(f"row {number} holds no JPEG or PNG")
            yield domain, label, content, name
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, *MALFORMED) as error:
        raise Damaged(f"{path} cannot be read as images with domains and labels ({error}); download it again") from None


def _rows(path: Path) -> Iterator[tuple[str, str, Any]]:
    """Yield (domain name, label name, image) for every row."""
    from pyarrow.parquet import ParquetFile

    limits = {"thrift_string_size_limit": TEXT, "thrift_container_size_limit": TEXT}
    with open_regular(path, ARCHIVE) as stream, ParquetFile(stream, **limits) as table:
        missing = [name for name in _COLUMNS if name not in table.schema_arrow.names]
        if missing:
            raise InputError(
                f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(table.schema_arrow.names)}"
            )
        domain_name, label_name = (_namer(table.schema_arrow.metadata, column) for column in _COLUMNS[1:])
        with tqdm(total=table.metadata.num_rows, desc=path.name, disable=None, leave=False) as bar:
            for batch in table.iter_batches(_rows_at_once(stream, table), columns=list(_COLUMNS)):
                columns = batch.to_pydict()
                rows = zip(*(columns[name] for name in _COLUMNS), strict=True)
                yield from ((domain_name(domain), label_name(label), image) for image, domain, label in rows)
                bar.update(len(batch))


def _rows_at_once(stream: IO[bytes], table: Any) -> int:
    """Return how many rows fit into memory if each has the size of the largest page; raise ValueError for none."""
    place = stream.tell()
    largest = max(page_sizes(stream, table.metadata, _COLUMNS), default=0)
    stream.seek(place)
    if largest > IMAGE:
        raise ValueError(f"one of its pages unpacks to {amount(largest)}, too much for images")
    return max(1, min(_ROWS, IMAGE // max(largest, 1)))


def _namer(metadata: Mapping[bytes, bytes] | None, column: str) -> Namer:
    """Return a function from column values to names; for integer labels, the names are in the schema."""
    features = json.loads((metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names = features.get(column, {}).get("names")
    return (lambda value: str(names[value])) if names else str


def _suffix(content: bytes) -> str:
    """Return the file extension for image content; '' if it is not an image."""
    return next((suffix for mark, suffix in _SUFFIXES.items() if content.startswith(mark)), "")


def _component(label: str) -> str:
    """Return a label unchanged; raise InputError if it is not a valid folder name."""
    if label in ("", ".", "..") or label != Path(label).name or "\0" in label:
        raise InputError(f"label {label!r} is not a valid folder name; this parquet file is not a supported dataset")
    return label

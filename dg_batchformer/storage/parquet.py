"""Parquet tables with a note in their metadata, read with a memory limit; pyarrow is imported when needed."""

import base64
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dg_batchformer.errors import MALFORMED, InputError, as_sentence
from dg_batchformer.storage.parquet_pages import page_sizes
from dg_batchformer.storage.safe_read import TABLE, TEXT, Unreadable, open_regular

if TYPE_CHECKING:
    import pyarrow

_NOTE = b"dg_batchformer"
_MOST_CELLS = 2**25  # a column of equal values takes a few bytes, however many rows it has
_LIMITS = {"thrift_string_size_limit": TEXT, "thrift_container_size_limit": TEXT}


class NoPyarrow(InputError):
    """pyarrow is not installed."""


def require_pyarrow() -> None:
    """Raise NoPyarrow if pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise NoPyarrow("parquet files need pyarrow, which is not installed: pip install pyarrow") from None


def write_parquet(target: Any, table: "pyarrow.Table", note: Mapping[str, Any]) -> None:
    """Write a table and a note, a JSON object, to an open binary file."""
    from pyarrow.parquet import ParquetWriter

    text = base64.b64encode(zlib.compress(json.dumps(note).encode(), 9))
    with ParquetWriter(target, table.schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_NOTE: text})


def read_note(path: Path) -> dict[str, Any]:
    """Return the note of a Parquet file; raise InputError if it has none or is damaged."""
    with _opened(path) as (_, file):
        return _note(file)


def read_parquet(path: Path, texts: Sequence[str]) -> "tuple[pyarrow.Table, dict[str, Any]]":
    """Return the table and the note of a Parquet file; raise InputError if it is damaged or unpacks to too many bytes.

    Args:
        texts: columns to read with dictionary encoding, so that repeated texts are in memory once.

    """
    with _opened(path, read_dictionary=list(texts)) as (stream, file):
        _refuse_large(stream, file)
        return file.read(use_threads=False), _note(file)


@contextmanager
def _opened(path: Path, **options: Any) -> Iterator[tuple[Any, Any]]:
    require_pyarrow()
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with open_regular(path, TABLE) as stream, ParquetFile(stream, **options, **_LIMITS) as file:
            yield stream, file
    except Unreadable:
        raise
    except (pyarrow.ArrowException, OSError, zlib.error, *MALFORMED) as error:
        raise InputError(f"{path} cannot be read as packed records: {as_sentence(error)}") from None


def _note(file: Any) -> dict[str, Any]:
    metadata = file.metadata.metadata or {}
    if _NOTE not in metadata:
        raise ValueError("dg_batchformer did not write it")
    unpacking = zlib.decompressobj()
    content = unpacking.decompress(base64.b64decode(metadata[_NOTE]), TABLE)
    if unpacking.unconsumed_tail:
        raise ValueError(f"its note has more than {TABLE:,} bytes")
    note = json.loads(content)
    if not isinstance(note, dict):
        raise ValueError("its note is not an object")
    return note


def _refuse_large(stream: Any, file: Any) -> None:
    """Raise ValueError if a table would take more memory than packed records do."""
    names = tuple(file.schema_arrow.names)
    rows = sum(file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups))
    if max(rows, file.metadata.num_rows) * len(names) > _MOST_CELLS:
        raise ValueError(f"it has {rows:,} rows, more than the records of a sweep")
    place = stream.tell()
    unpacked = sum(page_sizes(stream, file.metadata, names))
    stream.seek(place)
    if unpacked > TABLE:
        raise ValueError(f"it unpacks to {unpacked:,} bytes, more than the records of a sweep")

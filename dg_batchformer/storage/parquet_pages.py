"""Unpacked sizes of the pages of an untrusted parquet file, from page headers, as its footer may be forged.

Headers are structs in Thrift's compact protocol; only their integer fields are decoded.
"""

from collections.abc import Iterator
from typing import IO, Any

_BINARY, _LIST, _SET, _MAP, _STRUCT = 8, 9, 10, 11, 12
_WIDTHS = {1: 0, 2: 0, 3: 1, 7: 8}  # bytes of true, false, byte, double
_VARINTS = (4, 5, 6)
_UNPACKED, _PACKED = 2, 3  # fields of a page's header
_HEADER = 2**20
_DEEPEST = 8


def page_sizes(file: IO[bytes], metadata: Any, columns: tuple[str, ...]) -> Iterator[int]:
    """Yield the unpacked size in bytes of every page of some columns; raise ValueError or LookupError for damage.

    Args:
        file: the parquet file.
        metadata: of the file, as pyarrow reads it.
        columns: names at the top level of the schema.

    """
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema.partition(".")[0] in columns:
                begin = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
                yield from _sizes_in_chunk(file, begin, begin + chunk.total_compressed_size)


def _sizes_in_chunk(file: IO[bytes], offset: int, end: int) -> Iterator[int]:
    while offset < end:
        file.seek(offset)
        header = _Compact(file.read(min(_HEADER, end - offset)))
        sizes = header.integers()
        if sizes.get(_PACKED, -1) < 0:
            raise ValueError("a page has no size")
        yield sizes[_UNPACKED]
        offset += header.place + sizes[_PACKED]


class _Compact:
    """Decoder for bytes in the compact protocol, with the current position."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def integers(self, depth: int = 0) -> dict[int, int]:
        """Decode a struct; return its integer fields by id."""
        if depth > _DEEPEST:
            raise ValueError("a header is nested too deep")
        found: dict[int, int] = {}
        field = 0
        while head := self._byte():
            kind = head & 15
            field = field + (head >> 4) if head >> 4 else self._signed()
            if kind in _VARINTS:
                found[field] = self._signed()
            else:
                self._skip(kind, depth)
        return found

    def _skip(self, kind: int, depth: int) -> None:
        if kind in _VARINTS:
            self._unsigned()
        elif kind == _BINARY:
            length = self._unsigned()  # moves the place too
            self.place += length
        elif kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._unsigned()
            for _ in range(min(count, len(self.content))):
                self._skip(head & 15, depth + 1)
        elif kind == _STRUCT:
            self.integers(depth + 1)
        else:
            self.place += _WIDTHS[kind]

    def _byte(self) -> int:
        self.place += 1
        return self.content[self.place - 1]

    def _unsigned(self) -> int:
        value = shift = 0
        while shift < 64:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
        raise ValueError("a number has no end")

    def _signed(self) -> int:
        value = self._unsigned()
        return value >> 1 ^ -(value & 1)

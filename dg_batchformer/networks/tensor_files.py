"""Load ``torch.save`` files safely: without running code in them, or unpacking decompression bombs."""

import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from dg_batchformer.storage.safe_read import TEXT, WEIGHTS, open_regular
from dg_batchformer.storage.zip_files import open_zip


class Broken(ValueError):
    """A tensor file that is truncated or malformed."""


def read_tensors(file: Path, device: torch.device | str = "cpu") -> Any:
    """Load tensors, and containers of plain types, from a file.

    Raises OSError if the file cannot be opened, and Broken if it is malformed.
    """
    with open_regular(file, WEIGHTS) as stream:
        try:
            _refuse_bomb(stream)
            return torch.load(stream, map_location=device, weights_only=True)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # torch.load may raise anything on malformed bytes, even OSError
            raise Broken(" ".join(str(error).split()) or type(error).__name__) from error


def _refuse_bomb(stream: IO[bytes]) -> None:
    """Raise ValueError for compressed or overlapping entries, which ``torch.save`` never writes."""
    if zipfile.is_zipfile(stream):
        size = stream.seek(0, 2)
        if sum(entry.file_size for entry in open_zip(stream, TEXT).infolist()) > size:
            raise ValueError("its entries are compressed or overlap")
    stream.seek(0)

"""Files of tensors, as ``torch.save`` writes them: read without running code, or unpacking more than they hold."""

import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from dg_batchformer.storage.safe_read import TEXT, WEIGHTS, open_regular
from dg_batchformer.storage.zip_files import open_zip


class Broken(ValueError):
    """A file that holds no tensors, or only a part of them."""


def read_tensors(file: Path, device: torch.device | str = "cpu") -> Any:
    """Return what a file holds: tensors, and containers of plain types.

    Raises OSError where the file cannot be opened, and Broken where nothing can be made of its bytes.
    """
    with open_regular(file, WEIGHTS) as stream:
        try:
            _refuse_bomb(stream)
            return torch.load(stream, map_location=device, weights_only=True)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # torch.load raises whatever the bytes lead it to, OSError too
            raise Broken(" ".join(str(error).split()) or type(error).__name__) from error


def _refuse_bomb(stream: IO[bytes]) -> None:
    """Raise ValueError for entries that torch.save does not write: it compresses nothing, and nothing overlaps."""
    if zipfile.is_zipfile(stream):
        size = stream.seek(0, 2)
        if sum(entry.file_size for entry in open_zip(stream, TEXT).infolist()) > size:
            raise ValueError("its entries are compressed, or lie in one another")
    stream.seek(0)

"""Datasets as HuggingFace keeps them: parquet files with the columns image, domain and label."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dg_batchformer.catalog import DatasetFacts
from dg_batchformer.datasets.folders import is_image
from dg_batchformer.datasets.prepare.archives import Damaged
from dg_batchformer.datasets.prepare.disk import writing
from dg_batchformer.datasets.prepare.layouts import environment_named
from dg_batchformer.datasets.prepare.sources import Source
from dg_batchformer.errors import MALFORMED, InputError

_COLUMNS = ("image", "domain", "label")
_ROWS = 256  # of which the images are in memory
_SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png"}
Namer = Callable[[Any], str]


class NoPyarrow(InputError):
    """Parquet files cannot be read here."""


def require_pyarrow() -> None:
    """Raise NoPyarrow where parquet files cannot be read."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise NoPyarrow("parquet files are read with pyarrow, which is not installed: pip install pyarrow") from None


def write_images(files: Iterable[Path], folder: Path, facts: DatasetFacts, source: Source) -> None:
    """Write the images of parquet files into environment/class/image.

    An image keeps its file name where the table tells it, else it is named by its row.

    Raises InputError where the table has other columns, or domains that the dataset has not.

    """
    require_pyarrow()
    with writing(folder):
        for row, (domain, label, image) in enumerate(_rows(sorted(files))):
            environment = environment_named(domain, facts, source)
            if environment is None:
                raise InputError(f"{facts.name} has no domain {domain!r}; its domains are {', '.join(facts.names)}")
            content, name = _image(image, row)
            place = folder / environment / _component(label)
            place.mkdir(parents=True, exist_ok=True)
            target = place / name
            if target.exists():
                target = place / f"{row:06}_{name}"
            target.write_bytes(content)


def _rows(files: Iterable[Path]) -> Iterator[tuple[str, str, Any]]:
    """Yield (domain, label, image) of all rows, the first two as names."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    for path in files:
        try:
            with ParquetFile(path) as table:
                missing = [name for name in _COLUMNS if name not in table.schema_arrow.names]
                if missing:
                    raise InputError(
                        f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(table.schema_arrow.names)}"
                    )
                domain_name, label_name = (_namer(table.schema_arrow.metadata, column) for column in _COLUMNS[1:])
                with tqdm(total=table.metadata.num_rows, desc=path.name, disable=None, leave=False) as bar:
                    for batch in table.iter_batches(_ROWS, columns=list(_COLUMNS)):
                        columns = batch.to_pydict()
                        rows = zip(*(columns[name] for name in _COLUMNS), strict=True)
                        yield from ((domain_name(domain), label_name(label), image) for image, domain, label in rows)
                        bar.update(len(batch))
        except InputError:
            raise
        except (pyarrow.ArrowException, OSError, *MALFORMED) as error:
            raise Damaged(f"{path} cannot be read as images with domains and labels ({error}); get it again") from None


def _namer(metadata: Mapping[bytes, bytes] | None, column: str) -> Namer:
    """Return what turns a value of a column into a name: labels are numbers, of which the schema holds the names."""
    features = json.loads((metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names = features.get(column, {}).get("names")
    return (lambda value: names[value]) if names else str


def _image(image: Any, row: int) -> tuple[bytes, str]:
    """Return content and file name of an image."""
    content = image["bytes"]
    name = Path(image.get("path") or "").name
    if is_image(name) and name.isprintable():
        return content, name
    suffix = next((suffix for mark, suffix in _SUFFIXES.items() if content.startswith(mark)), "")
    if not suffix:
        raise ValueError(f"row {row} holds no JPEG or PNG")
    return content, f"{row:06}{suffix}"


def _component(label: str) -> str:
    """Return a label that can be a folder's name; raise InputError where it cannot."""
    if label in ("", ".", "..") or label != Path(label).name or "\0" in label:
        raise InputError(f"label {label!r} cannot be the name of a folder; this parquet file is none of a dataset here")
    return label

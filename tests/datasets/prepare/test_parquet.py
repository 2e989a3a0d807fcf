import json
import sys

import pytest

from dg_batchformer.datasets.prepare import archives, parquet
from dg_batchformer.datasets.prepare.archives import Damaged
from dg_batchformer.datasets.prepare.build import prepare
from dg_batchformer.errors import InputError

CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
JPEG, PNG = b"\xff\xd8\xff jpeg", b"\x89PNG png"


def _rows(image=lambda row: {"bytes": JPEG, "path": None}):
    domains = ("art_painting", "cartoon", "photo", "sketch")
    pairs = [(domain, label) for domain in domains for label in range(7)]
    return [{"image": image(row), "domain": domain, "label": label} for row, (domain, label) in enumerate(pairs)]


def _write(path, rows, names=CLASSES):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    features = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
    table = arrow.Table.from_pylist(rows)
    write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), path)
    return path


def _prepare(tmp_path, *given):
    return prepare("PACS", tmp_path / "data", given, note=pytest.fail)


def test_rows_become_files_in_folders_of_domain_and_class(tmp_path):
    table = _write(tmp_path / "0.parquet", _rows())

    dataset = _prepare(tmp_path, table)

    assert dataset.classes == list(CLASSES)
    assert [file.relative_to(tmp_path / "data").as_posix() for file in dataset.files[:2]] == [
        "PACS/art_painting/dog/000000.jpg",
        "PACS/art_painting/elephant/000001.jpg",
    ]
    assert dataset.files[0].read_bytes() == JPEG


def test_file_names_in_the_table_are_kept(tmp_path):
    rows = _rows(lambda row: {"bytes": PNG, "path": "folder/pic_1.png"})
    first, second = _write(tmp_path / "0.parquet", rows), _write(tmp_path / "1.parquet", rows)

    dataset = _prepare(tmp_path, tmp_path)

    assert first.exists()
    assert second.exists()
    assert [file.name for file in dataset.files[:2]] == ["000028_pic_1.png", "pic_1.png"]


@pytest.mark.parametrize("path", ["../../evil", "/etc/passwd", "a\0.jpg"])
def test_a_path_in_a_table_is_not_followed(tmp_path, path):
    dataset = _prepare(tmp_path, _write(tmp_path / "0.parquet", _rows(lambda row: {"bytes": PNG, "path": path})))

    assert dataset.files[0].name == "000000.png"


@pytest.mark.parametrize("label", ["..", "a/b", ""])
def test_a_label_that_is_not_a_folder_name_is_refused(tmp_path, label):
    table = _write(tmp_path / "0.parquet", _rows(), [label] * 7)

    with pytest.raises(InputError, match=rf"label '{label}' is not a valid folder name"):
        _prepare(tmp_path, table)
    assert not (tmp_path / "data" / "PACS").exists()


def test_another_kind_of_table_is_reported_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"lacks the columns image, domain; it has label, text"):
        _prepare(tmp_path, _write(tmp_path / "0.parquet", [{"label": 1, "text": "a"}]))
    with pytest.raises(InputError, match=r"PACS has no domain 'Clipart'; its domains are art_painting, cartoon"):
        _prepare(tmp_path, _write(tmp_path / "0.parquet", [{**_rows()[0], "domain": "Clipart"}]))


@pytest.mark.parametrize("break_it", [lambda content: content[:200], lambda content: b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_broken_table_is_reported_in_one_sentence(tmp_path, break_it):
    table = _write(tmp_path / "0.parquet", _rows())
    table.write_bytes(break_it(table.read_bytes()))

    with pytest.raises(Damaged, match=r"0.parquet cannot be read as images with domains and labels"):
        _prepare(tmp_path, table)


@pytest.mark.parametrize("image", [None, {"bytes": None, "path": "1.png"}, {"bytes": b"text", "path": None}])
def test_a_row_without_an_image_is_reported_in_one_sentence(tmp_path, image):
    table = _write(tmp_path / "0.parquet", [*_rows(), {**_rows()[0], "image": image}])

    with pytest.raises(Damaged, match=r"0.parquet cannot be read as images"):
        _prepare(tmp_path, table)


def _write_repeated(path, content, rows):
    """Write a table whose rows share one image, which is stored once."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    stored = arrow.DictionaryArray.from_arrays(arrow.array([0] * rows, arrow.int32()), arrow.array([content]))
    image = arrow.StructArray.from_arrays([stored, arrow.array(["1.png"] * rows)], ["bytes", "path"])
    columns = {"image": image, "domain": ["photo"] * rows, "label": ["dog"] * rows}
    write_table(arrow.table(columns), path, compression="zstd", store_schema=False)
    return path


def test_an_image_that_a_table_repeats_too_often_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_ALWAYS_ALLOWED", 1 << 20)
    table = _write_repeated(tmp_path / "0.parquet", PNG + bytes(200_000), 20)

    with pytest.raises(InputError, match=r"unpacks to far too much for a table of images"):
        _prepare(tmp_path, table)


def test_a_page_that_unpacks_to_too_many_bytes_is_refused_whatever_the_footer_says(tmp_path, monkeypatch):
    table = _write_repeated(tmp_path / "0.parquet", PNG + bytes(200_000), 2)
    chunk = pytest.importorskip("pyarrow.parquet").ParquetFile(table).metadata.row_group(0).column(0)
    told, untrue = _varint(chunk.total_uncompressed_size), b"\x82\x80\x00"  # as long
    start, footer = table.read_bytes()[:-1000], table.read_bytes()[-1000:]
    assert told in footer
    table.write_bytes(start + footer.replace(told, untrue))
    monkeypatch.setattr(parquet, "IMAGE", 100_000)

    with pytest.raises(Damaged, match=r"one of its pages unpacks to 195 KiB, too much for images"):
        _prepare(tmp_path, table)


def _varint(number):
    """Encode a positive number in Thrift's compact protocol."""
    number, parts = 2 * number, []
    while number >= 128:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def test_missing_pyarrow_is_reported_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "0.parquet").write_bytes(b"PAR1")

    with pytest.raises(InputError, match=r"need pyarrow, which is not installed: pip install pyarrow"):
        _prepare(tmp_path, tmp_path / "0.parquet")

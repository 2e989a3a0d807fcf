import io
import zipfile

import pytest

from dg_batchformer.storage.zip_files import open_zip


def _zip(method=zipfile.ZIP_DEFLATED, entries=1):
    with zipfile.ZipFile(stream := io.BytesIO(), "w", method) as content:
        for number in range(entries):
            content.writestr(f"{number}", b"content")
    return stream


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_that_unpacks_to_its_declared_size_is_read(method):
    with open_zip(_zip(method), 1000) as content:
        assert content.read("0") == b"content"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_may_unpack_to_more_than_declared_is_refused(method):
    with pytest.raises(zipfile.BadZipFile, match="'0' is compressed by a method other than deflate"):
        open_zip(_zip(method), 1000)


def test_a_directory_of_too_many_entries_is_refused_before_it_is_read():
    with pytest.raises(zipfile.BadZipFile, match="its directory has more than 131,072 bytes"):
        open_zip(_zip(entries=3000), 1000)

import io
import lzma
import tarfile
import zipfile

import pytest

from dg_batchformer.datasets.prepare import archives
from dg_batchformer.datasets.prepare.archives import Damaged, extract, first_file, is_archive
from dg_batchformer.errors import InputError

GOOD = {"PACS/photo/dog/1.jpg": b"one", "PACS/photo/dog/2.jpg": b"two", "__MACOSX/._1.jpg": b"junk", "._PACS": b"junk"}


def _zip(path, *entries):
    """Write entries: (name, content) or (ZipInfo, content)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def _tar(path, *entries, mode="w:gz"):
    """Write entries: (name or TarInfo, content)."""
    with tarfile.open(path, mode) as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _tar_entry(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def _zip_entry(name, mode):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def _out(folder):
    folder.mkdir()
    return folder


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_files_are_extracted_from_every_format_without_junk(tmp_path, form):
    path = tmp_path / f"PACS.{form}"
    if form == "zip":
        _zip(path, *GOOD.items())
    else:
        _tar(path, *GOOD.items(), mode="w:" + form[4:])

    extract(path, _out(tmp_path / "out"))

    found = {file.relative_to(tmp_path / "out").as_posix(): file.read_bytes() for file in tmp_path.glob("out/**/*.*")}
    assert found == {"PACS/photo/dog/1.jpg": b"one", "PACS/photo/dog/2.jpg": b"two"}
    assert is_archive(path)
    assert first_file(path) == "PACS/photo/dog/1.jpg"


@pytest.mark.parametrize("write", [_zip, _tar])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil.jpg", "a path outside the archive"),
        ("PACS/../../evil.jpg", "a path outside the archive"),
        ("..\\evil.jpg", "a path outside the archive"),
        ("/evil.jpg", "an absolute path"),
        ("\\evil.jpg", "an absolute path"),
        ("C:\\evil.jpg", "an absolute path"),
        ("PACS/e\nvil.jpg", "a name with control characters"),
    ],
)
def test_a_name_outside_the_target_folder_is_refused(tmp_path, write, name, reason):
    path = write(tmp_path / "evil", ("good.jpg", b"good"), (name, b"evil"))

    with pytest.raises(InputError, match=rf"evil contains '.*', {reason}; such archives are not extracted"):
        extract(path, _out(tmp_path / "out"))
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["evil", "good.jpg", "out"]


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device or the like"),
        (tarfile.BLKTYPE, "a device or the like"),
        (tarfile.FIFOTYPE, "a device or the like"),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind, named):
    path = _tar(tmp_path / "evil.tar", (_tar_entry("dog.jpg", kind, "/etc/passwd"), b""), mode="w")

    with pytest.raises(InputError, match=rf"contains 'dog.jpg', {named}; such archives are not extracted"):
        extract(path, _out(tmp_path / "out"))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(("mode", "named"), [(0o120777, "a link"), (0o020666, "a device")])
def test_links_and_devices_in_a_zip_are_refused(tmp_path, mode, named):
    path = _zip(tmp_path / "evil.zip", (_zip_entry("dog.jpg", mode), b"/etc/passwd"))

    with pytest.raises(InputError, match=rf"contains 'dog.jpg', {named}; such archives are not extracted"):
        extract(path, _out(tmp_path / "out"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("write", [_zip, _tar])
@pytest.mark.parametrize("second", ["a/1.jpg", "./a//1.jpg", "a/1.jpg/2.jpg"])
def test_a_name_that_occurs_twice_is_refused(tmp_path, write, second):
    path = write(tmp_path / "evil", ("a/1.jpg", b"one"), (second, b"two"))

    with pytest.raises(InputError, match=rf"evil contains '{second}' twice; such archives are not extracted"):
        extract(path, _out(tmp_path / "out"))


@pytest.mark.parametrize("write", [_zip, _tar])
@pytest.mark.parametrize("wanted", [True, False])
def test_an_archive_bomb_is_refused_before_it_fills_the_disk(tmp_path, monkeypatch, write, wanted):
    monkeypatch.setattr(archives, "_ALWAYS_ALLOWED", 1 << 20)
    path = write(tmp_path / "bomb", *((f"{number}.jpg", bytes(500_000)) for number in range(20)))

    with pytest.raises(InputError, match=r"bomb contains more than 1 MiB, far too much for an archive of images"):
        extract(path, _out(tmp_path / "out"), lambda name: wanted)
    assert sum(file.stat().st_size for file in (tmp_path / "out").iterdir()) <= 1 << 20


def test_sparse_files_are_refused_since_they_grow_out_of_nothing(tmp_path):
    info = _tar_entry("dog.jpg", tarfile.REGTYPE)
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.size": str(1 << 40), "GNU.sparse.map": "0,1"}
    path = _tar(tmp_path / "bomb.tar", (info, b"1"), mode="w")

    with pytest.raises(InputError, match=r"contains 'dog.jpg', a device or the like"):
        extract(path, _out(tmp_path / "out"))


def test_too_many_entries_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_MOST_MEMBERS", 3)
    path = _zip(tmp_path / "many.zip", *((f"{number}.jpg", b"") for number in range(4)))

    with pytest.raises(InputError, match=r"contains more than 3 entries"):
        extract(path, _out(tmp_path / "out"))


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_name_or_attributes_of_gigabytes_are_refused_before_they_are_read(tmp_path, kind):
    info = _tar_entry("long", kind)
    info.size = 1 << 29
    with (path := tmp_path / "evil.tar").open("wb") as file:
        file.write(_tar(tmp_path / "good.tar", ("a.jpg", b"a"), mode="w").read_bytes()[:1024])
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(1 << 30)

    with pytest.raises(InputError, match=r"contains an entry with more than 1 MiB of name and attributes"):
        extract(path, _out(tmp_path / "out"))


def test_endlessly_nested_attributes_are_damage(tmp_path):
    info = _tar_entry("again", tarfile.GNUTYPE_LONGNAME)
    info.size = 1
    again = info.tobuf(tarfile.GNU_FORMAT) + bytes(512)
    (path := tmp_path / "evil.tar").write_bytes(again * 900)

    with pytest.raises(InputError, match=r"evil.tar cannot be read"):
        extract(path, _out(tmp_path / "out"))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zips_that_may_unpack_to_more_than_declared_are_not_read(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w", method) as archive:
        archive.writestr("1.jpg", bytes(100))

    with pytest.raises(Damaged, match=r"'1.jpg' is compressed by a method other than deflate"):
        extract(tmp_path / "evil.zip", _out(tmp_path / "out"))


def test_an_xz_that_asks_for_much_memory_is_not_read(tmp_path, monkeypatch):
    path = _tar(tmp_path / "large.tar.xz", ("1.jpg", b"one"), mode="w:xz")
    monkeypatch.setattr(archives, "_XZ_MEMORY", 1 << 20)

    with pytest.raises(Damaged, match=r"Memory usage limit"):
        extract(path, _out(tmp_path / "out"))


def test_an_xz_of_several_streams_is_read_to_its_end(tmp_path):
    plain = _tar(tmp_path / "plain.tar", *((f"{n}.jpg", bytes([n]) * 1000) for n in range(100)), mode="w").read_bytes()
    streams = [lzma.compress(plain[begin : begin + 1000]) for begin in range(0, len(plain), 1000)]
    (path := tmp_path / "streams.tar.xz").write_bytes(bytes(8).join(streams))

    extract(path, _out(tmp_path / "out"))

    assert (tmp_path / "out" / "99.jpg").read_bytes() == bytes([99]) * 1000


@pytest.mark.parametrize("write", [_zip, _tar])
def test_more_entries_than_the_size_allows_are_refused(tmp_path, monkeypatch, write):
    monkeypatch.setattr(archives, "_FEW_MEMBERS", 50)
    monkeypatch.setattr(archives, "_BYTES_PER_MEMBER", 1000)
    path = write(tmp_path / "many", *((f"{number}.jpg", b"") for number in range(51)))

    with pytest.raises(InputError, match=r"contains more than 50 entries"):
        extract(path, _out(tmp_path / "out"))


@pytest.mark.parametrize("write", [_zip, _tar])
def test_endlessly_nested_folders_are_refused(tmp_path, write):
    with pytest.raises(InputError, match=r"a path of more than 64 folders"):
        extract(write(tmp_path / "deep", ("a/" * 500 + "1.jpg", b"")), _out(tmp_path / "out"))


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("left", [0.1, 0.5, 0.9])
def test_a_truncated_archive_is_reported_as_damaged(tmp_path, form, left):
    path = tmp_path / "half"
    content = [(f"{number}.jpg", bytes(range(256)) * 8) for number in range(50)]
    _zip(path, *content) if form == "zip" else _tar(path, *content, mode="w:" + form[4:])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * left)])

    assert is_archive(path)
    with pytest.raises(Damaged, match=r"half cannot be read \(.+\); it is damaged or encrypted: download it again"):
        extract(path, _out(tmp_path / "out"))


def test_flipped_bytes_are_detected(tmp_path):
    path = _zip(tmp_path / "flipped.zip", ("1.jpg", b"content"))
    content = path.read_bytes()
    path.write_bytes(content[:40] + bytes([content[40] ^ 255]) + content[41:])

    with pytest.raises(Damaged, match=r"cannot be read"):
        extract(path, _out(tmp_path / "out"))


@pytest.mark.parametrize("write", [_zip, _tar])
@pytest.mark.parametrize("count", [300, pytest.param(100_000, marks=pytest.mark.exhaustive)])
def test_many_tiny_files_are_extracted(tmp_path, write, count):
    path = write(tmp_path / "many", *((f"{number // 100}/{number}.png", b"%d" % number) for number in range(count)))

    extract(path, _out(tmp_path / "out"))

    assert sum(1 for file in (tmp_path / "out").rglob("*.png")) == count

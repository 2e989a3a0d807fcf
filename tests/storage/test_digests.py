import hashlib
import json

import pytest

from dg_batchformer.errors import InputError
from dg_batchformer.storage.digests import damaged, is_intact, mark_done, refuse_damaged
from dg_batchformer.storage.folders import RunFolder, State


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path)
    for file in (folder.spec_file, folder.records_file, folder.model_file):
        file.write_bytes(file.name.encode())
    mark_done(folder, {"outcome": "diverged"})
    return folder


def test_a_finished_run_keeps_digest_and_size_of_every_final_file(folder):
    done = json.loads(folder.done_file.read_text())

    assert set(done["sha256"]) == {"spec.json", "results.jsonl", "model.pt"}
    assert done["bytes"] == {"spec.json": 9, "results.jsonl": 13, "model.pt": 8}
    assert folder.state() is State.DIVERGED
    assert damaged(folder) == []


@pytest.mark.parametrize("damage", ["flipped", "cut", "a directory"])
@pytest.mark.parametrize("name", ["results.jsonl", "model.pt"])
def test_damage_to_a_file_is_named(folder, name, damage):
    file = folder.path / name
    content = file.read_bytes()
    file.unlink()
    if damage == "a directory":
        file.mkdir()
    else:
        file.write_bytes(content[:-1] if damage == "cut" else bytes([content[0] ^ 1]) + content[1:])

    assert damaged(folder) == damaged(folder, [name]) == [name]
    assert damaged(folder, ["spec.json"]) == []
    with pytest.raises(InputError, match=f"{name} is damaged: it differs from what its run wrote"):
        refuse_damaged(folder, file)


def test_a_file_of_another_size_is_damage_and_not_read(folder, monkeypatch):
    with folder.model_file.open("wb") as file:
        file.truncate(2**36)  # minutes to read
    monkeypatch.setattr(hashlib, "file_digest", None)

    assert damaged(folder, ["model.pt"]) == ["model.pt"]


@pytest.mark.parametrize("sizes", [None, {}, {"model.pt": None}])
def test_a_run_of_a_version_without_sizes_is_checked_by_its_digests(folder, sizes):
    done = json.loads(folder.done_file.read_text())
    folder.done_file.write_text(json.dumps({"sha256": done["sha256"], **({} if sizes is None else {"bytes": sizes})}))

    assert damaged(folder) == []
    folder.model_file.write_bytes(b"lo.ledom")
    assert damaged(folder) == ["model.pt"]


def test_missing_records_are_damage_but_models_may_be_left_out_of_a_copy(folder):
    folder.model_file.unlink()
    assert damaged(folder) == []

    folder.records_file.unlink()
    assert damaged(folder) == ["results.jsonl"]


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"sha256": 3}', b'{"sha256": {"a": "b"}, "bytes": 3}', b"\xff\xfe", b'{"sha256"' * 9]
)
def test_a_damaged_done_is_damage(folder, content):
    folder.done_file.write_bytes(content)

    assert damaged(folder) == ["done"]
    assert is_intact("results.jsonl", b"", content) is False


@pytest.mark.parametrize("content", [b"", b"done", b'{"outcome": "done", "seconds": 1.0}'])
def test_a_run_of_an_older_version_or_of_domainbed_is_read_without_digests(folder, content):
    folder.done_file.write_bytes(content)

    assert damaged(folder) == []
    assert is_intact("results.jsonl", b"", content) is None


def test_a_name_outside_the_files_of_a_run_is_damage_and_not_opened(folder):
    folder.done_file.write_text(json.dumps({"sha256": {"../../etc/passwd": "0", "/dev/zero": "0"}}))

    assert damaged(folder) == ["../../etc/passwd", "/dev/zero"]

import os
import zipfile

import pytest
import torch

from dg_batchformer.networks.tensor_files import Broken, read_tensors


def test_tensors_are_read_as_they_were_saved(tmp_path):
    torch.save({"weight": torch.ones(3), "steps": [1, 2]}, tmp_path / "new.pt")
    torch.save({"weight": torch.ones(3)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)

    assert read_tensors(tmp_path / "new.pt")["steps"] == [1, 2]
    assert read_tensors(tmp_path / "old.pt")["weight"].tolist() == [1, 1, 1]


def test_a_file_that_unpacks_to_more_than_its_size_is_refused(tmp_path):
    torch.save(torch.zeros(1_000_000), tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "bomb.pt", "w") as bomb:
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry), zipfile.ZIP_DEFLATED)

    with pytest.raises(Broken, match="compressed"):
        read_tensors(tmp_path / "bomb.pt")


class Code:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_code_in_a_file_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Code()}, "evil.pt")

    with pytest.raises(Broken):
        read_tensors(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()

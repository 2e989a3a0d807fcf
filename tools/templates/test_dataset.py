"""MyDataset: it agrees with its facts, on made-up images in the folders of the real ones."""

from pathlib import Path

from PIL import Image

from dg_batchformer.testing import assert_contracts


def test_its_folders_are_read_as_its_facts_say(tmp_path: Path):
    for environment in ("fog", "night", "rain"):
        for label in ("car", "tram"):
            folder = tmp_path / "my_dataset" / environment / label
            folder.mkdir(parents=True)
            for index in range(3):
                Image.new("RGB", (32, 32), (index, 0, 0)).save(folder / f"{index}.png")

    assert_contracts("my_dataset", data_dir=tmp_path)

"""The contents of a dataset, as a table and as a contact sheet."""

import re
from itertools import pairwise

import pytest
import torch
from PIL import Image

from dg_batchformer.catalog.datasets import dataset_facts
from dg_batchformer.cli.main import main
from dg_batchformer.datasets import contact_sheet
from dg_batchformer.datasets.base import Dataset, TensorEnvironment
from dg_batchformer.datasets.contact_sheet import CELL, draw_contact_sheet


class Planted(Dataset):
    """Images of one color: red encodes the environment, green the class."""

    registered = False

    def __init__(self, num_classes, per_class=4, without=()):
        self.facts = dataset_facts("Shapes")
        self.input_shape, self.notes = (3, 32, 32), []
        self.classes = [f"class {label}" for label in range(num_classes)]
        self.environments = []
        for env, name in enumerate(self.facts.names):
            labels = [label for label in range(num_classes) if (env, label) not in without] * per_class
            colours = torch.tensor([[50 * (env + 1), 255 - label % 256, label // 256] for label in labels])
            images = colours.to(torch.uint8)[:, :, None, None].expand(-1, 3, 32, 32).contiguous()
            self.environments.append(TensorEnvironment(name, images, torch.tensor(labels)))


def _at_cells(dataset):
    """Return the center colors of the samples of every cell, by (environment, class)."""
    sheet = draw_contact_sheet(dataset)
    layout = contact_sheet.plan_layout(dataset)
    colours = {}
    for band, classes in enumerate(layout.bands):
        for column, label in enumerate(classes):
            for env in range(len(dataset)):
                left, top = layout.corner(band, env, column)
                places = [(left + x, top + y) for x in (CELL // 4, 3 * CELL // 4) for y in (CELL // 4, 3 * CELL // 4)]
                colours[env, label] = {sheet.getpixel(place) for place in places}
    return colours


@pytest.mark.parametrize("num_classes", [2, 7, 12, 13, 65])
def test_every_environment_is_a_row_and_every_class_a_column(num_classes):
    colours = _at_cells(Planted(num_classes))

    assert len(colours) == 4 * num_classes
    for (env, label), seen in colours.items():
        assert seen == {(50 * (env + 1), 255 - label, 0)}


def test_more_classes_than_fit_are_sampled_evenly_and_all_cells_lie_on_the_sheet():
    colours = _at_cells(Planted(345, per_class=1))

    labels = sorted({label for _, label in colours})
    steps = {after - before for before, after in pairwise(labels)}
    assert (len(labels), labels[0], labels[-1]) == (72, 0, 344)
    assert steps <= {4, 5}
    for (env, label), seen in colours.items():
        assert seen == {(50 * (env + 1), 255 - label % 256, label // 256)}


def test_a_class_without_images_leaves_a_gap():
    colours = _at_cells(Planted(3, without={(1, 2)}))

    assert colours[1, 2] == {(0xF0, 0xF0, 0xF0)}
    assert colours[1, 1] == {(100, 254, 0)}


def test_names_are_written_beside_rows_and_above_columns():
    dataset = Planted(3)
    sheet, layout = draw_contact_sheet(dataset), contact_sheet.plan_layout(dataset)

    for env in range(4):
        left, top = layout.corner(0, env, 0)
        assert len(sheet.crop((0, top, left - 4, top + CELL)).getcolors()) > 2
    for column in range(3):
        left, top = layout.corner(0, 0, column)
        assert len(sheet.crop((left, top - 20, left + CELL, top - 2)).getcolors()) > 2


def test_info_counts_and_draws_image_folders(image_folder, tmp_path, capsys):
    root = image_folder()
    (root / "PACS" / "photo" / "dog" / "0.png").unlink()
    target = tmp_path / "new" / "sheet.png"

    assert main(["data", "info", "PACS", "--data_dir", str(root), "--output", str(target)]) == 0
    said = capsys.readouterr()

    assert re.search(r"^dog +5 +5 +4 +5 +19$", said.out, re.MULTILINE)
    assert re.search(r"^photo +house 5 +dog 4 +1\.2$", said.out, re.MULTILINE)
    assert "note: PACS has 2 classes here instead of 7" in said.err
    with Image.open(target) as sheet:
        assert f"{sheet.width} x {sheet.height} pixels" in said.out


def test_info_describes_built_in_data(tmp_path, capsys):
    assert main(["data", "info", "Toy"]) == 0
    assert "480 vectors of 8, not images" in capsys.readouterr().out

    assert main(["data", "info", "Toy", "--output", str(tmp_path / "toy.png")]) == 2
    assert "Toy holds vectors, not images: there is nothing to draw" in capsys.readouterr().err

    assert main(["data", "info", "Shapes", "--output", str(tmp_path / "shapes.png")]) == 0
    assert "balanced: 60 of every class in every environment" in capsys.readouterr().out
    assert (tmp_path / "shapes.png").is_file()

    assert main(["data", "info", "Shapes", "--output", str(tmp_path / "shapes.jpg")]) == 2
    assert "give a name that ends in .png" in capsys.readouterr().err


def test_info_draws_what_an_imbalance_leaves_to_train_on(capsys):
    assert main(["data", "info", "Shapes", "--imbalance", "long_tail:12", "--test_envs", "sketch"]) == 0
    said = capsys.readouterr().out

    assert "Shapes, long_tail:12, tested on sketch, trial 0: images to train on" in said
    assert re.search(r"^class +has +photo +painting +cartoon$", said, re.MULTILINE)
    numbers = [int(line.split()[2]) for line in said.splitlines() if "▇" in line]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] // numbers[-1] in (11, 12, 13)
    assert "many: more than 100 images" in said

    assert main(["data", "info", "Shapes", "--imbalance", "longtail:5"]) == 2
    assert "did you mean 'long_tail'" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--test_envs", "sketch"], ["--trial_seed", "0"]])
def test_an_option_of_a_run_without_an_imbalance_is_refused(given, capsys):
    assert main(["data", "info", "Shapes", *given]) == 2
    assert f"{given[0]} has no effect: all images of Shapes are counted; add --imbalance" in capsys.readouterr().err

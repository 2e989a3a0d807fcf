"""``data info``: the contents of a dataset, as a table and as a contact sheet."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dg_batchformer.catalog.custom import find_dataset
from dg_batchformer.cli.common import OK, Verbs, say
from dg_batchformer.errors import InputError
from dg_batchformer.spec.run import RunRequest, RunSpec
from dg_batchformer.storage.folders import atomic_write

if TYPE_CHECKING:
    from dg_batchformer.datasets import Dataset

_OF_RUN = ("imbalance", "test_envs", "trial_seed")  # options that say which run's images are counted


def add_action(actions: Verbs) -> None:
    """Add the action and its options."""
    text = "Show how many images each environment and class of a dataset has; with --output, draw samples."
    action = actions.add_parser(
        "info", help="show the contents of a dataset, and draw a contact sheet", description=text
    )
    action.set_defaults(run=run)
    add = action.add_argument
    add("name", metavar="NAME", help="a dataset, see: list datasets; or the name of your own data")
    add("--data_dir", type=Path, metavar="DIR", help="folder of all datasets, such as DIR/PACS/sketch/dog/")
    add("--imbalance", metavar="SETTING",
        help="draw the numbers of training images of a run instead, such as long_tail:50 or natural")  # fmt: skip
    add("--test_envs", nargs="+", action="extend", metavar="ENV",
        help="with --imbalance: test environments of this run (default: the first)")  # fmt: skip
    add("--trial_seed", type=int, metavar="N", help="with --imbalance: trial of this run (default: 0)")
    add("--output", type=Path, metavar="PNG",
        help="write a contact sheet to this file: samples of every environment (rows) and class (columns)")  # fmt: skip


def _thinned(spec: RunSpec, dataset: "Dataset") -> str:
    """Describe the training images of a run by class."""
    from dg_batchformer.datasets.info_text import thinned_text
    from dg_batchformer.training.sampling import split_environments
    from dg_batchformer.training.thinning import count_classes

    assert spec.imbalance is not None
    counts = count_classes(dataset, split_environments(spec, dataset), spec.train_envs)
    thresholds = spec.imbalance.thresholds(spec.dataset, spec.test_envs)
    named = {dataset[env].name: images for env, images in counts.items()}
    held_out = spec.environment_names(spec.test_envs)
    return "\n\n".join(
        [
            f"{spec.dataset}, {spec.imbalance}, tested on {held_out}, trial {spec.trial_seed}: images to train on",
            thinned_text(named, dataset.classes, thresholds.shots(counts)),
            f"many: more than {thresholds.many} images on average over training environments; few: fewer than "
            f"{thresholds.few}",
        ]
    )


def run(options: argparse.Namespace) -> int:
    """Print the contents of a dataset, and draw a contact sheet if asked."""
    from dg_batchformer.datasets import open_dataset
    from dg_batchformer.datasets.contact_sheet import draw_contact_sheet
    from dg_batchformer.datasets.info_text import info_text

    if options.output is not None and options.output.suffix.lower() != ".png":
        raise InputError(f"--output {options.output} is not a PNG file; give a name that ends in .png")
    asked = {name: given for name in _OF_RUN if (given := getattr(options, name)) is not None}
    if asked and options.imbalance is None:
        raise InputError(
            f"--{min(asked)} has no effect: all images of {options.name} are counted; add --imbalance natural or "
            "another setting to count the training images of a run"
        )
    spec = RunRequest(**find_dataset(options.name, options.data_dir)._asdict(), **asked).resolve()
    dataset = open_dataset(spec, options.data_dir, {"image_size": 224})
    say(info_text(dataset) if spec.imbalance is None else _thinned(spec, dataset))
    for note in dataset.notes:
        print(f"note: {note}", file=sys.stderr)
    if options.output is not None:
        sheet = draw_contact_sheet(dataset)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(options.output) as file:
            sheet.save(file, "PNG")
        print(f"wrote {options.output}: {sheet.width} x {sheet.height} pixels")
    return OK

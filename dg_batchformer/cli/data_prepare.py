"""``data prepare``: download a dataset, or build it from existing files."""

import argparse
import sys
from pathlib import Path

from dg_batchformer.cli.common import OK, Verbs, positive
from dg_batchformer.text.command import command


def add_action(actions: Verbs) -> None:
    """Add the action and its options."""
    text = (
        "Download or build a dataset in the layout that training expects: DIR/PACS/sketch/dog/ ... It is downloaded "
        "from its public mirrors or, with --from, built from official archives, Hugging Face parquet files, or folders "
        "laid out for other suites. Images in folders on the same disk are hard-linked, not copied. Preparation is "
        "atomic: rerun the command to resume an interrupted download."
    )
    action = actions.add_parser("prepare", help="download a dataset, or build it from archives or folders",
        description=text)  # fmt: skip
    action.set_defaults(run=run, works=True)
    add = action.add_argument
    add("name", metavar="NAME", help="name of a dataset, such as PACS; an unknown name lists the known ones")
    add("--data_dir", type=Path, required=True, metavar="DIR", help="the folder of the dataset is created here")
    origin = action.add_mutually_exclusive_group()
    origin.add_argument("--from", dest="given", type=Path, nargs="+", action="extend", default=[], metavar="PATH",
        help="archives, parquet files, or folders that hold images, archives or parquet files; DomainNet also takes "
        "the list of duplicates, TerraIncognita takes images and annotations")  # fmt: skip
    origin.add_argument("--mirror", type=positive, metavar="N",
        help="download only from this mirror; --dry_run numbers the mirrors (default: try each in turn)")  # fmt: skip
    add("--dry_run", action="store_true", help="print what would be downloaded and built, and change nothing")


def run(options: argparse.Namespace) -> int:
    """Download or build a dataset."""
    from dg_batchformer.datasets.prepare.build import prepare
    from dg_batchformer.datasets.prepare.outline import outline

    if options.dry_run:
        for line in outline(options.name, options.data_dir, options.given, options.mirror):
            print(line)
        return OK
    dataset = prepare(options.name, options.data_dir, options.given, options.mirror, note=_note)
    for note in dataset.notes:
        _note(note)
    counts = ", ".join(f"{environment.name} {len(environment):,}" for environment in dataset)
    print(
        f"{options.data_dir / dataset.facts.folder}: {len(dataset.files):,} images of {dataset.num_classes} classes "
        f"({counts})"
    )
    print(f"next: {command('data', 'verify', options.name, data_dir=options.data_dir)}")
    return OK


def _note(sentence: str) -> None:
    print(f"note: {sentence}", file=sys.stderr, flush=True)

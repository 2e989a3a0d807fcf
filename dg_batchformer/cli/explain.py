"""``explain``: draw what BatchFormer does in a trained run."""

import argparse
from pathlib import Path

from dg_batchformer.cli.common import OK, Verbs, add_plugins, import_plugins
from dg_batchformer.storage.folders import RunFolder


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    text = (
        "Show what BatchFormer does to batches of held-out images in a trained run: which samples attend to which "
        "across domains and classes, how gradients flow between samples, and how the features change. Writes "
        "attention, gradients and features as .png and .svg and the numbers as .csv, and describes the findings in "
        "words."
    )
    verb = verbs.add_parser("explain", help="draw what BatchFormer does in a trained run", description=text)
    verb.set_defaults(run=run, works=True)
    add = verb.add_argument
    add(
        "folder",
        type=Path,
        metavar="RUN",
        help="the --output_dir of a train command that kept its model (--keep final)",
    )
    add("--data_dir", type=Path, metavar="DIR", help="folder of all datasets, such as DIR/PACS/sketch/dog/")
    add("--output", type=Path, metavar="DIR", help="folder for pictures and tables (default: RUN/explain)")
    add_plugins(verb)


def run(options: argparse.Namespace) -> int:
    """Draw what BatchFormer does in a trained run, and describe it in words."""
    from dg_batchformer.explain.write import explain
    from dg_batchformer.training.console import Console
    from dg_batchformer.training.device import parse_device, prepare_device

    import_plugins(options.plugins)
    output = options.folder / "explain" if options.output is None else options.output
    device, console = parse_device("auto"), Console()
    prepare_device(device)
    try:
        text = explain(RunFolder(options.folder), options.data_dir, output, device, console)
    finally:
        console.close()
    print(text, end="")
    print(f"wrote attention, gradients and features (.png, .svg, .csv) to {output}")
    return OK

"""``predict``: class probabilities of images, from a kept model."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dg_batchformer.cli.common import INCOMPLETE, OK, Verbs, add_plugins, import_plugins, positive
from dg_batchformer.errors import InputError
from dg_batchformer.models.listing import FORMATS, Ranked, ranked
from dg_batchformer.storage.folders import RunFolder, write_text

if TYPE_CHECKING:
    import torch

    from dg_batchformer.models.load import KeptModel


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    text = (
        "Predict the classes of images with the model that a run kept. Images are preprocessed as in the run's "
        "evaluation, and predicted in its precision if the device supports it. Unreadable images are listed and "
        "skipped; the exit status is then 1."
    )
    verb = verbs.add_parser(
        "predict", help="predict class probabilities of images with a trained model", description=text
    )
    verb.set_defaults(run=run)
    add = verb.add_argument
    add("folder", type=Path, metavar="RUN", help="folder of a run that kept its model (--keep final)")
    add(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="files, folders (all images below them), or globs such as 'photos/*.jpg'",
    )
    add("--format", choices=FORMATS, help="output format (default: by the extension of FILE, else text)")
    add("--top", type=positive, metavar="N",
        help="only the N most probable classes (default: 3 in text, else all)")  # fmt: skip
    add("--output", type=Path, metavar="FILE", help="write to this file, and print nothing")
    add("--device", metavar="NAME", default="auto",
        help="auto, cpu, cuda, cuda:1, or a UUID from nvidia-smi -L (default: %(default)s)")  # fmt: skip
    add_plugins(verb)


def run(options: argparse.Namespace) -> int:
    """Predict the classes of images."""
    from dg_batchformer.models.images import find_images
    from dg_batchformer.models.load import load_model
    from dg_batchformer.models.precision import compute_as_runs
    from dg_batchformer.models.predict import refuse_without_images
    from dg_batchformer.training.device import parse_device, prepare_device

    import_plugins(options.plugins)
    device, folder = parse_device(options.device), RunFolder(options.folder)
    prepare_device(device)
    model = load_model(folder, device)
    refuse_without_images(model)
    precision = compute_as_runs(model, [folder], device)
    files, problems = find_images(options.images)
    if not files:
        raise InputError("; ".join(problems))
    if options.output is not None and not options.output.absolute().parent.is_dir():
        raise InputError(f"--output {options.output}: no folder {options.output.absolute().parent}; create it")
    if model.is_batch_dependent and len(files) > 1:
        print(f"note: predictions of {model.spec.method} depend on the other images of a batch", file=sys.stderr)
    if precision.deviation:
        print(f"note: {precision.deviation}", file=sys.stderr)
    predictions, bad = _predict(model, files, device)
    suffix = options.output.suffix[1:] if options.output is not None else ""
    form = options.format or (suffix if suffix in FORMATS else "text")
    text = FORMATS[form](predictions, model.classes, options.top)
    if options.output is None:
        print(text, end="")
    else:
        write_text(options.output, text)
        print(f"wrote {len(predictions)} predictions to {options.output}")
    for problem in (*problems, *bad):
        print(f"error: {problem}", file=sys.stderr)
    return INCOMPLETE if problems or bad else OK


def _predict(model: "KeptModel", files: Sequence[Path], device: "torch.device") -> tuple[list[Ranked], list[str]]:
    """Predict with a progress bar; return the predictions, and the reason for each image that has none."""
    from tqdm import tqdm

    from dg_batchformer.models.predict import predict

    predictions, bad = [], []
    hidden = not sys.stderr.isatty()
    for one in tqdm(predict(model, files, device), total=len(files), unit="image", disable=hidden, leave=False):
        if one.probabilities is None:
            bad.append(one.note)
        else:
            predictions.append(ranked(one.file, model.classes, one.probabilities))
            if one.note:
                tqdm.write(f"note: {one.note}", file=sys.stderr)
    return predictions, bad

"""Explain a run: load it, measure, draw, write."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dg_batchformer.explain.frames import frames, views
from dg_batchformer.explain.held_out import held_out_features
from dg_batchformer.explain.load import load_kept
from dg_batchformer.explain.measure import measure
from dg_batchformer.explain.words import summary
from dg_batchformer.storage.folders import RunFolder, atomic_write, write_text
from dg_batchformer.text.printable import in_csv
from dg_batchformer.training.run_log import Watcher

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")


def explain(run: RunFolder, data_dir: Path | None, output: Path, device: torch.device, watcher: Watcher) -> str:
    """Write the figures of a run and the CSV tables behind them; return the text summary.

    Raises InputError if the run kept no BatchFormer, or its data is missing.
    """
    from dg_batchformer.explain.pictures import attention_picture, feature_picture, gradient_picture

    kept = load_kept(run, device)
    output.mkdir(parents=True, exist_ok=True)  # fail before the measurements take minutes
    held_out = held_out_features(kept, data_dir, device, watcher)
    measured = measure(kept, held_out)
    seen = views(held_out, measured)
    tables, text = frames(kept, held_out, measured, seen), summary(kept, measured, seen, held_out.shots)
    pictures = {
        "attention": attention_picture(kept, measured),
        "gradients": gradient_picture(kept, measured),
        "features": feature_picture(kept, tables["features"], seen),
    }
    for stem, table in tables.items():
        shown = table.map(lambda value: in_csv(value) if isinstance(value, str) else value)
        write_text(output / f"{stem}.csv", shown.to_csv(index=False))
    for stem, picture in pictures.items():
        _write_picture(output, stem, picture)
    write_text(output / "summary.txt", text)
    return text


def _write_picture(output: Path, stem: str, picture: "Figure") -> None:
    from matplotlib import rc_context

    layout = picture.get_layout_engine()
    assert layout is not None
    layout.execute(picture)
    picture.set_layout_engine("none")  # prevents a new layout for every format
    for form in FORMATS:
        # Omit the date and random ids of SVGs, so that the output is deterministic.
        metadata = {"Date": None} if form == "svg" else None
        with rc_context({"svg.hashsalt": stem}), atomic_write(output / f"{stem}.{form}") as file:
            picture.savefig(file, format=form, dpi=160, metadata=metadata)

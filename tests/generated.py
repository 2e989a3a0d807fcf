"""Made-up sweeps with realistic training curves."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dg_batchformer.catalog.datasets import dataset_facts
from dg_batchformer.spec.manifest import SweepRun, manifest_content
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.storage.folders import State, SweepFolder, write_json, write_text
from dg_batchformer.storage.records import to_line
from dg_batchformer.sweep.expand import expand

LABEL = """<b>&"'</script>$x_1$"""  # a row of the worst name
ROWS = (Row("ERM", "ERM"), Row("ERM+BF", "BF"), Row("SWAD", "SWAD"), Row("SWAD+BF", "BF+SWAD"), Row(LABEL, "CORAL"))


def write_sweep(
    path: Path, become: Callable[[SweepRun], State] = lambda run: State.DONE, *, records: int = 9, **asked: Any
) -> SweepFolder:
    """Write a sweep, by default of PACS with 2 trials and 2 draws; ``become`` returns the state of each run."""
    defaults = {"name": "mine", "datasets": ("PACS",), "algorithms": ROWS, "trials": 2, "draws": 2, "steps": 801}
    sweep = SweepSpec(**{**defaults, **asked})
    folder, runs = SweepFolder(path), expand(sweep)
    folder.write(manifest_content(sweep, runs))
    for run in runs:
        state = become(run)
        if state.is_final:
            _finish(folder, run, state, records)
        elif state is State.FAILED:
            folder.run(run.spec.id).fail("CUDA out of memory: 80 GiB <asked>", "Traceback ...")
    return folder


def _finish(folder: SweepFolder, run: SweepRun, state: State, records: int) -> None:
    files, spec = folder.run(run.spec.id), run.spec
    files.path.mkdir(parents=True)
    rng = random.Random(spec.id)
    defaults = spec.hparams_seed == 0
    lr = spec.hparams.get("lr", 5e-5 if defaults else 10 ** rng.uniform(-6, -3))
    drawn = {"batch_size": rng.choice([16, 32]), "class_balanced": rng.random() < 0.5}
    constant = {
        "args": spec.as_dict(),
        "hparams": {"lr": lr, **({"batch_size": 32, "class_balanced": False} if defaults else drawn), **spec.hparams},
        "protocol": spec.protocol,
        "precision": "fp32",
        "device": "NVIDIA H100",
        "tf32": False,
        "dataset_fingerprint": "27e12e731d897e65",
        "versions": {"dg_batchformer": "0.1.0", "torch": "2.11.0"},
    }
    steps = [round(place * (spec.steps - 1) / (records - 1)) for place in range(records)]
    lines = [{**constant, "step": step, **_measured(run, rng, step / (spec.steps - 1), lr)} for step in steps]
    if "SWAD" in spec.algorithm.split("+"):
        averaged = {"averaged_from": spec.steps // 4, "averaged_to": spec.steps * 3 // 4, "valley_threshold": 0.75}
        final = {**_measured(run, rng, 1, lr, bonus=0.03), **averaged, "step": spec.steps, "final": True}
        lines.append({**constant, **final})
    write_text(files.records_file, "".join(to_line(line) for line in lines))
    write_json(files.done_file, {"outcome": state.value, "seconds": round(rng.uniform(900, 1500), 3)})


def _measured(run: SweepRun, rng: random.Random, progress: float, lr: float, bonus: float = 0.0) -> dict[str, float]:
    """Return accuracies that saturate and losses that fall, then rise."""
    row = random.Random(run.label).random()
    tune = bonus - 0.06 * abs(math.log10(lr / 5e-5))
    values = {}
    for env in range(len(dataset_facts(run.spec.dataset).names)):
        unseen = env in run.spec.test_envs
        top = 0.70 - 0.06 * env + 0.08 * row if unseen else 0.93 + 0.03 * row
        reached = (0.15 + (top + tune - 0.15) * (1 - math.exp(-5 * progress))) + rng.gauss(0, 0.012)
        values[f"env{env}_out_acc"] = min(max(reached, 0.0), 1.0)
        if unseen:
            values[f"env{env}_in_acc"] = min(max(reached + rng.gauss(0, 0.01), 0.0), 1.0)
        else:
            values[f"env{env}_out_loss"] = 0.5 + 1.4 * math.exp(-7 * progress) + 0.45 * progress**3 + rng.gauss(0, 0.02)
    return values

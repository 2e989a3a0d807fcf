"""Fast modes reach the accuracy of the reference mode, over several seeds."""

import json
from itertools import product
from statistics import fmean, stdev

import numpy as np
import pytest
from PIL import Image
from support import resolved, run_quickly

from dg_batchformer.catalog.datasets import dataset_facts

SEEDS = range(5)
MODES = {
    "reference": {"precision": "fp32", "data_path": "exact", "compile": "off"},
    "fast": {"precision": "bf16", "data_path": "cached", "compile": "off"},
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """JPEG files of mixed sizes, some larger than the cache keeps; classes are directions of stripes."""
    folder, random = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for (env, name), label, number in product(enumerate(dataset_facts("PACS").names), range(7), range(12)):
        height, width = random.integers(30, 60, size=2) * (4 if number == 0 else 1)
        y, x = np.mgrid[0 : 8 : height * 1j, 0 : 8 : width * 1j]
        angle = np.pi * (label + random.uniform(-0.2, 0.2)) / 7
        stripes = np.sin(3 * (x * np.cos(angle) + y * np.sin(angle)) + random.uniform(0, 6))
        tint, noise = random.uniform(40, 90, size=3) + 20 * env, random.normal(0, 12, size=(height, width, 3))
        pixels = (90 + stripes[..., None] * tint + noise).clip(0, 255).astype(np.uint8)
        file = folder / "PACS" / name / f"class{label}" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file, quality=90)
    return folder


def _losses(mode, photographs, tmp_path):
    """Return the last validation loss of every seed."""
    small = {"image_size": 32, "batch_size": 8, "lr": 2e-3}
    losses = []
    for seed in SEEDS:
        run = {"protocol": "quick", "steps": 50, "checkpoint_freq": 49, "test_envs": (3,), "trial_seed": seed}
        spec = resolved(dataset="PACS", hparams=small, **run, **MODES[mode])
        run_quickly(spec, tmp_path / f"{mode}{seed}", data_dir=photographs)
        records = [json.loads(line) for line in (tmp_path / f"{mode}{seed}" / "results.jsonl").read_text().splitlines()]
        losses.append(fmean(records[-1][f"env{env}_out_loss"] for env in range(3)))
        assert losses[-1] < 0.7 * fmean(records[0][f"env{env}_out_loss"] for env in range(3))
    return losses


@pytest.mark.system
def test_the_fast_mode_learns_as_well_as_the_reference_mode(photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    reference, fast = (_losses(mode, photographs, tmp_path) for mode in MODES)

    differences = [own - other for own, other in zip(fast, reference, strict=True)]
    noise = stdev(differences) / len(SEEDS) ** 0.5
    assert abs(fmean(differences)) < 3 * noise, (reference, fast)
    assert noise < 0.1 * fmean(reference)  # else there is nothing to compare

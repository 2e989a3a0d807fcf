"""Write the predictions of a model per sample; ``results.predictions`` documents and reads the file."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dg_batchformer.algorithms import Algorithm
from dg_batchformer.datasets import Dataset
from dg_batchformer.storage.folders import atomic_write
from dg_batchformer.training.evaluate import Evaluator


def write_predictions(file: Path, algorithm: Algorithm, evaluator: Evaluator, step: int, dataset: Dataset) -> None:
    """Write the predictions of a model on all evaluated splits, atomically.

    Args:
        file: to write, an npz.
        algorithm: the model.
        evaluator: of the run.
        step: at which the model was evaluated; seeds the same augmentation, if any.
        dataset: for names of images, classes and environments.

    """
    rows = [
        (env, split, dataset[env].image_name(index))
        for (env, split), indices in evaluator.splits.items()
        for index in indices
    ]
    outputs = [(logits.cpu(), y.cpu()) for _, logits, y in evaluator.outputs(algorithm, step, list(evaluator.splits))]
    probabilities = torch.cat([logits for logits, _ in outputs]).float().softmax(dim=1).numpy()
    columns: dict[str, Any] = {
        "env": np.array([env for env, _, _ in rows]),
        "split": np.array([split for _, split, _ in rows]),
        "image": np.array([name for _, _, name in rows]),
        "label": torch.cat([y for _, y in outputs]).numpy(),
        "predicted": probabilities.argmax(axis=1),
        "confidence": probabilities.max(axis=1),
        "probabilities": probabilities,
        "classes": np.array(dataset.classes),
        "environments": np.array([environment.name for environment in dataset]),
    }
    with atomic_write(file) as target:
        np.savez_compressed(target, **columns)

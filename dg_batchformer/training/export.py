"""Export what a run leaves of its model: ``model.pt``, ``batchformer.pt`` if it has a BatchFormer, and predictions.

``results.predictions`` describes the file of predictions and reads it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dg_batchformer.algorithms import Algorithm
from dg_batchformer.datasets import Dataset
from dg_batchformer.networks.batchformer import batchformers
from dg_batchformer.registry import WRAPPERS
from dg_batchformer.spec.names import split_name
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.folders import RunFolder, atomic_write
from dg_batchformer.training.evaluate import Evaluator


def keep_model(
    folder: RunFolder, algorithm: Algorithm, spec: RunSpec, hparams: dict[str, Any], dataset: Dataset, init: str = ""
) -> None:
    """Write the predictor's weights, with all arguments to rebuild the algorithm without its wrappers.

    Both files load with ``torch.load(..., weights_only=True)``: a dict with a state dict, which is ``predictor`` (or
    ``batchformer``), and ``spec``, ``algorithm``, ``hparams``, ``input_shape``, ``num_classes``, ``num_domains``,
    ``classes``, ``init`` (the identity of the initial weights, see ``initialization.py``).
    ``get_algorithm_class(algorithm)(input_shape, num_classes, num_domains, hparams).predictor`` loads the predictor's
    state dict; ``networks.batchformer.BatchFormer`` is built from the hparams in ``batchformer.pt``.
    """
    base, wrappers = split_name(spec.algorithm)
    added = {name for wrapper in wrappers for name in WRAPPERS[wrapper].settings(spec.dataset)}
    about = {
        "spec": spec.as_dict(),
        "algorithm": base,
        "hparams": {name: value for name, value in hparams.items() if name not in added},
        "input_shape": list(dataset.input_shape),
        "num_classes": dataset.num_classes,
        "num_domains": len(spec.train_envs),
        "classes": dataset.classes,
        "init": init,
    }
    with atomic_write(folder.model_file) as file:
        torch.save({**about, "predictor": algorithm.predictor.state_dict()}, file)
    for encoder in batchformers(algorithm)[:1]:
        with atomic_write(folder.batchformer_file) as file:
            torch.save({**about, "hparams": hparams, "batchformer": encoder.state_dict()}, file)


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

"""The model that a run keeps: ``model.pt``, and BatchFormer's part beside it."""

from typing import Any

import torch

from dg_batchformer.algorithms import Algorithm
from dg_batchformer.datasets import Dataset
from dg_batchformer.networks.batchformer import batchformers
from dg_batchformer.spec import RunSpec
from dg_batchformer.store import RunFolder, atomic_write

KEEP = ("none", "final", "best")


def keep_model(
    folder: RunFolder, algorithm: Algorithm, spec: RunSpec, hparams: dict[str, Any], dataset: Dataset
) -> None:
    """Write the predictor's weights, as the base algorithm names them, with what rebuilds it.

    Both files load with ``torch.load(..., weights_only=True)``: a dict with ``predictor`` (or ``batchformer``), a
    state dict, and ``spec``, ``hparams``, ``input_shape``, ``num_classes``, ``num_domains``, ``classes``.
    """
    about = {
        "spec": spec.as_dict(),
        "hparams": hparams,
        "input_shape": list(dataset.input_shape),
        "num_classes": dataset.num_classes,
        "num_domains": len(spec.train_envs),
        "classes": dataset.classes,
    }
    with atomic_write(folder.model_file) as file:
        torch.save({**about, "predictor": algorithm.predictor.state_dict()}, file)
    for encoder in batchformers(algorithm)[:1]:
        with atomic_write(folder.batchformer_file) as file:
            torch.save({**about, "batchformer": encoder.state_dict()}, file)

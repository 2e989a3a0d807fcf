"""Export the model of a run: ``model.pt``, and ``batchformer.pt`` if it has a BatchFormer."""

from typing import Any

import torch

from dg_batchformer.algorithms import Algorithm
from dg_batchformer.datasets import Dataset
from dg_batchformer.networks.batchformer import batchformers
from dg_batchformer.registry import WRAPPERS
from dg_batchformer.spec.names import split_name
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.folders import RunFolder, atomic_write


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

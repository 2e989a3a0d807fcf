"""Load the kept predictor of a run together with the BatchFormer that it was trained with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dg_batchformer.algorithms import Algorithm, get_algorithm_class
from dg_batchformer.catalog.wrappers import returns_average
from dg_batchformer.errors import InputError
from dg_batchformer.models.load import KeptModel, load_model, read_content, rebuilding, refuse_missing
from dg_batchformer.networks.base import FeaturizerModule
from dg_batchformer.networks.batchformer import BatchFormer
from dg_batchformer.spec.names import split_name
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.spec.run_folder import read_spec
from dg_batchformer.storage.folders import RunFolder


@dataclass(frozen=True)
class Kept:
    """The modules of a trained run, in evaluation mode.

    Args:
        hparams: of the run, including BatchFormer's.
        classes: class names.
        input_shape: shape of one input, without the batch dimension.
        predictor: maps x to logits, without BatchFormer.
        featurizer: the part of the predictor whose output BatchFormer takes.
        batchformer: maps features (domains, n, width) to attended features of the same shape.

    """

    spec: RunSpec
    hparams: dict[str, Any]
    classes: list[str]
    input_shape: tuple[int, ...]
    predictor: nn.Module
    featurizer: FeaturizerModule
    batchformer: BatchFormer

    @property
    def is_averaged(self) -> bool:
        """Whether the predictor's weights are averaged; BatchFormer's are always those of the last step."""
        base, _ = split_name(self.spec.algorithm)
        averages_itself = get_algorithm_class(base).predictor is not Algorithm.predictor  # as ERM++
        return averages_itself or returns_average(self.spec.algorithm)

    @property
    def is_batch_dependent(self) -> bool:
        """Whether the algorithm's predictions depend on the rest of the batch, even without BatchFormer."""
        return get_algorithm_class(self.spec.algorithm).batch_dependent

    @property
    def domains(self) -> list[str]:
        """Names of the environments that the run trained or tested on; measurements index domains in this order."""
        return [self.spec.facts.names[env] for env in self.spec.used_envs]

    def places(self, envs: Sequence[int]) -> list[int]:
        """Return the indices of environments in ``domains``."""
        return [self.spec.used_envs.index(env) for env in envs]

    @property
    def unseen(self) -> list[int]:
        """Indices of the test environments in ``domains``."""
        return self.places(self.spec.test_envs)

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Compute the features that BatchFormer takes: (N, *input_shape) -> (N, width)."""
        seen: list[Tensor] = []
        handle = self.featurizer.register_forward_hook(lambda module, inputs, z: seen.append(z))
        try:
            self.predictor(x)
        finally:
            handle.remove()
        return seen[0]

    def logits(self, z: Tensor) -> Tensor:
        """Classify features: (N, width) -> (N, num_classes).

        Runs the predictor on a dummy input and replaces the featurizer's output, so that any predictor works.
        """
        handle = self.featurizer.register_forward_hook(lambda module, inputs, output: z)
        try:
            return self.predictor(torch.zeros(1, *self.input_shape, device=z.device))
        finally:
            handle.remove()


def load_kept(folder: RunFolder, device: torch.device) -> Kept:
    """Load a run; raise InputError if it kept no BatchFormer, or one that does not attend to other samples."""
    spec = read_spec(folder)
    asked, (_, wrappers) = spec.method, split_name(spec.algorithm)
    if "BFv2" in wrappers:
        raise InputError(
            f"{folder.path} holds a run of {asked}, whose BatchFormer is inside the featurizer, but explain needs one "
            f"on pooled features; train {asked.replace('BFv2', 'BF')}"
        )
    if "BF" not in wrappers:
        raise InputError(f"{folder.path} holds a run of {asked}, which has no BatchFormer; train {asked}+BF")
    refuse_missing(folder, folder.model_file, folder.batchformer_file)
    model, encoder = load_model(folder, device), read_content(folder.batchformer_file, spec)
    with rebuilding(folder, spec):
        _refuse_controls(folder.path, encoder["hparams"])
        return _build(model, encoder, device)


def _build(model: KeptModel, encoder: dict[str, Any], device: torch.device) -> Kept:
    hparams = encoder["hparams"]
    [featurizer] = [module for module in model.predictor.modules() if isinstance(module, FeaturizerModule)]
    per_domain = model.algorithm.attends == "per_domain" and hparams["bf_scope"] == "joint"
    scope = "per_domain" if per_domain else hparams["bf_scope"]
    batchformer = BatchFormer.of(featurizer.n_outputs, {**hparams, "bf_scope": scope})
    batchformer.load_state_dict(encoder["batchformer"])
    batchformer.to(device).eval().requires_grad_(False)
    return Kept(model.spec, hparams, model.classes, model.input_shape, model.predictor, featurizer, batchformer)


def _refuse_controls(path: Path, hparams: dict[str, Any]) -> None:
    """Raise InputError for hparams under which BatchFormer has no effect."""
    why = ""
    if hparams["bf_layers"] == 0:
        why = "bf_layers is 0, so nothing attends"
    elif hparams["bf_scope"] == "sample":
        why = "bf_scope is sample, so a sample attends only to itself"
    elif hparams["bf_shared"] and hparams["bf_loss_weight"] == 0:
        why = "bf_loss_weight is 0, so BatchFormer was never trained"
    if why:
        raise InputError(f"{path} holds a control: {why}; explain a run without that setting")

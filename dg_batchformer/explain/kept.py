"""What a run has kept, read back: its predictor, and the BatchFormer that trained with it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dg_batchformer.algorithms import Algorithm, get_algorithm_class
from dg_batchformer.catalog import AVERAGING_WRAPPERS
from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.names import split_name
from dg_batchformer.networks.base import FeaturizerModule
from dg_batchformer.networks.batchformer import BatchFormer
from dg_batchformer.spec import RunSpec
from dg_batchformer.store import RunFolder, SweepFolder


@dataclass(frozen=True)
class Kept:
    """A trained run in evaluation mode, its parts apart.

    Args:
        hparams: of the run, BatchFormer's included.
        classes: their names.
        input_shape: of one x.
        predictor: x -> logits, without BatchFormer. featurizer: the part of it whose output BatchFormer attends.
        batchformer: features -> attended features, (domains, n, width).

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
        """Whether the predictor is a mean of iterates, which BatchFormer, the last iterate, is not."""
        base, wrappers = split_name(self.spec.algorithm)
        averages_itself = get_algorithm_class(base).predictor is not Algorithm.predictor  # as ERM++
        return averages_itself or any(wrapper in AVERAGING_WRAPPERS for wrapper in wrappers)

    @property
    def is_batch_dependent(self) -> bool:
        """Whether the algorithm's predictions depend on the other samples, with or without BatchFormer."""
        return get_algorithm_class(self.spec.algorithm).batch_dependent

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Return what BatchFormer gets, (N, *input_shape) -> (N, width)."""
        seen: list[Tensor] = []
        handle = self.featurizer.register_forward_hook(lambda module, inputs, z: seen.append(z))
        try:
            self.predictor(x)
        finally:
            handle.remove()
        return seen[0]

    def logits(self, z: Tensor) -> Tensor:
        """Classify features, (N, width) -> (N, num_classes): all that the predictor does behind its featurizer.

        A forward of one blank input, whose features are replaced: what lies behind is the algorithm's own affair.
        """
        handle = self.featurizer.register_forward_hook(lambda module, inputs, output: z)
        try:
            return self.predictor(torch.zeros(1, *self.input_shape, device=z.device))
        finally:
            handle.remove()


def load_kept(folder: RunFolder, device: torch.device) -> Kept:
    """Read a run back; raise InputError where it has kept no BatchFormer, or none that was trained to attend."""
    spec = _spec(folder)
    wrappers = split_name(spec.algorithm)[1]
    if "BFv2" in wrappers:
        raise InputError(
            f"{folder.path} holds a run of {spec.algorithm}, whose BatchFormer is inside the featurizer, and explain "
            f"draws the one on pooled features; train {spec.algorithm.replace('BFv2', 'BF')}"
        )
    if "BF" not in wrappers:
        raise InputError(
            f"{folder.path} holds a run of {spec.algorithm}, and there is no BatchFormer in it; train "
            f"{spec.algorithm}+BF"
        )
    _refuse_missing(folder)
    model, encoder = _read(folder.model_file, spec), _read(folder.batchformer_file, spec)
    try:
        _refuse_controls(folder.path, encoder["hparams"])
        kept = _build(spec, model, encoder)
    except InputError:
        raise
    except (*MALFORMED, RuntimeError) as error:  # weights that do not fit are a RuntimeError
        sentence = " ".join(str(error).split())[:200]
        raise InputError(f"{folder.path} holds no model of {spec.algorithm} that can be rebuilt: {sentence}") from None
    for module in (kept.predictor, kept.batchformer):
        module.to(device).eval().requires_grad_(False)
    return kept


def _spec(folder: RunFolder) -> RunSpec:
    if SweepFolder(folder.path).sweep_file.exists():
        raise InputError(
            f"{folder.path} is a sweep; give the folder of one of its runs, {folder.path}/runs/ID, of a sweep that was "
            "started with --keep final"
        )
    try:
        return RunSpec.from_dict(json.loads(folder.spec_file.read_text(errors="replace")))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder.path} is no run folder: it has no {folder.spec_file.name}; give the --output_dir of a train "
            "command"
        ) from None
    except MALFORMED as error:
        raise InputError(f"{folder.spec_file} cannot be read: {error}") from None


def _refuse_missing(folder: RunFolder) -> None:
    missing = [file.name for file in (folder.model_file, folder.batchformer_file) if not file.is_file()]
    if not missing:
        return
    state = folder.state()
    if not state.is_final and folder.checkpoint_file.exists():
        raise InputError(
            f"{folder.path} has no {' and no '.join(missing)} yet: its run is {state}, and --keep final keeps the "
            "model when it ends"
        )
    raise InputError(
        f"{folder.path} has no {' and no '.join(missing)}: train and sweep keep them with --keep final; train this run "
        "once more with that, and another --output_dir"
    )


def _read(file: Path, spec: RunSpec) -> dict[str, Any]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        held = RunSpec.from_dict(content["spec"])
    except Exception as error:  # torch.load raises whatever the bytes lead it to
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{file} cannot be read ({reason}); train the run once more, with --keep final") from None
    if held.id != spec.id:
        raise InputError(f"{file} is of another run than the spec.json beside it; give the folder as train left it")
    return content


def _build(spec: RunSpec, model: dict[str, Any], encoder: dict[str, Any]) -> Kept:
    input_shape, hparams = tuple(model["input_shape"]), encoder["hparams"]
    # What is kept replaces initial weights, and nothing is trained, so that neither needs to be had.
    initial = {**model["hparams"], "weights": "none", "freeze_bn": False}
    algorithm_class = get_algorithm_class(model["algorithm"])
    predictor = algorithm_class(input_shape, model["num_classes"], model["num_domains"], initial).predictor
    predictor.load_state_dict(model["predictor"])
    [featurizer] = [module for module in predictor.modules() if isinstance(module, FeaturizerModule)]
    per_domain = algorithm_class.attends == "per_domain" and hparams["bf_scope"] == "joint"
    batchformer = BatchFormer(
        featurizer.n_outputs,
        heads=hparams["bf_heads"],
        layers=hparams["bf_layers"],
        dropout=hparams["bf_dropout"],
        scope="per_domain" if per_domain else hparams["bf_scope"],
    )
    batchformer.load_state_dict(encoder["batchformer"])
    return Kept(spec, hparams, list(model["classes"]), input_shape, predictor, featurizer, batchformer)


def _refuse_controls(path: Path, hparams: dict[str, Any]) -> None:
    """Raise InputError for a BatchFormer that does nothing, by its hparams."""
    why = ""
    if hparams["bf_layers"] == 0:
        why = "bf_layers is 0, so nothing attends"
    elif hparams["bf_scope"] == "sample":
        why = "bf_scope is sample, so a sample attends to itself alone"
    elif hparams["bf_shared"] and hparams["bf_loss_weight"] == 0:
        why = "bf_loss_weight is 0, so BatchFormer was never trained"
    if why:
        raise InputError(f"{path} holds a control: {why}; explain a run without that setting")

"""Load the model that a run kept. It is rebuilt without wrappers, so neither BatchFormer nor SWAD is needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dg_batchformer.algorithms import Algorithm, get_algorithm_class
from dg_batchformer.datasets import Dataset, open_dataset
from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.networks.featurizer import WEIGHTS_FOLLOW
from dg_batchformer.networks.tensor_files import read_tensors
from dg_batchformer.plugins.load import require_plugins
from dg_batchformer.spec.names import split_name
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.spec.run_folder import read_spec
from dg_batchformer.storage.digests import refuse_damaged
from dg_batchformer.storage.folders import RunFolder
from dg_batchformer.storage.safe_read import Unreadable


@dataclass(frozen=True)
class KeptModel:
    """A trained model in evaluation mode.

    Args:
        spec: of the run that kept the model.
        hparams: of the run, without those of its wrappers.
        classes: class names, by class index.
        input_shape: shape of one input, without the batch dimension.
        init: identity of the initial weights of the run, '' if it was not recorded.
        algorithm: without the wrappers of the run; ``predict`` uses the model that the run returned.

    """

    spec: RunSpec
    hparams: dict[str, Any]
    classes: list[str]
    input_shape: tuple[int, ...]
    init: str
    algorithm: Algorithm

    @property
    def predictor(self) -> nn.Module:
        """The module that maps x to logits."""
        return self.algorithm.predictor

    @property
    def is_batch_dependent(self) -> bool:
        """Whether a prediction depends on the other samples in the batch."""
        return self.algorithm.batch_dependent


def load_model(folder: RunFolder, device: torch.device) -> KeptModel:
    """Load the model of a run; raise InputError if there is none, or it cannot be rebuilt."""
    spec = read_spec(folder)
    refuse_missing(folder, folder.model_file)
    require_plugins(spec.plugins, folder.path)
    content = read_content(folder.model_file, spec)
    with rebuilding(folder, spec):
        return build_model(spec, content, device)


def open_trained(spec: RunSpec, classes: list[str], data_dir: Path | None, hparams: dict[str, Any]) -> Dataset:
    """Open the dataset that a kept model was trained on; raise InputError if its classes differ."""
    dataset = open_dataset(spec, data_dir, hparams)
    if dataset.classes != classes:
        raise InputError(
            f"{spec.dataset} has the classes {', '.join(dataset.classes)} here, but the run was trained on "
            f"{', '.join(classes)}; give the --data_dir that it was trained on"
        )
    return dataset


def refuse_missing(folder: RunFolder, *files: Path) -> None:
    """Raise InputError if a run has not kept some files; the message names the flag that keeps them."""
    missing = [file.name for file in files if not file.is_file()]
    if not missing:
        return
    state = folder.state()
    if not state.is_final and folder.checkpoint_file.exists():
        raise InputError(
            f"{folder.path} has no {' and no '.join(missing)} yet: its run is {state}; with train --keep final, it "
            "keeps the model at its end"
        )
    raise InputError(
        f"{folder.path} has no {' and no '.join(missing)}: train and sweep keep models only with --keep final; train "
        "this run again with it, and another --output_dir"
    )


def read_content(file: Path, spec: RunSpec) -> dict[str, Any]:
    """Read a file that ``training.export`` wrote for a run; raise InputError if it is damaged or another run's."""
    refuse_damaged(RunFolder(file.parent), file)
    try:
        content = read_tensors(file)
        held = RunSpec.from_dict(content["spec"])
    except Unreadable:
        raise
    except Exception as error:  # torch.load may raise anything on malformed bytes
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{file} cannot be read ({reason}); train the run again with --keep final") from None
    if held.id != spec.id:
        raise InputError(f"{file} and the spec.json beside it are of different runs; give a folder as train wrote it")
    return content


@contextmanager
def rebuilding(folder: RunFolder, spec: RunSpec) -> Iterator[None]:
    """Raise InputError for an error in rebuilding a model from well-formed content."""
    try:
        yield
    except InputError:
        raise
    except (*MALFORMED, RuntimeError) as error:  # weights that do not fit are a RuntimeError
        sentence = " ".join(str(error).split())[:200]
        raise InputError(f"{folder.path}: the model of {spec.method} cannot be rebuilt: {sentence}") from None


def build_model(spec: RunSpec, content: dict[str, Any], device: torch.device) -> KeptModel:
    """Rebuild a model from the content of its file; raise RuntimeError or one of MALFORMED if that is not possible."""
    _check_content(spec, content)
    input_shape, hparams = tuple(content["input_shape"]), dict(content["hparams"])
    initial = {**hparams, "weights": "none", WEIGHTS_FOLLOW: True}
    algorithm_class = get_algorithm_class(content["algorithm"])
    algorithm = algorithm_class(input_shape, content["num_classes"], content["num_domains"], initial)
    algorithm.predictor.load_state_dict(content["predictor"])
    algorithm.to(device).eval().requires_grad_(False)
    init = str(content.get("init", ""))
    return KeptModel(spec, hparams, list(content["classes"]), input_shape, init, algorithm)


def _check_content(spec: RunSpec, content: dict[str, Any]) -> None:
    """Raise ValueError unless a model file agrees with the spec of its run and holds tensors."""
    base, _ = split_name(spec.algorithm)
    said = content["algorithm"], content["num_domains"], content["num_classes"]
    if said != (base, len(spec.train_envs), len(content["classes"])):
        raise ValueError(f"it is of {said[0]!r:.80} with {said[1]!r:.20} domains and {said[2]!r:.20} classes")
    if not all(isinstance(value, str | int | float) for value in content["hparams"].values()):
        raise ValueError("its hparams are not strings and numbers")
    if not all(isinstance(value, Tensor) for value in content["predictor"].values()):
        raise ValueError("its weights are not tensors")

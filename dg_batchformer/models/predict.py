"""Predict the class probabilities of image files with a kept model, under the evaluation transform of its run."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dg_batchformer.errors import InputError
from dg_batchformer.models.images import read_images
from dg_batchformer.models.load import KeptModel
from dg_batchformer.training.augment import normalise
from dg_batchformer.training.evaluate import BATCH_SIZE


class Prediction(NamedTuple):
    """Class probabilities by class index, or None if the image cannot be decoded; ``note`` says what is wrong."""

    file: Path
    probabilities: list[float] | None
    note: str


def refuse_without_images(model: KeptModel) -> None:
    """Raise InputError for a model whose inputs are not color images."""
    if len(model.input_shape) != 3 or model.input_shape[0] != 3:
        sizes = " x ".join(map(str, model.input_shape))
        raise InputError(
            f"predict reads color images, but the model of {model.spec.method} on "
            f"{model.spec.dataset} takes inputs of shape {sizes}; give a run on color images"
        )


def predict(model: KeptModel, files: Sequence[Path], device: torch.device) -> Iterator[Prediction]:
    """Yield one prediction per file, in order."""
    for batch in read_images(files, model.input_shape[-1], BATCH_SIZE):
        pixels = [image.pixels for image in batch if image.pixels is not None]
        rows = iter(_probabilities(model, torch.stack(pixels).to(device)).tolist() if pixels else [])
        for image in batch:
            yield Prediction(image.file, None if image.pixels is None else next(rows), image.note)


@torch.no_grad()
def _probabilities(model: KeptModel, pixels: Tensor) -> Tensor:
    """Compute the class probabilities of uint8 images: (N, 3, size, size) -> (N, num_classes)."""
    return model.algorithm.predict(normalise(pixels)).softmax(dim=1)

"""A trained model as a plain PyTorch module."""

from collections.abc import Callable
from functools import cached_property

from PIL.Image import Image
from torch import Tensor, nn

from dg_batchformer.models.load import KeptModel
from dg_batchformer.models.predict import refuse_without_images
from dg_batchformer.training.augment import Transform, normalise


class TrainedModel(nn.Module):
    """A trained model in evaluation mode, without BatchFormer and SWAD, which only act in training.

    Args:
        kept: the loaded model.

    """

    def __init__(self, kept: KeptModel) -> None:
        super().__init__()
        self.algorithm = kept.algorithm
        self.kept = kept
        self.classes = kept.classes
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of inputs (N, 3, size, size) from ``transform``."""
        return self.algorithm.predict(x)

    @cached_property
    def transform(self) -> Callable[[Image], Tensor]:
        """The preprocessing of evaluation, from a Pillow image to an input of the model (3, size, size).

        Raises InputError if the inputs of the model are not color images.
        """
        refuse_without_images(self.kept)
        plain = Transform(self.kept.input_shape[-1])
        return lambda image: normalise(plain(image.convert("RGB"), None)[None])[0]

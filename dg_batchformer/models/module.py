"""A trained model as a plain PyTorch module."""

from collections.abc import Callable
from functools import cached_property

from PIL.Image import Image
from torch import Tensor, nn

from dg_batchformer.models.load import KeptModel
from dg_batchformer.models.predict import refuse_without_images
from dg_batchformer.training.augment import Transform, normalise


class TrainedModel(nn.Module):
    """A trained model in evaluation mode: x -> logits, without BatchFormer and SWAD, which are of training only.

    Args:
        kept: the model as it was read back.

    """

    def __init__(self, kept: KeptModel) -> None:
        super().__init__()
        self.algorithm = kept.algorithm
        self.kept = kept
        self.classes = kept.classes
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes) of inputs as ``transform`` makes them, (N, 3, size, size)."""
        return self.algorithm.predict(x)

    @cached_property
    def transform(self) -> Callable[[Image], Tensor]:
        """Turns an RGB image of Pillow into what the model takes, (3, size, size), as images were for evaluation.

        Raises InputError for a model whose inputs are no colour images.
        """
        refuse_without_images(self.kept)
        plain = Transform(self.kept.input_shape[-1])
        return lambda image: normalise(plain(image.convert("RGB"), None)[None])[0]

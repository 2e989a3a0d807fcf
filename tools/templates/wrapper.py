"""MyWrapper (Author et al., 2030): train on brighter images."""

from torch import Tensor

from dg_batchformer.algorithms.base import Metrics, Minibatches
from dg_batchformer.hparams import HParam
from dg_batchformer.wrappers.base import Wrapper


def brighter(x: Tensor, gain: float) -> Tensor:
    """Return brighter images of the same shape."""
    return (1 + gain) * x


class MyWrapper(Wrapper):
    """Train any algorithm on brighter images."""

    acts_on = "risk"  # the stage that it changes: risk, maps, features, parameters or weights

    @classmethod
    def settings(cls, dataset: str) -> dict[str, HParam]:
        return {"my_wrapper_gain": HParam(0.1, about="by how much images are brighter", low=0)}

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        gain = self.hparams["my_wrapper_gain"]
        return self.inner.update([(brighter(x, gain), y) for x, y in minibatches], unlabeled)

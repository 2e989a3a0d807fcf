"""ZeroShot — Radford et al., 2021: CLIP as it is, with text features of class names as classifier."""

from torch import Tensor

from dg_batchformer.algorithms.base import Metrics, Minibatches
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam


class ZeroShot(ERM):
    """CLIP's zero-shot classifier, which no update changes; a run ends at its first evaluation.

    The logits of an image are the learned scale times the cosine of its features and each class's text features. The
    prompts are the hparam ``clip_templates`` with the names of the classes.
    """

    trains = False
    finished = True

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "init": HParam("zero_shot", about="the classifier that text features make", choices=("zero_shot",)),
            "clip_projection": HParam(True, about="features that text features are compared with", choices=(True,)),
        }

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        return {}

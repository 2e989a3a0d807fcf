"""MixStyle — Zhou et al., 2021: mix the feature statistics of images during training.

This wrapper controls when to mix; the computation is in ``networks/mixstyle.py``.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor

from dg_batchformer.algorithms.base import Metrics, Minibatches
from dg_batchformer.errors import InputError
from dg_batchformer.hparams import HParam
from dg_batchformer.networks.base import FeaturizerModule
from dg_batchformer.networks.mixstyle import PARTNERS, StyleMixer
from dg_batchformer.optim.groups import featurizers
from dg_batchformer.text.command import command
from dg_batchformer.wrappers.base import Wrapper


class MixStyle(Wrapper):
    """Mix the styles of images after the first stages of the featurizer: after the first three of four for a ResNet.

    A style is the channel-wise mean and standard deviation of a sample's feature maps: (N, C, H, W) -> (N, C). The last
    stage is excluded, as its statistics carry class information. MixStyle is active only in ``update``. With
    BatchFormer, attention sees the mixed features. Methods that forward environments one by one mix within each.

    Defaults are those of SWAD's release, which published tables use. The paper's variant for known domains, which mixes
    with another domain, is ``mixstyle_partners: other_domain``.
    """

    acts_on = "maps"
    needs_pixels = "MixStyle mixes feature maps of early stages"

    @classmethod
    def settings(cls, dataset: str) -> dict[str, HParam]:
        return {
            "mixstyle_p": HParam(0.5, about="probability of mixing a batch, at each stage", low=0, high=1),
            "mixstyle_alpha": HParam(0.1, about="parameter of the Beta distribution of mixing weights", low=0.01),
            "mixstyle_stages": HParam(3, about="number of stages to mix after; never the last one", low=1),
            "mixstyle_partners": HParam("any", about="domain of the sample to mix with", choices=PARTNERS),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        if not self.styled_featurizers():
            raise InputError(
                f"MixStyle mixes statistics of feature maps, but {self.inner_class.__name__} has none for inputs of "
                f"shape {tuple(input_shape)} with backbone {hparams.get('backbone', 'auto')}; use images and a "
                f"convolutional backbone ({command('list', 'backbones')})"
            )
        for featurizer in self.styled_featurizers():
            self._refuse_twins(featurizer)

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        domain_rows = len(minibatches[0][0]) // self.streams  # twins are not forwarded through the featurizer
        with ExitStack() as stack:
            for featurizer in self.styled_featurizers():
                stack.enter_context(featurizer.seen_by(self.mixer(featurizer, domain_rows)))
            return self.inner.update(minibatches, unlabeled)

    def styled_featurizers(self) -> list[FeaturizerModule]:
        """Return the main featurizers of the algorithm that have feature maps of more than one stage."""
        return [
            featurizer
            for featurizer in featurizers(self.inner)
            if featurizer.keeps_grid
            and not featurizer.is_auxiliary
            and len(featurizer.stages()) > featurizer.has_stem + 1
        ]

    def _refuse_twins(self, featurizer: FeaturizerModule) -> None:
        """Raise InputError if styles would be mixed after BFv2's stage, and so between streams."""
        places = self.mixer(featurizer, 1).places
        for place, name in enumerate(featurizer.stages()):
            if name in featurizer.inserted and place < places[-1]:
                raise InputError(
                    f"MixStyle would mix styles of samples with those of their twins, which BFv2 adds after {name}; "
                    f"set hparam mixstyle_stages {place - places[0] + 1} or less, or bfv2_insert to a later stage"
                )

    def mixer(self, featurizer: FeaturizerModule, domain_rows: int) -> StyleMixer:
        first = int(featurizer.has_stem)
        end = min(first + self.hparams["mixstyle_stages"], len(featurizer.stages()) - 1)
        of_other_domain = self.hparams["mixstyle_partners"] == "other_domain"
        return StyleMixer(
            range(first, end),
            self.hparams["mixstyle_p"],
            self.hparams["mixstyle_alpha"],
            domain_rows if of_other_domain else None,
        )

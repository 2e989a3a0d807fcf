"""MixStyle — Zhou et al., 2021: in training, images take on a mixture of their own and another's style.

The wrapper says when; the maths is in ``networks/mixstyle.py``.
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
from dg_batchformer.wrappers.base import Wrapper


class MixStyle(Wrapper):
    """The featurizer mixes the styles of images after its first stages: of a ResNet, after its first three of four.

    A style is the mean and standard deviation of every channel of a sample's feature maps, (N, C, H, W) -> (N, C).
    The last stage is spared, as there styles tell classes apart. Outside ``update`` nothing of this is there. Under
    BatchFormer twins attend what was mixed. Methods that forward each environment alone mix within it.

    Defaults are those of SWAD's release, which published tables compare with; the paper, where domains are known,
    mixes with another one: ``mixstyle_partners`` is then ``other_domain``.
    """

    acts_on = "maps"
    needs_pixels = "MixStyle mixes feature maps of early stages"

    @classmethod
    def settings(cls, dataset: str) -> dict[str, HParam]:
        return {
            "mixstyle_p": HParam(0.5, about="probability that a batch is mixed, at each stage", low=0, high=1),
            "mixstyle_alpha": HParam(0.1, about="of the Beta distribution of one's share in a style", low=0.01),
            "mixstyle_stages": HParam(3, about="stages after which styles are mixed; never the last", low=1),
            "mixstyle_partners": HParam("any", about="whose style is mixed in", choices=PARTNERS),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        if not self._featurizers():
            raise InputError(
                f"MixStyle mixes statistics of feature maps, and {self.inner_class.__name__} has none on inputs of the "
                f"shape {tuple(input_shape)} with backbone {hparams.get('backbone', 'auto')}; take images and a "
                "convolutional backbone (python -m dg_batchformer list backbones)"
            )
        for featurizer in self._featurizers():
            self._refuse_twins(featurizer)

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        domain_rows = len(minibatches[0][0]) // self.streams  # twins are not forwarded
        with ExitStack() as stack:
            for featurizer in self._featurizers():
                stack.enter_context(featurizer.seen_by(self._mixer(featurizer, domain_rows)))
            return self.inner.update(minibatches, unlabeled)

    def _featurizers(self) -> list[FeaturizerModule]:
        """Return the featurizers by which the algorithm classifies, if they have maps of more than one stage."""
        found = [module for module in self.inner.modules() if isinstance(module, FeaturizerModule)]
        return [
            module
            for module in found
            if module.keeps_grid and not module.is_auxiliary and len(module.stages()) > module.has_stem + 1
        ]

    def _refuse_twins(self, featurizer: FeaturizerModule) -> None:
        """Raise InputError where styles would be mixed behind the stage that twins are made at: between streams."""
        places = self._mixer(featurizer, 1).places
        for place, name in enumerate(featurizer.stages()):
            if name in featurizer.inserted and place < places[-1]:
                raise InputError(
                    f"MixStyle would mix styles of samples with those of their twins, which BFv2 makes behind {name}; "
                    f"set hparam mixstyle_stages {place - places[0] + 1} or less, or bfv2_insert to a later stage"
                )

    def _mixer(self, featurizer: FeaturizerModule, domain_rows: int) -> StyleMixer:
        first = int(featurizer.has_stem)
        end = min(first + self.hparams["mixstyle_stages"], len(featurizer.stages()) - 1)
        of_other_domain = self.hparams["mixstyle_partners"] == "other_domain"
        return StyleMixer(
            range(first, end),
            self.hparams["mixstyle_p"],
            self.hparams["mixstyle_alpha"],
            domain_rows if of_other_domain else None,
        )

"""Protocol: named settings of backbone, steps, evaluation frequency, augmentation and hparams, as used in papers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dg_batchformer.catalog.datasets import DatasetFacts
from dg_batchformer.hparams import HParam, Value

Draw = Callable[[np.random.RandomState], Any]


@dataclass(frozen=True)
class Protocol:
    """A named benchmark protocol.

    Backbone, weights and frozen BatchNorm are set only for images of 224 pixels; for other data the backbone depends on
    the input shape (``auto``), as in DomainBed.

    Args:
        steps, checkpoint_freq: for every dataset; None uses DomainBed's frequency for the dataset.
        steps_for, checkpoint_freq_for: exceptions by dataset.
        defaults: hparam defaults for all datasets.
        photographs: further defaults for images of 224 pixels.
        space: hparams whose default and draw replace the declared ones for images of 224 pixels.
        draws: random draws of hparams for images of 224 pixels, by name; if not empty, no other hparam is drawn.
        data_path: default data path for images of 224 pixels.
        domainbed_names: whether hparams also appear under DomainBed's names.
        fixes_mode: whether precision and compilation are part of it, as in papers, which use fp32 and do not compile.

    """

    name: str
    about: str
    source: str
    steps: int = 5001
    checkpoint_freq: int | None = None
    steps_for: Mapping[str, int] = field(default_factory=dict)
    checkpoint_freq_for: Mapping[str, int] = field(default_factory=dict)
    defaults: Mapping[str, Value] = field(default_factory=dict)
    photographs: Mapping[str, Value] = field(default_factory=dict)
    space: Mapping[str, HParam] = field(default_factory=dict)
    draws: Mapping[str, Draw] = field(default_factory=dict)
    data_path: str = "cached"
    domainbed_names: bool = False
    fixes_mode: bool = True

    def num_steps(self, facts: DatasetFacts) -> int:
        """Return the number of steps on a dataset."""
        return self.steps_for.get(facts.name, self.steps)

    def steps_between(self, facts: DatasetFacts) -> int:
        """Return the number of steps between evaluations on a dataset."""
        freq = self.checkpoint_freq_for.get(facts.name, self.checkpoint_freq)
        return facts.checkpoint_freq if freq is None else freq

    def default_data_path(self, facts: DatasetFacts) -> str:
        """Return the default data path of a dataset."""
        return self.data_path if facts.is_photographs else "cached"

    def hparam_defaults(self, facts: DatasetFacts) -> dict[str, Value]:
        """Return the hparam defaults of this protocol for a dataset."""
        defaults = {**self.defaults, **(self.photographs if facts.is_photographs else {})}
        if len(facts.shape) == 1:
            defaults.pop("backbone", None)  # vectors have one featurizer, the MLP
        return defaults

    def hparam_space(self, facts: DatasetFacts) -> dict[str, HParam]:
        """Return the hparams that this protocol redefines for a dataset."""
        return dict(self.space) if facts.is_photographs else {}

    def hparam_draws(self, facts: DatasetFacts) -> Mapping[str, Draw]:
        """Return the only draws on a dataset; {} where hparams are drawn as declared."""
        return self.draws if facts.is_photographs else {}

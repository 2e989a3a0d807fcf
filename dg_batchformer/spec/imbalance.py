"""Imbalance: subsample the training images by class and environment, and group classes by their number of images.

Spelled ``SETTING[:RATIO][:ORDER][:balanced]``, as ``long_tail:50``, ``step:10:reversed``, ``natural`` or
``TotalHeavyTail``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import NamedTuple

import numpy as np

from dg_batchformer.catalog.datasets import DatasetFacts
from dg_batchformer.catalog.ndcl_settings import NAMES as NDCL_NAMES
from dg_batchformer.catalog.ndcl_settings import ndcl_setting
from dg_batchformer.errors import InputError, unknown
from dg_batchformer.hparams import same_spelling
from dg_batchformer.seeds import seed_hash

Counts = Mapping[int, Sequence[int]]
"""Numbers of images: by environment, then of every class."""

THINNED = {
    "long_tail": "images per class decay exponentially in every environment; RATIO is the most frequent over the least",
    "step": "the first half of the classes keeps equally many images each, the second half 1/RATIO of that",
    "domain": "the sizes of environments decay exponentially; RATIO is the largest over the smallest",
}
ORDERS = {
    "same": "most frequent class first, counted over all training environments",
    "reversed": "reversed in every other training environment; for domain, smallest environment first",
    "drawn": "drawn from the trial seed, for every environment independently",
}
_NATURAL, _BALANCED = "natural", "balanced"
SETTINGS = (_NATURAL, *THINNED, *NDCL_NAMES)

# Thresholds of many-shot and few-shot classes. The default and those of the first two are MDLT's (Yang et al., 2022),
# which applies them to every environment by itself; the other two datasets have small environments.
_THRESHOLDS = {"OfficeHome": (60, 20), "TerraIncognita": (100, 25), "Office31": (30, 10), "OfficeCaltech10": (30, 10)}
_DEFAULT_THRESHOLDS = (100, 20)


class Thresholds(NamedTuple):
    """A class has many images above ``many`` and few below ``few``, on average over training environments."""

    many: int
    few: int

    def shots(self, counts: Counts) -> dict[str, list[int]]:
        """Group the classes into ``many``, ``medium`` and ``few``; classes without images are in no group."""
        groups: dict[str, list[int]] = {"many": [], "medium": [], "few": []}
        for label, of_class in enumerate(zip(*counts.values(), strict=True)):
            mean = fmean(of_class)
            if mean > 0:
                groups["many" if mean > self.many else "few" if mean < self.few else "medium"].append(label)
        return groups


@dataclass(frozen=True)
class Imbalance:
    """How the training images of training environments are subsampled.

    Args:
        setting: one of SETTINGS; ``natural`` keeps all images.
        ratio: of the largest class or environment to the smallest, at least 1; for the settings in THINNED.
        order: one of ORDERS, from the most frequent to the least; for the settings in THINNED.
        balanced: whether every class keeps as many validation images as the rarest class of the environment has.

    """

    setting: str
    ratio: float = 1
    order: str = "same"
    balanced: bool = False

    def __str__(self) -> str:
        ratio = [str(same_spelling(self.ratio))] if self.setting in THINNED else []
        order = [self.order] if self.order != "same" else []
        return ":".join([self.setting, *ratio, *order, *[_BALANCED] * self.balanced])

    @property
    def is_published(self) -> bool:
        """Whether the numbers of images are those of a published setting of NDCL."""
        return self.setting in NDCL_NAMES

    def check(self, facts: DatasetFacts, train_envs: Sequence[int], test_envs: Sequence[int]) -> None:
        """Raise InputError if the imbalance does not apply to the environments of a run."""
        if self.setting == "domain" and len(train_envs) < 2:
            raise InputError(
                f"imbalance {self} makes environments differ in size, and {facts.name} is trained on one; train on "
                "more, or take long_tail"
            )
        if self.is_published:
            setting = ndcl_setting(self.setting, facts.name, test_envs[0])
            if set(setting.images) != set(train_envs):
                raise InputError(
                    f"imbalance {self} is published for one test environment and all others trained on, not for "
                    f"training on {', '.join(facts.names[env] for env in train_envs)}; take long_tail instead"
                )

    def thresholds(self, dataset: str, test_envs: Sequence[int]) -> Thresholds:
        """Return the thresholds of many-shot and few-shot classes."""
        if self.is_published:
            setting = ndcl_setting(self.setting, dataset, test_envs[0])
            return Thresholds(setting.many, setting.few)
        return Thresholds(*_THRESHOLDS.get(dataset, _DEFAULT_THRESHOLDS))

    def kept(self, counts: Counts, trial_seed: int) -> dict[int, list[int]]:
        """Compute how many images of every class to keep, by training environment.

        A class that has images keeps at least one. The most frequent class keeps as many images as the exact ratio
        allows with the images of the other classes; numbers are rounded down. Not defined for settings of NDCL.

        Args:
            counts: in dataset order.
            trial_seed: draws the order ``drawn``.

        """
        if self.setting == _NATURAL:
            return {env: list(images) for env, images in counts.items()}
        if self.setting == "domain":
            return self._thin_domains(counts, trial_seed)
        totals = [sum(of_class) for of_class in zip(*counts.values(), strict=True)]
        order = sorted((label for label, total in enumerate(totals) if total), key=lambda label: -totals[label])
        return {
            env: self._thin_classes(images, self._ordered(order, place % 2 == 1, trial_seed, env))
            for place, (env, images) in enumerate(counts.items())
        }

    def _thin_classes(self, images: Sequence[int], order: Sequence[int]) -> list[int]:
        """Compute how many images of every class to keep in an environment, given the order of its classes."""
        shares = dict(zip(order, self._shares(len(order)), strict=True))
        most = min(images[label] / share for label, share in shares.items() if images[label])
        return [_at_least_one(most * shares[label]) if number else 0 for label, number in enumerate(images)]

    def _thin_domains(self, counts: Counts, trial_seed: int) -> dict[int, list[int]]:
        """Compute how many images to keep, with the same share of every class in an environment."""
        sizes = {env: sum(images) for env, images in counts.items()}
        by_size = sorted(sizes, key=lambda env: -sizes[env])
        order = self._ordered(by_size, True, trial_seed)
        shares = dict(zip(order, self._shares(len(order)), strict=True))
        most = min(sizes[env] / share for env, share in shares.items())
        return {
            env: [_at_least_one(number * most * shares[env] / sizes[env]) if number else 0 for number in images]
            for env, images in counts.items()
        }

    def _ordered(self, order: Sequence[int], may_reverse: bool, trial_seed: int, *of: int) -> list[int]:
        if self.order == "drawn":
            return np.random.RandomState(seed_hash(trial_seed, "imbalance", *of)).permutation(order).tolist()
        return list(reversed(order)) if self.order == "reversed" and may_reverse else list(order)

    def _shares(self, number: int) -> list[float]:
        """Return the size of every class or environment relative to the first."""
        if self.setting == "step":
            head = (number + 1) // 2
            return [1.0] * head + [1 / self.ratio] * (number - head)
        return [self.ratio ** -(rank / max(number - 1, 1)) for rank in range(number)]


def _at_least_one(number: float) -> int:
    return max(1, int(number + 1e-9))  # products of shares may be just below a whole number


def parse_imbalance(text: str) -> Imbalance:
    """Parse an imbalance; raise InputError if it is invalid."""
    setting, *rest = [part.strip() for part in str(text).split(":")]
    if setting not in SETTINGS:
        raise unknown("imbalance", setting, SETTINGS)
    ratio = 1.0
    if setting in THINNED:
        ratio = _ratio(text, setting, rest.pop(0) if rest else "")
    words = {*ORDERS, _BALANCED} if setting in THINNED else {_BALANCED} if setting == _NATURAL else set()
    for word in rest:
        if not word:
            raise InputError(f"imbalance {text!r} has an empty part; remove a colon")
        if word not in words:
            raise _strange(text, setting, word, sorted(words))
    orders = [word for word in rest if word in ORDERS]
    if len(orders) > 1:
        raise InputError(f"imbalance {text!r} has two orders; give one")
    if len(set(rest)) < len(rest):
        raise InputError(f"imbalance {text!r} has a part twice; give each part once")
    return Imbalance(setting, ratio, orders[0] if orders else "same", _BALANCED in rest)


def _ratio(text: str, setting: str, given: str) -> float:
    try:
        ratio = float(given)
    except ValueError:
        ratio = 0.0
    if not (isfinite(ratio) and ratio >= 1):
        raise InputError(f"imbalance {text!r} needs a ratio of at least 1 after {setting}, such as {setting}:50")
    return ratio


def _strange(text: str, setting: str, word: str, words: Sequence[str]) -> InputError:
    if not words:
        return InputError(f"imbalance {text!r}: {setting} is published as it is and takes no further parts")
    return unknown(f"part of imbalance {text!r}:", word, words)

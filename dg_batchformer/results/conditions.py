"""Training conditions of a run: fields of RunSpec that are not an axis of tables, its data, and its hparams."""

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from dg_batchformer.errors import InputError
from dg_batchformer.results.runs import Place
from dg_batchformer.seeds import seed_hash
from dg_batchformer.spec.names import split_name
from dg_batchformer.spec.run import REFERENCE, RunSpec
from dg_batchformer.text.printable import one_line

UNKNOWN = "not recorded"
DERIVED = "derived from the run"

_AXES = {"dataset", "test_envs", "trial_seed", "hparams_seed", "imbalance"}
_UNREAD = {"evaluate"}  # only adds accuracies that tables do not use
FIELDS = [name for name in RunSpec.__dataclass_fields__ if name not in _AXES | _UNREAD]
# Resolved on the device, so the used values count. ``compile`` also depends on how much a run evaluates, so the
# requested value counts, as environments of a row could differ otherwise.
_SETTLED = ("precision", "data_path")
_OF_RECORDS = ("protocol", "dataset_fingerprint", "training_short_side", *_SETTLED)


class Conditions(NamedTuple):
    """Conditions of a run as text, by name; missing ones have the value UNKNOWN.

    Args:
        fields: of RunSpec, of DomainBed's task, and of the data; the seed is only "given" or DERIVED.
        hparams: all hparams. given: those set by the user, without those that a grid varies.
        seed: its value.

    """

    fields: Mapping[str, str]
    hparams: Mapping[str, str]
    given: Mapping[str, str]
    seed: str

    @property
    def everything(self) -> dict[str, str]:
        """All values, which are equal for duplicate runs."""
        return {**self.fields, "seed": self.seed, **self.hparams}


def conditions(constant: Mapping[str, Any], place: Place, varied: Collection[str] = ()) -> Conditions:
    """Return the conditions of a run from the constant values of its records.

    Args:
        constant: the values.
        place: of the run in its sweep.
        varied: hparams that the grid of its row varies: they are not among the set hparams.

    """
    args = _mapping(constant.get("args"))
    asked = _given(args.get("hparams"))
    given = {name: value for name, value in asked.items() if name not in varied}
    absent = REFERENCE if "protocol" in constant else {}  # our older records lack newer fields
    fields = {name: args.get(name, absent.get(name)) for name in ("task", *FIELDS, *_OF_RECORDS)}
    fields |= {name: constant[name] for name in _OF_RECORDS if constant.get(name) is not None}
    fields["feature_dtype"] = constant.get("feature_dtype", "float32")  # of cached features
    if fields["precision"] == "fp32" and constant.get("device", "cpu") != "cpu" and "tf32" not in constant:
        fields["precision"] = "fp32 or tf32"  # earlier versions left the choice to PyTorch, and did not record it
    fields |= {"algorithm": place.algorithm, "hparams": given or None, "seed": _origin(args.get("seed"), place)}
    return Conditions(
        {name: UNKNOWN if value is None else as_text(value) for name, value in fields.items()},
        _texts({**asked, **_mapping(constant.get("hparams"))}),
        _texts(given),
        as_text(args.get("seed")),
    )


def _given(hparams: object) -> Mapping[Any, Any]:
    if isinstance(hparams, str):
        with suppress(ValueError):
            return _mapping(json.loads(hparams))
    return _mapping(hparams)


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(values: Mapping[Any, Any]) -> dict[str, str]:
    return {as_text(name): as_text(value) for name, value in values.items()}


def as_text(value: object) -> str:
    """Format a value as JSON, and a string as one printable line."""
    if type(value) in (int, float):
        return repr(value)
    return one_line(value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str))


def _origin(seed: object, place: Place) -> str | None:
    """Return DERIVED if a seed is the one that DomainBed derives from the run, else "given"."""
    if seed is None:
        return None
    return DERIVED if isinstance(seed, int) and seed in _derived(place) else "given"


@lru_cache(maxsize=1 << 16)
def _derived(place: Place) -> frozenset[int]:
    names = {place.algorithm}
    with suppress(InputError):
        names.add(split_name(place.algorithm)[0])
    seeds = place.hparams_seed, place.trial_seed
    return frozenset(seed_hash(place.dataset, name, list(place.test_envs), *seeds) for name in names)

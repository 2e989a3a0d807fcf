"""RunRequest and RunSpec: the settings of a run as given by the user, and in full."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from dg_batchformer.catalog.datasets import DatasetFacts, dataset_facts
from dg_batchformer.errors import InputError, unknown
from dg_batchformer.hparams import same_spelling
from dg_batchformer.seeds import seed_hash
from dg_batchformer.spec.environments import Given, named_environments, resolve_environments
from dg_batchformer.spec.forks import plugin_identity
from dg_batchformer.spec.imbalance import Imbalance, parse_imbalance
from dg_batchformer.spec.names import canonical_name, module_names, split_name, written_name
from dg_batchformer.spec.protocols import DEFAULT_PROTOCOL, get_protocol

EVALUATE = ("needed", "all")
PRECISIONS = ("fp32", "bf16", "tf32", "auto")
DATA_PATHS = ("exact", "cached", "features")
COMPILE = ("off", "on", "auto")
CHOICES = {"evaluate": EVALUATE, "precision": PRECISIONS, "data_path": DATA_PATHS, "compile": COMPILE}
TOO_LARGE = 2**63  # for the whole numbers of files and libraries

# Fields equal to their reference value are not part of the run id. These values never change, so that new fields leave
# old ids unchanged.
REFERENCE: dict[str, Any] = {
    "hparams": {},
    "holdout_fraction": 0.2,
    "evaluate": "needed",
    "precision": "fp32",
    "data_path": "exact",
    "compile": "off",
    "plugins": [],
    "imbalance": None,
}


@dataclass(frozen=True)
class RunSpec:
    """Full specification of a run, without where it runs or is written; built by ``RunRequest.resolve``.

    Args:
        dataset: a name in ``catalog.datasets.DATASETS``, or a custom dataset.
        algorithm: a composed name, in canonical spelling.
        test_envs: indices of test environments, sorted. Environments in neither list are not evaluated.
        train_envs: indices of training environments, sorted.
        environments: names of the environments of a custom dataset; () for a dataset in the catalog.
        trial_seed: seed of the trial, which determines splits and random draws.
        hparams_seed: index of the random draw of hparams; 0 uses the defaults.
        seed: of everything else (initialization, order, augmentation).
        hparams: set by the user, on top of defaults or draw.
        steps: number of updates. checkpoint_freq: updates between evaluations.
        holdout_fraction: held-out share of every environment, in (0, 1).
        protocol: a name in ``spec.protocols.PROTOCOLS``.
        evaluate: ``needed`` skips the ``in`` splits of training environments, ``all`` includes them.
        precision: ``fp32``; ``tf32`` on NVIDIA GPUs; ``bf16``, mixed precision in featurizer and BatchFormer;
            ``auto``: bf16 if the device supports it.
        data_path: for image folders: ``exact`` decodes and augments as DomainBed does; ``cached`` uses the pixel cache
            and augments on the device; ``features`` trains on the cached output of the frozen prefix (hparam
            ``freeze``).
        compile: whether to compile; ``auto``: if it is known to pay off.
        plugins: modules and forks with further algorithms, sorted; imported when a run is built.
        imbalance: how training images are subsampled; None uses all of them.

    """

    dataset: str
    algorithm: str
    test_envs: tuple[int, ...]
    train_envs: tuple[int, ...]
    environments: tuple[str, ...]
    trial_seed: int
    hparams_seed: int
    seed: int
    hparams: Mapping[str, Any]
    steps: int
    checkpoint_freq: int
    holdout_fraction: float
    protocol: str
    evaluate: str
    precision: str
    data_path: str
    compile: str
    plugins: tuple[str, ...]
    imbalance: Imbalance | None

    def __hash__(self) -> int:
        return hash(self.id)

    @cached_property
    def id(self) -> str:
        """16 hex digits that identify the run: a hash of all fields that differ from ``REFERENCE``."""
        values = {**self.as_dict(), "plugins": sorted(map(plugin_identity, self.plugins))}
        asked = {name: value for name, value in values.items() if not _is_reference(name, value)}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def method(self) -> str:
        """The algorithm as papers write it, as in SWAD+CORAL+BF, for messages and titles."""
        return written_name(self.algorithm)

    @property
    def facts(self) -> DatasetFacts:
        """Facts of the dataset."""
        return dataset_facts(self.dataset, self.environments)

    def environment_names(self, envs: Sequence[int]) -> str:
        """Return the names of environments, separated by commas."""
        return ", ".join(self.facts.names[env] for env in envs)

    @property
    def used_envs(self) -> tuple[int, ...]:
        """All training and test environments, in dataset order."""
        return tuple(sorted((*self.train_envs, *self.test_envs)))

    @property
    def leaves_some_out(self) -> bool:
        """Whether an environment is used neither for training nor for testing."""
        return len(self.used_envs) < len(self.facts.names)

    def is_checkpoint(self, step: int) -> bool:
        """Return whether splits are evaluated after this step; always true for the last step."""
        return step % self.checkpoint_freq == 0 or step == self.steps - 1

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types; those in ``unsaid`` are omitted if they are redundant."""
        values = {name: getattr(self, name) for name in _FIELDS}
        listed = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        listed |= {"hparams": dict(self.hparams), "imbalance": str(self.imbalance)}
        unsaid = {
            "train_envs": not self.leaves_some_out,
            "environments": not self.environments,
            "imbalance": self.imbalance is None,
        }
        return {name: value for name, value in listed.items() if not unsaid.get(name)}

    def options(self) -> dict[str, Any]:
        """Return the options of ``train`` for this run, by name."""
        values = self.as_dict()
        values.pop("environments", None)  # read from the data
        for name in {"test_envs", "train_envs"} & values.keys():
            values[name] = [self.facts.typed(env) for env in values[name]]
        return {**values, "hparams": json.dumps(values["hparams"]) if values["hparams"] else None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunSpec":
        """Rebuild a spec from ``as_dict``; raise InputError for an unknown field."""
        for name in values:
            if name not in _FIELDS:
                raise unknown("field of a run", name, _FIELDS)
        return RunRequest(**values).resolve()


_FIELDS = tuple(item.name for item in fields(RunSpec))


@dataclass(frozen=True)
class RunRequest:
    """A run as requested by the user, with the fields of ``RunSpec``; None means unspecified.

    Args:
        test_envs: by index or name; default: all that are not in ``train_envs``, or the first if both are None.
        train_envs: by index or name; default: all that are not in ``test_envs``.
        seed: default: derived from dataset, algorithm, environments and the other seeds, as in DomainBed.
        steps, checkpoint_freq, data_path: default: those of the protocol.
        imbalance: in the spelling of ``spec/imbalance.py``; default: none.

    """

    dataset: str = "Shapes"
    algorithm: str = "ERM"
    test_envs: Given = None
    train_envs: Given = None
    environments: Sequence[str] = ()
    trial_seed: int = 0
    hparams_seed: int = 0
    seed: int | None = None
    hparams: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    checkpoint_freq: int | None = None
    holdout_fraction: float = 0.2
    protocol: str = DEFAULT_PROTOCOL
    evaluate: str = "needed"
    precision: str = "fp32"
    data_path: str | None = "exact"
    compile: str = "off"
    plugins: Sequence[str] = ()
    imbalance: str | None = None

    def resolve(self) -> RunSpec:
        """Return the full specification; raise InputError for invalid values."""
        environments = named_environments(self.dataset, self.environments)
        facts, protocol = dataset_facts(self.dataset, environments), get_protocol(self.protocol)
        algorithm = canonical_name(self.algorithm, is_known=not self.plugins)
        train_envs, test_envs = resolve_environments(facts, self.train_envs, self.test_envs)
        plugins = module_names(self.plugins)
        hparams = {name: same_spelling(value) for name, value in sorted(self.hparams.items())}
        trial_seed = _whole("trial_seed", self.trial_seed, 0)
        hparams_seed = _whole("hparams_seed", self.hparams_seed, 0)
        if self.seed is None:
            base = split_name(self.algorithm)[0]
            seed = seed_hash(self.dataset, base, list(test_envs), hparams_seed, trial_seed)
        else:
            seed = _whole("seed", self.seed, 0)
        steps = protocol.num_steps(facts) if self.steps is None else _whole("steps", self.steps, 1)
        if self.checkpoint_freq is None:
            checkpoint_freq = protocol.steps_between(facts)
        else:
            checkpoint_freq = _whole("checkpoint_freq", self.checkpoint_freq, 1)
        data_path = protocol.default_data_path(facts) if self.data_path is None else self.data_path
        if not isinstance(self.holdout_fraction, int | float) or not 0 < self.holdout_fraction < 1:
            raise InputError(f"holdout_fraction is {self.holdout_fraction!r}, but must be a number between 0 and 1")
        imbalance = None if self.imbalance is None else parse_imbalance(self.imbalance)
        if imbalance is not None:
            imbalance.check(facts, train_envs, test_envs)
        return RunSpec(
            dataset=self.dataset,
            algorithm=algorithm,
            test_envs=test_envs,
            train_envs=train_envs,
            environments=environments,
            trial_seed=trial_seed,
            hparams_seed=hparams_seed,
            seed=seed,
            hparams=hparams,
            steps=steps,
            checkpoint_freq=checkpoint_freq,
            holdout_fraction=self.holdout_fraction,
            protocol=self.protocol,
            evaluate=_choice("evaluate", self.evaluate),
            precision=_choice("precision", self.precision),
            data_path=_choice("data_path", data_path),
            compile=_choice("compile", self.compile),
            plugins=plugins,
            imbalance=imbalance,
        )


def _is_reference(name: str, value: object) -> bool:
    return name in REFERENCE and REFERENCE[name] == value


def _choice(name: str, value: str) -> str:
    if value not in CHOICES[name]:
        raise unknown(f"value of {name}:", value, CHOICES[name])
    return value


def _whole(name: str, value: object, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise InputError(f"{name} is {value!r}, but must be a whole number, at least {low}")
    if value >= TOO_LARGE:
        raise InputError(f"{name} is {value}, but must be below 2^63")
    return value

"""RunSpec: everything asked of one run that can change a number, and the identity that follows from it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dg_batchformer.catalog.datasets import DatasetFacts, dataset_facts
from dg_batchformer.errors import MALFORMED, InputError, unknown
from dg_batchformer.hparams import same_spelling
from dg_batchformer.seeds import seed_hash
from dg_batchformer.spec.environments import named_environments, resolve_environments
from dg_batchformer.spec.names import canonical_name, module_names, split_name
from dg_batchformer.spec.protocols import DEFAULT_PROTOCOL, get_protocol
from dg_batchformer.storage.folders import RunFolder, SweepFolder, read_object
from dg_batchformer.storage.safe_read import TABLE, TEXT, Unreadable, read_text

EVALUATE = ("needed", "all")
PRECISIONS = ("fp32", "bf16", "tf32", "auto")
DATA_PATHS = ("exact", "cached", "features")
COMPILE = ("off", "on", "auto")
CHOICES = {"evaluate": EVALUATE, "precision": PRECISIONS, "data_path": DATA_PATHS, "compile": COMPILE}

# The reference mode: a field that equals its value here stays out of the identity. It never changes, so
# that fields added later leave old identities alone.
REFERENCE: dict[str, Any] = {
    "hparams": {},
    "holdout_fraction": 0.2,
    "evaluate": "needed",
    "precision": "fp32",
    "data_path": "exact",
    "compile": "off",
    "plugins": [],
}


@dataclass(frozen=True)
class RunSpec:
    """One run: what is asked, never where it runs or where it is written.

    What is given as None (test_envs, train_envs, steps, checkpoint_freq, seed) is resolved at once, by the other
    field, by the protocol and by DomainBed's rule for seeds. Raises InputError for what cannot be run.

    Args:
        dataset: a name of ``catalog.datasets.DATASETS``, or of data of one's own.
        algorithm: a composed name; kept in its canonical spelling.
        test_envs: environments tested on, by index or name; kept as sorted indices. None: all that are not trained
            on, or the first where that is not said either.
        train_envs: environments trained on, likewise; None: all the others. What is neither is not evaluated.
        environments: names of the environments of data of one's own, () for a dataset of the catalog.
        trial_seed: repeats the experiment: splits and random draws.
        hparams_seed: which random draw of hyper-parameters; 0 takes the defaults.
        seed: everything else (initialisation, order, augmentation); derived from the other fields.
        hparams: what the person gave, on top of defaults or draw.
        steps: number of updates. checkpoint_freq: updates between two evaluations.
        holdout_fraction: share of every environment that is held out, in (0, 1).
        protocol: a name of ``spec.protocols.PROTOCOLS``.
        evaluate: ``needed`` leaves out the trained-on split of training environments, ``all`` does not.
        precision: ``fp32``; ``tf32``, in which GPUs round the factors of products; ``bf16``, mixed, in featurizer and
            BatchFormer; ``auto``: bf16 where the device has it.
        data_path: of image folders: ``exact`` decodes and augments as DomainBed, ``cached`` from the pixel cache on
            the device; ``features``: train on the cached output of the frozen prefix (hparam ``freeze``); None: the
            protocol's.
        compile: whether evaluation is compiled; ``auto``: where that is known to pay.
        plugins: modules that define further algorithms, see ``plugins``; kept sorted, imported where a run is built.

    """

    dataset: str = "Shapes"
    algorithm: str = "ERM"
    test_envs: tuple[int, ...] = None  # type: ignore[assignment]  # indices from the start, like the next one
    train_envs: tuple[int, ...] = None  # type: ignore[assignment]
    environments: tuple[str, ...] = ()
    trial_seed: int = 0
    hparams_seed: int = 0
    seed: int = None  # type: ignore[assignment]  # an int from the start, like the next ones
    hparams: Mapping[str, Any] = field(default_factory=dict)
    steps: int = None  # type: ignore[assignment]
    checkpoint_freq: int = None  # type: ignore[assignment]
    holdout_fraction: float = 0.2
    protocol: str = DEFAULT_PROTOCOL
    evaluate: str = "needed"
    precision: str = "fp32"
    data_path: str = "exact"
    compile: str = "off"
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._keep("environments", named_environments(self.dataset, self.environments))
        facts, protocol = self.facts, get_protocol(self.protocol)
        self._keep("algorithm", canonical_name(self.algorithm))
        train_envs, test_envs = resolve_environments(facts, self.train_envs, self.test_envs)
        self._keep("train_envs", train_envs)
        self._keep("test_envs", test_envs)
        self._keep("plugins", module_names(self.plugins))
        self._keep("hparams", {name: same_spelling(value) for name, value in sorted(self.hparams.items())})
        for name, low in (
            ("trial_seed", 0),
            ("hparams_seed", 0),
            ("seed", 0),
            ("steps", 1),
            ("checkpoint_freq", 1),
        ):
            self._keep(name, _whole(name, getattr(self, name), low))
        if not 0 < self.holdout_fraction < 1:
            raise InputError(f"holdout_fraction is {self.holdout_fraction}, allowed is between 0 and 1")
        if self.data_path is None:
            self._keep("data_path", protocol.default_data_path(facts))
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown(f"value of {name}:", getattr(self, name), known)
        if self.steps is None:
            self._keep("steps", protocol.num_steps(facts))
        if self.checkpoint_freq is None:
            self._keep("checkpoint_freq", protocol.steps_between(facts))
        if self.seed is None:
            base = split_name(self.algorithm)[0]
            arguments = (self.dataset, base, list(self.test_envs), self.hparams_seed, self.trial_seed)
            self._keep("seed", seed_hash(*arguments))

    def _keep(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def __hash__(self) -> int:
        return hash(self.id)

    @cached_property
    def id(self) -> str:
        """16 hex digits over everything that differs from the reference mode."""
        asked = {name: value for name, value in self.as_dict().items() if value != REFERENCE.get(name, self)}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def facts(self) -> DatasetFacts:
        """The known facts of the dataset."""
        return dataset_facts(self.dataset, self.environments)

    def environment_names(self, envs: Sequence[int]) -> str:
        """Return environments by name, for people."""
        return ", ".join(self.facts.names[env] for env in envs)

    @property
    def used_envs(self) -> tuple[int, ...]:
        """The environments trained or tested on, in dataset order."""
        return tuple(sorted((*self.train_envs, *self.test_envs)))

    @property
    def leaves_some_out(self) -> bool:
        """Whether an environment is neither trained nor tested on."""
        return len(self.used_envs) < len(self.facts.names)

    def is_checkpoint(self, step: int) -> bool:
        """Whether all splits are evaluated after the update of this step; the last step always is."""
        return step % self.checkpoint_freq == 0 or step == self.steps - 1

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types; ``train_envs`` and ``environments`` only where they say something."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        unsaid = {"train_envs": not self.leaves_some_out, "environments": not self.environments}
        listed = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        said = {name: value for name, value in listed.items() if not unsaid.get(name)}
        return {**said, "hparams": dict(self.hparams)}

    def options(self) -> dict[str, Any]:
        """Return the options of ``train`` that ask for this run, by name, as they are typed."""
        values = self.as_dict()
        values.pop("environments", None)  # found again where the data lies
        for name in {"test_envs", "train_envs"} & values.keys():
            values[name] = [self.facts.typed(env) for env in values[name]]
        return {**values, "hparams": json.dumps(values["hparams"]) if values["hparams"] else None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunSpec":
        """Rebuild a spec from ``as_dict``; raise InputError for a field that this version does not know."""
        known = list(cls.__dataclass_fields__)
        for name in values:
            if name not in known:
                raise unknown("field of a run", name, known)
        return cls(**values)


def read_spec(folder: RunFolder) -> RunSpec:
    """Read what was asked of a run; raise InputError where the folder is none of a run."""
    if SweepFolder(folder.path).sweep_file.exists():
        raise InputError(
            f"{folder.path} is a sweep; give the folder of one of its runs, {folder.path}/runs/ID, of a sweep that was "
            "started with --keep final"
        )
    try:
        return RunSpec.from_dict(json.loads(read_text(folder.spec_file, TEXT, errors="replace")))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder.path} is no run folder: it has no {folder.spec_file.name}; give the --output_dir of a train "
            "command"
        ) from None
    except Unreadable:
        raise
    except MALFORMED as error:
        raise InputError(f"{folder.spec_file} cannot be read: {error}") from None


def refuse_other_run(folder: RunFolder, spec: RunSpec) -> None:
    """Raise InputError where a folder holds what would be written over: another run, or files of somebody else."""
    ours = (folder.done_file, folder.records_file, folder.checkpoint_file, folder.model_file)
    files = [file for file in ours if file.is_file()]
    if not files:
        return
    way_out = "give another --output_dir, or move it away"
    if _can_be_written_again(folder, spec):
        return
    if not folder.spec_file.exists():
        names = ", ".join(file.name for file in files)
        raise InputError(f"{folder.path} has {names} but no spec.json, so it is no run of ours; {way_out}")
    try:
        held = RunSpec.from_dict(json.loads(read_text(folder.spec_file, TEXT, errors="replace")))
    except MALFORMED:
        raise InputError(f"{folder.spec_file} cannot be read; {way_out}") from None
    if held.id != spec.id:
        asked, there = spec.as_dict(), held.as_dict()
        fields = [name for name in RunSpec.__dataclass_fields__ if asked.get(name) != there.get(name)]
        differing = [f"{name} {_said(there, name)}, not {_said(asked, name)}" for name in fields]
        raise InputError(f"{folder.path} holds another run ({', '.join(differing)}); {way_out}")


def _can_be_written_again(folder: RunFolder, spec: RunSpec) -> bool:
    """Whether spec.json of an unfinished run cannot be read, but the sweep that the folder is in declares the run."""
    if folder.done_file.exists() or folder.path.name != spec.id or read_object(folder.spec_file):
        return False
    declared = read_object(SweepFolder(folder.path.absolute().parents[1]).sweep_file, TABLE).get("runs")
    return isinstance(declared, list) and any(isinstance(run, dict) and run.get("id") == spec.id for run in declared)


def _said(fields: Mapping[str, Any], name: str) -> object:
    return fields.get(name, "all others" if name == "train_envs" else "unsaid")


def _whole(name: str, value: Any, low: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise InputError(f"{name} is {value!r}, allowed is a whole number, at least {low}")
    return value

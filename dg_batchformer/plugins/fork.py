"""The algorithms of a fork of DomainBed, as ``FORKNAME/ALGORITHM``, with its networks, losses, optimizers and hparams.

Two dialects are recognised by the signature of ``update``, for every class: DomainBed's ``update(minibatches,
unlabeled)``, and SWAD's ``update(x, y, **kwargs)`` with lists of tensors and the number of the step.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from math import inf
from pathlib import Path
from typing import Any, ClassVar

import torch
import yaml
from torch import Tensor, nn

from dg_batchformer.algorithms import Algorithm
from dg_batchformer.algorithms.base import Metrics, Minibatches
from dg_batchformer.catalog.datasets import dataset_facts
from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.hparams import NOTHING, DeclaredHparams, HParam
from dg_batchformer.networks.batchformer import attach_batchformer, batchformers
from dg_batchformer.plugins.adopt import is_algorithm
from dg_batchformer.plugins.foreign import Checked, Foreign, Pasted, source_of
from dg_batchformer.plugins.isolation import IsolatedModules
from dg_batchformer.plugins.registry_space import registry_space
from dg_batchformer.spec.forks import CONFIG, MAX_CODE, Fork, code_digest, package_of
from dg_batchformer.storage.safe_read import read_text

_READ = re.compile(r"\bhparams(?:\[\s*['\"](\w+)['\"]\s*\]|\.(\w+)\b(?!\())")
_OTHER_UPDATE = re.compile(r"\balgorithm\.(update_\w+)\(")
_UPDATE_METHOD = "update_method"
_BACKBONES = ("auto", "resnet18", "resnet50")
_OURS = {"batch_size", "lr", "weight_decay", "backbone", "weights", "image_size"}  # always there


class Checkout:
    """The imported modules of a fork.

    Raises InputError if its code is not that of the digest, or it is not a fork of DomainBed.
    """

    def __init__(self, fork: Fork) -> None:
        if code_digest(fork.folder) != fork.digest:
            raise InputError(
                f"the code of the fork {fork.folder} is not that of the run, {fork.digest}: restore it, or name it "
                f"without the digest, fork:{fork.folder}, for new runs"
            )
        package = package_of(fork.folder)
        self.fork, self.modules = fork, IsolatedModules(fork.folder, package)
        self.networks, self.registry, self.algorithms = (
            self.modules.load(f"{package.name}.{part}") for part in ("networks", "hparams_registry", "algorithms")
        )
        if not all(hasattr(self.registry, name) for name in ("default_hparams", "random_hparams")):
            raise InputError(f"{self.registry.__file__} has no default_hparams and random_hparams, as DomainBed's has")
        self.config = _single_values(fork.folder / CONFIG)
        self.loops = _texts([package / "trainer.py", package / "scripts" / "train.py", *fork.folder.glob("*.py")])
        self.reads = _read_names(_texts([*package.glob("networks.py"), *package.glob("networks/*.py")]))
        self._let_attend()

    def classes(self) -> dict[str, type]:
        """Return the classes of algorithms by name: those in ALGORITHMS, or all where there is no such list."""
        listed = getattr(self.algorithms, "ALGORITHMS", None)
        given = {name: getattr(self.algorithms, name, None) for name in listed or vars(self.algorithms)}
        return {name: value for name, value in given.items() if isinstance(value, type) and is_algorithm(value)}

    def _let_attend(self) -> None:
        """Patch whatever builds a featurizer to attach BatchFormer if the hparams ask for it."""
        patched: dict[int, Any] = {}
        for module in self.modules.modules.values():
            for name, build in list(vars(module).items()):
                if not (name.endswith("Featurizer") and (inspect.isfunction(build) or inspect.isclass(build))):
                    continue
                if build.__module__ not in self.modules.modules:
                    continue
                if id(build) not in patched:
                    patched[id(build)] = _attending(build)
                setattr(module, name, patched[id(build)])


def offered(fork: Fork) -> dict[str, type[Algorithm]]:
    """Import a fork and return its algorithms by name; raise InputError if it has none."""
    checkout = Checkout(fork)
    with checkout.modules.active():
        found = {f"{fork.name}/{name}": _adopt(checkout, name, written) for name, written in checkout.classes().items()}
    if not found:
        raise InputError(f"{checkout.algorithms.__file__} defines no algorithm, a class with update and predict")
    return found


def _adopt(checkout: Checkout, name: str, written: type) -> type[Algorithm]:
    """Return an algorithm that uses a class of a fork, which is not modified."""
    facts = {"__module__": written.__module__, "__doc__": inspect.getdoc(written), "written": written}
    others = tuple(dict.fromkeys(other for other in _OTHER_UPDATE.findall(checkout.loops) if hasattr(written, other)))
    read = _read_names(source_of(written)) | checkout.reads
    own = {"name": name, "checkout": checkout, "other_updates": others, "read": read}
    return type(f"{checkout.fork.name}/{name}", (_Forked,), {**facts, **own})


class _InCheckout(Foreign):
    """An instance of a class of a fork, whose code runs with the modules of its checkout.

    Attributes:
        checkout: of the fork.
        other_updates: methods that the fork's own loop calls instead of ``update``, for some algorithms and steps.

    """

    registered = False
    checkout: ClassVar[Checkout]
    other_updates: ClassVar[tuple[str, ...]]

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        call = _dialect(type(self).__name__, self.written)
        method, steps = self._update_method(hparams.get(_UPDATE_METHOD, ""))
        with self.checkout.modules.active():
            super().__init__(input_shape, num_classes, num_domains, hparams)
        self.call, self.method, self.steps = call, method, steps
        self.input_shape, self.num_classes, self.step = input_shape, num_classes, 0

    def _update_method(self, given: str) -> tuple[str, tuple[float, float]]:
        """Parse METHOD or METHOD:FIRST-LAST into a method and the steps at which it replaces ``update``."""
        if not self.other_updates:
            return "update", (0, inf)
        found = re.fullmatch(r"(\w+)(?::(\d+)-(\d+))?", given)
        if found is None or found[1] not in ("update", *self.other_updates):
            others = " and ".join(self.other_updates)
            raise InputError(
                f"{type(self).__name__}: for some algorithms and steps, the fork's own loop calls {others} instead of "
                f"update; set hparam {_UPDATE_METHOD} to update, {self.other_updates[0]}, or "
                f"{self.other_updates[0]}:100-150 for these steps only, got {given!r}"
            )
        return found[1], (float(found[2] or 0), float(found[3] or inf))

    def begin_update(self, step: int, steps: int) -> None:
        super().begin_update(step, steps)
        self.step = step

    def materialize(self, step: int) -> None:
        """Take updates on empty images, as only updates create some parts, such as copies of networks.

        Besides the first step, these are the steps that hparams name, at which some methods build another optimizer.
        """
        device = next(self.parameters()).device
        y = (torch.arange(self.hparams["batch_size"], device=device) % self.num_classes).repeat(self.streams)
        x = torch.zeros(len(y), *self.input_shape, device=device)
        named = {value for value in self.hparams.values() if isinstance(value, int)}
        for at in sorted({0, *(value for value in named if 0 < value < step)}):
            self.step = at
            self.update([(x, y)] * self.num_domains)

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        first, last = self.steps
        method = getattr(self.foreign, self.method if first <= self.step <= last else "update")
        with self.checkout.modules.active():
            metrics = self.call(method, minibatches, unlabeled, self.step)
        self.step += 1
        return metrics

    def predict(self, x: Tensor) -> Tensor:
        with self.checkout.modules.active():
            return super().predict(x)


class _Forked(Checked, Pasted, _InCheckout):
    """An algorithm of a fork.

    Attributes:
        name: in the fork.
        read: names of hparams that the class and the networks read.

    """

    registered = False
    name: ClassVar[str]
    read: ClassVar[frozenset[str]]

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        """Return the hparams of the fork's registry, with the defaults of its config.yaml, and those that it reads."""
        with cls.checkout.modules.active():
            space = registry_space(cls.checkout.registry, cls.name, dataset, "the fork's")
        for name in sorted(cls.read & cls.checkout.config.keys()):
            value = cls.checkout.config[name]
            space[name] = replace(space[name], default=value) if name in space else HParam(value, about=CONFIG)
        for name in sorted(cls.read - space.keys() - _OURS):
            space[name] = _Undeclared("", about="read by the fork, but declared nowhere")
        if dataset_facts(dataset).small and "freeze_bn" in space:
            space["freeze_bn"] = HParam(False, about="the fork's; its networks for small images have random weights")
        choices = _BACKBONES if "resnet18" in space else ("auto",)
        space["backbone"] = HParam("auto", about="as the fork builds it; auto: by shape", choices=choices)
        if cls.other_updates:
            space[_UPDATE_METHOD] = HParam(
                "", about="called in place of update: METHOD, or METHOD:100-150 at these steps"
            )
        return space

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        space = type(self).search_space("PACS")
        self._check_networks(hparams, space)
        missing = {name for name, hparam in space.items() if isinstance(hparam, _Undeclared) and not hparams.get(name)}
        values = {name: value for name, value in hparams.items() if name not in missing}
        if hparams.get("weights", "none") == "none" and "pretrained" in values:
            values["pretrained"] = False
        theirs = _ForkHparams(values, type(self).__name__)
        super().__init__(tuple(input_shape), num_classes, num_domains, theirs)

    def _check_networks(self, hparams: Mapping[str, Any], space: Mapping[str, HParam]) -> None:
        """Raise InputError for networks that the fork does not build."""
        name, backbone, weights = type(self).__name__, hparams.get("backbone", "auto"), hparams.get("weights", "none")
        known = (
            "none",
            "imagenet_v1",
            *(["ram_in1k"] if backbone == "resnet50" and "resnet50_augmix" in space else []),
        )
        if backbone != "auto" and weights not in known:
            raise InputError(f"{name} cannot build {backbone} with weights {weights}; it has {', '.join(known)}")
        if hparams.get("freeze", NOTHING) != NOTHING:
            raise InputError(
                f"{name} builds its own networks, so freeze {hparams['freeze']} would do nothing; leave it out"
            )

    def check_pairing(self) -> None:
        with self.checkout.modules.active():
            super().check_pairing()


class _ForkHparams(DeclaredHparams):
    """The hparams of a run as a fork gets them: its code reads them as items and as attributes."""

    def __missing__(self, name: str) -> Any:
        raise InputError(
            f"{self.algorithm} reads the hparam {name!r}, which neither the fork's registry nor its {CONFIG} has; "
            f"if a script of the fork sets it, give it here, as --set {name}=VALUE"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]


@dataclass(frozen=True)
class _Undeclared(HParam):
    """A hparam of unknown type, which has no value unless it is given."""

    def parse(self, name: str, given: object) -> bool | int | float | str:
        if not isinstance(given, bool | int | float | str):
            raise InputError(f"hparam {name} must be a single value, got {given!r:.100}")
        return given


_Call = Callable[[Callable[..., Any], Minibatches, list[Tensor] | None, int], Any]


def _dialect(name: str, written: Any) -> _Call:
    """Return how to call the update methods of a class, by the signature of ``update``; raise InputError for others."""
    signature = inspect.signature(written.update)
    if {"x", "y"} <= signature.parameters.keys() and _binds(signature, x=[], y=[], step=0):
        if extra := ", ".join(getattr(written, "transforms", None) or ()):
            raise InputError(f"{name} needs more views of every image ({extra}), which batches here do not have")
        return _as_in_swad
    if "y" not in signature.parameters and _binds(signature, []):
        return _as_in_domainbed if _binds(signature, [], None) else _without_unlabeled
    raise InputError(
        f"{name} has update{signature}, which is neither DomainBed's update(minibatches, unlabeled) nor SWAD's "
        "update(x, y, **kwargs)"
    )


def _as_in_swad(update: Callable[..., Any], minibatches: Minibatches, _: list[Tensor] | None, step: int) -> Any:
    return update(x=[x for x, _ in minibatches], y=[y for _, y in minibatches], step=step)


def _as_in_domainbed(
    update: Callable[..., Any], minibatches: Minibatches, unlabeled: list[Tensor] | None, step: int
) -> Any:
    return update(minibatches, unlabeled)


def _without_unlabeled(update: Callable[..., Any], minibatches: Minibatches, _: list[Tensor] | None, step: int) -> Any:
    return update(minibatches)


def _binds(signature: inspect.Signature, *given: Any, **named: Any) -> bool:
    try:
        signature.bind(None, *given, **named)  # None: self
    except TypeError:
        return False
    return True


def _attending(build: Any) -> Any:
    """Return a builder of featurizers, or patch a class of them, to attach BatchFormer if the hparams ask for it."""
    if isinstance(build, type):
        build.__init__ = _then_attach(build.__init__, lambda given, _: given["self"], build)  # type: ignore[misc]
        return build
    return _then_attach(build, lambda _, built: built)


def _then_attach(
    build: Callable[..., Any], built_by: Callable[..., Any], kind: type | None = None
) -> Callable[..., Any]:
    """Return ``build``, followed by attaching BatchFormer to the featurizer that it builds."""
    signature = inspect.signature(build)

    @wraps(build)
    def attending(*args: Any, **named: Any) -> Any:
        returned = build(*args, **named)
        given = signature.bind(*args, **named).arguments
        featurizer = built_by(given, returned)
        hparams = given.get("hparams", {})
        is_whole = isinstance(featurizer, nn.Module) and hasattr(featurizer, "n_outputs")
        if "bf_layers" in hparams and is_whole and kind in (None, type(featurizer)) and not batchformers(featurizer):
            attach_batchformer(featurizer, hparams, given.get("input_shape", ()))
        return returned

    return attending


def _single_values(file: Path) -> dict[str, Any]:
    """Return the entries of a YAML file that are single values; none if there is no such file."""
    if not file.is_file():
        return {}
    try:
        content = yaml.safe_load(read_text(file, MAX_CODE))
    except (yaml.YAMLError, *MALFORMED) as error:
        raise InputError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    entries = content.items() if isinstance(content, dict) else ()
    return {name: value for name, value in entries if isinstance(value, bool | int | float | str)}


def _texts(files: Iterable[Path]) -> str:
    return "\n".join(read_text(file, MAX_CODE, errors="replace") for file in files if file.is_file())


def _read_names(source: str) -> frozenset[str]:
    """Return the names of hparams that source code reads."""
    return frozenset(item or attribute for item, attribute in _READ.findall(source))

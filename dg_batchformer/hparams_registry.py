"""Resolution of the hparams of a run, with random draws as in DomainBed.

Precedence: default < dataset rule < protocol < random draw < value set by the user.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dg_batchformer.algorithms import get_algorithm_class
from dg_batchformer.catalog.datasets import DatasetFacts, dataset_facts
from dg_batchformer.errors import InputError, unknown
from dg_batchformer.hparams import HParam, Hparams
from dg_batchformer.networks.backbones import BACKBONE, backbone_for
from dg_batchformer.networks.featurizer import featurizer_search_space, settle_featurizer
from dg_batchformer.optim.recipe import recipe_search_space
from dg_batchformer.seeds import seed_hash
from dg_batchformer.spec.protocol import Protocol
from dg_batchformer.spec.protocols import DEFAULT_PROTOCOL, get_protocol
from dg_batchformer.spec.run import RunSpec

_SPELLINGS = ("resnet18", "resnet50_augmix")  # DomainBed's, of backbone and weights
_NOT_HERE = ("vit", "dinov2", "vit_attn_tune")


def default_hparams(algorithm: str, dataset: str, *, protocol: str = DEFAULT_PROTOCOL) -> Hparams:
    """Return the defaults of a composed algorithm on a dataset."""
    return _values(algorithm, dataset_facts(dataset), protocol, {}, None)


def random_hparams(algorithm: str, dataset: str, seed: int, *, protocol: str = DEFAULT_PROTOCOL) -> Hparams:
    """Return the random draw of a seed, with the values of DomainBed's ``random_hparams``."""
    return _values(algorithm, dataset_facts(dataset), protocol, {}, seed)


def resolve_hparams(spec: RunSpec) -> Hparams:
    """Return the hparams of a run; raise InputError for unknown names or invalid values."""
    seed = None if spec.hparams_seed == 0 else seed_hash(spec.hparams_seed, spec.trial_seed)
    return _values(spec.algorithm, spec.facts, spec.protocol, spec.hparams, seed)


def search_space(algorithm: str, dataset: str, *, protocol: str = DEFAULT_PROTOCOL) -> dict[str, HParam]:
    """Return every hparam of a composed algorithm on a dataset, with the protocol's defaults and draws."""
    return _space(algorithm, dataset_facts(dataset), get_protocol(protocol), {})


def _space(algorithm: str, facts: DatasetFacts, rules: Protocol, given: Mapping[str, Any]) -> dict[str, HParam]:
    """Return the space of ``search_space``; a given backbone or image size can change which hparams exist."""
    defaults = rules.hparam_defaults(facts)
    common = {**(_domainbed_space() if rules.domainbed_names else {}), **_common_space(facts), **recipe_search_space()}
    chosen = {"backbone": "auto", **defaults, **given}
    shape = facts.shape
    if "image_size" in common:
        size = common["image_size"].parse("image_size", chosen.get("image_size", common["image_size"].default))
        shape = (3, int(size), int(size))
    backbone = backbone_for(str(BACKBONE.parse("backbone", chosen["backbone"])), shape)
    space = {
        **common,
        **featurizer_search_space(backbone, shape),
        **get_algorithm_class(algorithm).search_space(facts.name),
    }
    space.update({name: hparam for name, hparam in rules.hparam_space(facts).items() if name in space})
    for name, default in defaults.items():
        if name in space and space[name].allows(default):
            space[name] = replace(space[name], default=space[name].parse(name, default))
    draws = rules.hparam_draws(facts)
    return {name: replace(hparam, draw=draws.get(name)) for name, hparam in space.items()} if draws else space


def _values(algorithm: str, facts: DatasetFacts, protocol: str, given: Mapping[str, Any], seed: int | None) -> Hparams:
    rules = get_protocol(protocol)
    meant = _without_domainbed_booleans(given, rules.hparam_defaults(facts))
    space = _space(algorithm, facts, rules, meant)
    for name in meant:
        if name not in space:
            raise unknown(f"hparam of {algorithm} on {facts.name}:", name, space)
    drawn = {name: hparam.default if seed is None else hparam.sample(name, seed) for name, hparam in space.items()}
    values: Hparams = {**drawn, **{name: space[name].parse(name, value) for name, value in meant.items()}}
    _refuse_disagreement(given, values)
    size = values.get("image_size")
    shape = facts.shape if size is None else (3, size, size)
    backbone = backbone_for(values["backbone"], shape)
    values = settle_featurizer(backbone, shape, values, gives_freeze="freeze" in given)
    return {**values, **(_domainbed_booleans(values) if "resnet18" in space else {})}


def _common_space(facts: DatasetFacts) -> dict[str, HParam]:
    """Return the hparams of every run; draws are as in DomainBed, where 28 px datasets have their own."""
    small, low, high = facts.small, 3, 9 if facts.small else 5 if facts.name == "DomainNet" else 5.5
    space = {
        "lr": HParam(
            1e-3 if small else 5e-5,
            lambda rng: 10 ** (rng.uniform(-4.5, -2.5) if small else rng.uniform(-5, -3.5)),
            "learning rate",
            low=0,
        ),
        "weight_decay": HParam(0.0, None if small else (lambda rng: 10 ** rng.uniform(-6, -2)), "weight decay", low=0),
        "batch_size": HParam(
            64 if small else 32,
            lambda rng: 2 ** rng.uniform(low, high),
            "images per training environment",
            low=2,
        ),
        "class_balanced": HParam(False, about="sample the classes of an environment equally often"),
        "nonlinear_classifier": HParam(False, about="three layers instead of a linear classifier"),
        "init": HParam("none", about="weights that draws share, for soups: none, linear_probe, or a file"),
    }
    if facts.folder and facts.is_photographs:
        space["image_size"] = HParam(224, about="images are resized to this many pixels squared", low=8)
        space["data_augmentation"] = HParam(True, about="augment training images: crop, flip, colour, grey")
        space["feature_views"] = HParam(8, about="augmented views of an image that data_path features keeps", low=1)
        space["val_augment"] = HParam(False, about="augment the validation images too, as DomainBed does")
    return space


def _domainbed_space() -> dict[str, HParam]:
    """Return the hparams that every run of DomainBed's main branch has, including those without effect."""
    return {
        "data_augmentation": HParam(True, about="augment training images: crop, flip, colour, grey"),
        "resnet18": HParam(False, about="DomainBed's spelling of backbone"),
        "resnet50_augmix": HParam(True, about="DomainBed's spelling of backbone and weights"),
        "freeze_bn": HParam(False, about="keep pretrained BatchNorm statistics while training"),
        "resnet_dropout": HParam(0.0, lambda rng: rng.choice([0.0, 0.1, 0.5]), "dropout on pooled features"),
        "vit_dropout": HParam(0.0, lambda rng: rng.choice([0.0, 0.1, 0.5]), "read by no backbone here"),
        **{name: HParam(False, about="a backbone that is not here", choices=(False,)) for name in _NOT_HERE},
        "lars": HParam(False, about="read by no algorithm here", choices=(False,)),
        "linear_steps": HParam(500, about="read by no algorithm here"),
    }


def _domainbed_booleans(values: Hparams) -> Hparams:
    """Return DomainBed's booleans for a backbone and its weights."""
    if values["backbone"] == "auto":  # the network of DomainBed for small images, about which they say nothing
        return {}
    return {"resnet18": values["backbone"] == "resnet18", "resnet50_augmix": values["weights"] == "ram_in1k"}


def _without_domainbed_booleans(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Replace ``resnet18`` and ``resnet50_augmix`` with the backbone and weights that they stand for."""
    for name in _NOT_HERE:
        if given.get(name, False) is not False:
            raise InputError(
                f"hparam {name} asks for DomainBed's DINOv2 backbone, which is not available here; set backbone, "
                "such as timm/vit_base_patch14_dinov2"
            )
    spelled = {name: given[name] for name in _SPELLINGS if name in given}
    for name, value in spelled.items():
        if not isinstance(value, bool):
            raise InputError(f"hparam {name} must be true or false, got {value!r}")
    kept = {name: value for name, value in given.items() if name not in (*_SPELLINGS, *_NOT_HERE)}
    return {**_meant(spelled, defaults), **kept}


def _meant(spelled: Mapping[str, bool], defaults: Mapping[str, Any]) -> dict[str, str]:
    if all(spelled.get(name) for name in _SPELLINGS):
        raise InputError("hparams resnet18 and resnet50_augmix are both true, but name different backbones; keep one")
    if spelled.get("resnet18"):
        return {"backbone": "resnet18", "weights": "imagenet_v1"}
    if spelled.get("resnet50_augmix"):
        return {"backbone": "resnet50", "weights": "ram_in1k"}
    denied = {
        "resnet18": defaults.get("backbone") == "resnet18",
        "resnet50_augmix": defaults.get("weights") == "ram_in1k",
    }
    if any(denied[name] for name in spelled):
        return {"backbone": "resnet50", "weights": "imagenet_v1"}
    return {}


def _refuse_disagreement(given: Mapping[str, Any], values: Hparams) -> None:
    """Raise InputError if DomainBed's booleans contradict ``backbone`` and ``weights``."""
    says = {"resnet18": values["backbone"] == "resnet18", "resnet50_augmix": values["weights"] == "ram_in1k"}
    for name, means in says.items():
        if name in given and given[name] is not means:
            raise InputError(
                f"hparams contradict: {name} is {str(given[name]).lower()}, but backbone is {values['backbone']} "
                f"with weights {values['weights']}; give one of the two"
            )

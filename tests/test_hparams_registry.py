import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from support import resolved

from dg_batchformer.algorithms import ALGORITHMS
from dg_batchformer.catalog.datasets import DOMAINBED_ORDER
from dg_batchformer.catalog.wrappers import wrapper_names
from dg_batchformer.errors import InputError
from dg_batchformer.hparams_registry import default_hparams, random_hparams, resolve_hparams
from dg_batchformer.networks.tuning import tuning_search_space
from dg_batchformer.optim.recipe import recipe_search_space
from dg_batchformer.registry import WRAPPERS
from dg_batchformer.seeds import seed_hash

GOLDEN = json.loads((Path(__file__).parent / "data" / "domainbed_golden.json").read_text())
OURS = {"backbone", "weights", "freeze", "init", "image_size", "feature_views", "val_augment"}
OURS |= {*recipe_search_space(), *tuning_search_space()}


def _same(ours: dict, theirs: dict) -> None:
    assert {name: value for name, value in ours.items() if name not in OURS} == theirs


@pytest.mark.parametrize("dataset", GOLDEN["default"])
@pytest.mark.parametrize("algorithm", DOMAINBED_ORDER)
def test_defaults_are_domainbeds(algorithm, dataset):
    _same(default_hparams(algorithm, dataset, protocol="domainbed-2024"), GOLDEN["default"][dataset][algorithm])


@pytest.mark.parametrize("case", GOLDEN["random"])
@pytest.mark.parametrize("algorithm", DOMAINBED_ORDER)
def test_random_draws_are_domainbeds_bit_for_bit(algorithm, case):
    dataset, hparams_seed, trial_seed = re.fullmatch(r"(\w+)\|hparams_seed=(\d+)\|trial_seed=(\d+)", case).groups()
    seed = seed_hash(int(hparams_seed), int(trial_seed))

    _same(random_hparams(algorithm, dataset, seed, protocol="domainbed-2024"), GOLDEN["random"][case][algorithm])


def test_a_run_draws_by_its_hparams_seed_and_trial_and_given_values_take_precedence():
    spec = resolved(dataset="PACS", hparams_seed=1, trial_seed=0, hparams={"batch_size": 7})

    hparams = resolve_hparams(spec)

    assert hparams["lr"] == 2.7028930742148706e-05
    assert hparams["batch_size"] == 7


def test_hparams_of_wrappers_are_not_drawn():
    plain, wrapped = (random_hparams(name, "PACS", 5) for name in ("CORAL", "SWAD+CORAL+BF"))

    assert {name: wrapped[name] for name in plain} == plain
    assert wrapped["bf_dropout"] == 0.5


def test_wrappers_share_no_hparam_with_what_they_wrap():
    own = {name: set(WRAPPERS[name].settings("PACS")) for name in WRAPPERS}
    for algorithm in ALGORITHMS:
        for wrapper, names in own.items():
            assert not names & set(default_hparams(algorithm, "PACS", protocol="domainbed-2024")), wrapper
    for one, other in combinations(WRAPPERS, 2):
        assert WRAPPERS[one].acts_on == WRAPPERS[other].acts_on or not own[one] & own[other]
    assert set(WRAPPERS) == set(wrapper_names())


def test_protocols_set_backbone_weights_and_batch_norm_on_photographs_only():
    assert default_hparams("ERM", "PACS")["weights"] == "imagenet_v1"
    assert default_hparams("ERM", "PACS")["freeze_bn"] is True
    assert default_hparams("ERM", "PACS", protocol="batchformer-2022")["backbone"] == "resnet18"
    assert default_hparams("ERM", "Shapes")["backbone"] == "auto"
    assert default_hparams("SWAD", "VLCS")["swad_tolerance_ratio"] == 0.2
    swad_draws = {random_hparams("ERM", "PACS", seed, protocol="swad-2021")["lr"] for seed in range(20)}
    assert swad_draws == {1e-5, 3e-5, 5e-5}


@pytest.mark.parametrize(
    ("given", "protocol", "backbone", "weights"),
    [
        ({"resnet18": True}, "domainbed-2024", "resnet18", "imagenet_v1"),
        ({"resnet50_augmix": False}, "domainbed-2024", "resnet50", "imagenet_v1"),
        ({"resnet50_augmix": True}, "domainbed-2020", "resnet50", "ram_in1k"),
        ({"resnet18": False}, "batchformer-2022", "resnet50", "imagenet_v1"),
        ({"resnet18": False}, "domainbed-2024", "resnet50", "ram_in1k"),
        ({"resnet18": True, "resnet50_augmix": False, "vit": False}, "domainbed-2020", "resnet18", "imagenet_v1"),
    ],
)
def test_domainbeds_booleans_are_spellings_of_a_backbone(given, protocol, backbone, weights):
    hparams = resolve_hparams(resolved(dataset="PACS", protocol=protocol, hparams=given))

    assert (hparams["backbone"], hparams["weights"]) == (backbone, weights)
    if protocol == "domainbed-2024":
        assert hparams["resnet18"] is (backbone == "resnet18")
        assert hparams["resnet50_augmix"] is (weights == "ram_in1k")


def test_resolved_hparams_of_any_backbone_resolve_to_themselves():
    given = {"backbone": "efficientnet_lite0", "weights": "none"}
    spec = resolved(dataset="PACS", protocol="domainbed-2024", hparams=given)
    hparams = resolve_hparams(spec)

    assert hparams["resnet50_augmix"] is False
    assert resolve_hparams(replace(spec, hparams=hparams)) == hparams


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"resnet18": True, "backbone": "resnet50"}, "resnet18 is true, but backbone is resnet50"),
        ({"resnet18": True, "resnet50_augmix": True}, "name different backbones; keep one"),
        ({"vit": True}, "DINOv2"),
        ({"weights": "none"}, "freeze_bn with random weights"),
        ({"weights": "imagenet_v2"}, "it can be none, imagenet_v1, ram_in1k"),
        ({"backbone": "resnet19"}, "did you mean 'resnet18'"),
        ({"bf_layers": 2}, "unknown hparam of ERM on PACS: 'bf_layers'"),
        ({"backbone": "mlp"}, "takes vectors"),
    ],
)
def test_contradictory_hparams_are_refused_with_a_remedy(given, message):
    with pytest.raises(InputError, match=message):
        resolve_hparams(resolved(dataset="PACS", hparams=given))


YU = json.loads((Path(__file__).parent / "data" / "yu_2024_draws.json").read_text())["draws"]
OF_ALGORITHM = {
    "Fishr": ("lambda", "penalty_anneal_iters", "ema"),
    "RSC": ("rsc_f_drop_factor", "rsc_b_drop_factor"),
    "IRM": ("irm_lambda", "irm_penalty_anneal_iters"),
    "GroupDRO": ("groupdro_eta",),
    "CORAL": ("mmd_gamma",),
    "Mixup": ("mixup_alpha",),
    "Fish": ("meta_lr",),
    "SagNet": ("sag_w_adv",),
}


@pytest.mark.parametrize("algorithm", OF_ALGORITHM)
def test_draws_of_yu_2024_are_those_of_its_release_and_nothing_else_is_drawn(algorithm):
    drawn = ("lr", "weight_decay", "batch_size", *OF_ALGORITHM[algorithm])
    defaults = default_hparams(algorithm, "PACS", protocol="yu-2024")

    for seed, theirs in YU.items():
        ours = random_hparams(algorithm, "PACS", int(seed), protocol="yu-2024")
        assert ours == {**defaults, **{name: theirs[name] for name in drawn}}
    assert len(YU) == 50

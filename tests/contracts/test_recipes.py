"""Every algorithm follows every recipe: finite, exactly resumable, and only what is named moves.

Recipes take turns over algorithms and wrappers; ``make test-all`` runs the product.
"""

import json
from functools import cache

import pytest
import torch
from support import TRAINED, make_algorithm, make_minibatches, quick_spec, run_quickly
from torch.testing import assert_close

from dg_batchformer.networks import Featurizer
from dg_batchformer.storage.folders import RunFolder
from dg_batchformer.training import checkpoint
from dg_batchformer.training.loop import seed_everything

STEPS = 6
RECIPES = {
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine", "warmup_steps": 2, "tune": "norms"},
    "sgd": {"optimizer": "sgd", "schedule": "step", "gradient_clip": 1.0, "label_smoothing": 0.1, "tune": "bias"},
    "lp_ft": {"tune": "head_then_all", "head_steps": 3, "schedule": "linear", "head_lr_scale": 3.0},
    "last": {"tune": "stages:1", "layer_decay": 0.5, "gradient_clip": 0.5},
}
MOVES = {"adamw": "layers.1.1", "sgd": ".bias", "lp_ft": "", "last": "layers.1"}  # part of the names that may move
WRAPPED = {"adamw": "{}", "sgd": "{}+BF", "lp_ft": "SWAD+{}", "last": "SMA+{}+BF"}


def _cases():
    for turn, name in enumerate(TRAINED):
        for place, recipe in enumerate(RECIPES):
            quick = (turn + place) % len(RECIPES) == 0
            marks = [] if quick else [pytest.mark.exhaustive]
            yield pytest.param(WRAPPED[recipe].format(name), recipe, marks=marks, id=f"{name}-{recipe}")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    @cache
    def file():
        path = tmp_path_factory.mktemp("weights") / "tiny.pt"
        torch.save(Featurizer((3, 32, 32), {"backbone": "tiny"}).state_dict(), path)
        return str(path)

    return file()


def _train(algorithm, first, last):
    for step in range(first, last):
        seed_everything(step)
        algorithm.begin_update(step, STEPS)
        metrics = algorithm.update(make_minibatches(seed=step, n=2 if "ARM" in type(algorithm).__name__ else 4))
        assert all(torch.isfinite(torch.as_tensor(value)) for value in metrics.values())


@pytest.mark.parametrize(("name", "recipe"), list(_cases()))
def test_a_recipe_moves_what_it_names_and_resumes_exactly(name, recipe, weights, tmp_path):
    given = {"lr": 1e-2, **RECIPES[recipe]}
    if recipe != "lp_ft":  # the others keep part of the weights, so they need some
        given["weights"] = weights
    if "NDCL" in name:  # has a loss of its own
        given.pop("label_smoothing", None)
    algorithm, fresh = make_algorithm(name, **given), make_algorithm(name, seed=1, **given)
    featurizer = [n for n, _ in algorithm.named_parameters() if "featurizer.layers" in n or "network.0.layers" in n]
    before = {n: p.detach().clone() for n, p in algorithm.named_parameters() if n in featurizer}
    _train(algorithm, 0, 4)

    checkpoint.save(tmp_path / "c.pt", checkpoint.capture(algorithm))
    checkpoint.restore(fresh, checkpoint.load(tmp_path / "c.pt", torch.device("cpu")))
    for one in (algorithm, fresh):
        _train(one, 4, STEPS)

    assert_close(algorithm.state_dict(), fresh.state_dict(), rtol=0, atol=0)
    moved = {n for n, p in algorithm.named_parameters() if n in before and not torch.equal(p, before[n])}
    assert all(MOVES[recipe] in n for n in moved)


def test_the_first_phase_of_head_then_all_is_a_linear_probe(weights):
    given = {"weights": weights, "lr": 1e-2, "schedule": "cosine"}
    probe = make_algorithm("ERM+BF", tune="head", **given)
    both = make_algorithm("ERM+BF", tune="head_then_all", head_steps=4, **given)
    start = both.predictor[0].layers[1][0].weight.detach().clone()

    for one in (probe, both):
        _train(one, 0, 4)
    assert_close(probe.state_dict(), both.state_dict(), rtol=0, atol=0)

    _train(both, 4, 5)
    assert not torch.equal(both.predictor[0].layers[1][0].weight, start)


def test_records_and_log_say_what_trains(tmp_path):
    spec = quick_spec(hparams={"optimizer": "adamw", "head_lr_scale": 10.0}, steps=2)

    run_quickly(spec, tmp_path)

    [*_, last] = RunFolder(tmp_path).records_file.read_text().splitlines()
    featurizer, head = json.loads(last)["parameter_groups"]
    assert (featurizer["part"], head["part"]) == ("featurizer", "head")
    assert head["lr"] == 10 * featurizer["lr"]
    assert "optimizer, head: " in RunFolder(tmp_path).log_file.read_text()

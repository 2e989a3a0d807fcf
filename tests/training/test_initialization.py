"""Initial weights that runs share."""

import pytest
import torch
from support import TRAINED, make_algorithm, make_minibatches, quick_spec, run_quickly
from torch import nn
from torch.testing import assert_close

from dg_batchformer.errors import InputError
from dg_batchformer.training.initialization import fit_classifier, weight_files


@pytest.mark.parametrize("base", TRAINED)
def test_any_composed_algorithm_predicts_from_the_weights_it_is_given(base):
    given = make_algorithm(base, dataset="Toy", seed=1)
    algorithm = make_algorithm(f"SWAD+{base}+BF", dataset="Toy")
    x = make_minibatches(dataset="Toy")[0][0]

    algorithm.begin_from(given.predictor.state_dict())

    assert_close(algorithm.eval().predict(x), given.eval().predict(x))


def test_erm_plus_plus_starts_from_these_weights_too():
    given, algorithm = (make_algorithm("ERMPlusPlus", dataset="Toy", seed=seed) for seed in (1, 0))

    algorithm.begin_from(given.predictor.state_dict())

    assert_close(algorithm.network.state_dict(), given.network_sma.state_dict())


def test_a_probe_is_a_stationary_point_of_its_loss():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(200, 4, generator=generator), torch.randint(0, 3, (200,), generator=generator)
    classifier = nn.Linear(4, 3)

    fit_classifier(classifier, features, labels)

    nn.functional.cross_entropy(classifier(features), labels).backward()
    slope = classifier.weight.grad + 2e-4 * classifier.weight
    assert slope.abs().max() < 1e-3


def _begun(path, **given):
    """Return the identity and the weights of a run with lr 0."""
    hparams = {"init": "linear_probe", "lr": 0.0, **given.pop("hparams", {})}
    run_quickly(quick_spec(steps=1, hparams=hparams, **given), path)
    kept = torch.load(path / "model.pt", weights_only=True)
    return kept["init"], kept["predictor"]


def test_draws_and_wrappers_of_a_trial_share_a_probe_and_other_trials_do_not(tmp_path):
    first = _begun(tmp_path / "first")

    for name, given in {
        "draw": {"hparams_seed": 1},
        "wrapped": {"algorithm": "SWAD+BF"},
        "method": {"algorithm": "CORAL", "hparams_seed": 2},
    }.items():
        identity, weights = _begun(tmp_path / name, **given)
        assert identity == first[0]
        assert_close(weights, first[1])
    for name, given in {
        "trial": {"trial_seed": 1},
        "test": {"test_envs": (0,)},
        "none": {"hparams": {"init": "none"}},
    }.items():
        assert _begun(tmp_path / name, **given)[0] != first[0]


def test_algorithms_without_a_classifier_cannot_be_probed(tmp_path):
    with pytest.raises(InputError, match=r"init linear_probe needs a classifier .* which MTL does not have"):
        _begun(tmp_path, algorithm="MTL")


def test_named_weights_of_the_backbone_that_auto_means_are_no_file():
    assert weight_files({"backbone": "auto", "weights": "imagenet_v1"}, (3, 224, 224)) == {}

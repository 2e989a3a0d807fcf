"""Properties of every registered algorithm, plain and in every composition.

``make test`` runs every composition once, over settings that cover all pairs; ``make test-all`` runs the product.
"""

import json
from itertools import product
from typing import NamedTuple

import pytest
import torch
from support import TRAINED, make_algorithm, make_minibatches, quick_spec, run_quickly
from torch.nn import functional as F
from torch.testing import assert_close

from dg_batchformer.algorithms import ALGORITHMS, get_algorithm_class
from dg_batchformer.algorithms.base import Validation
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.networks.batchformer import batchformers
from dg_batchformer.storage.folders import RunFolder, State
from dg_batchformer.training import checkpoint
from dg_batchformer.training.loop import seed_everything

SHAPES = ("{}", "{}+BF", "SWAD+{}", "SWAD+{}+BF")
NAMES = [shape.format(name) for name in TRAINED for shape in SHAPES]
# A few updates must reach the effects of annealed penalties, warm-ups and alternation.
SOON = {
    "irm_penalty_anneal_iters": 3,
    "vrex_penalty_anneal_iters": 3,
    "ib_penalty_anneal_iters": 3,
    "rdm_penalty_anneal_iters": 3,
    "penalty_anneal_iters": 3,
    "eqrm_burnin_iters": 3,
    "iters": 3,
    "linear_steps": 2,
    "boda_start": 0.1,
    "gga_start_step": 3,
    "idag_anneal_steps": 2,
    "gga_trials": 2,
    "crt_lr": 1e-2,
    "linear_lr": 1e-3,
    "d_steps_per_g_step": 1,
}
# Methods that learn classes slowly by design, with weights that suffice in forty updates.
EAGER = {
    "CRT": {"crt_lr": 3e-2},
    "ADRMX": {"d_steps_per_g_step": 1, "lr": 3e-2},
    "ERMPlusPlus": {"linear_steps": 0},
    "IGA": {"penalty": 1e-3},
}


class Setting(NamedTuple):
    """A setting in which an algorithm is built and trained."""

    dataset: str  # images or vectors
    num_domains: int
    hparams_seed: int  # 0: the defaults


SETTINGS = [Setting(*values) for values in product(("Shapes", "Toy"), (2, 3), (0, 1))]
# All pairs of values in as few settings as there are shapes: the third value follows from the other two.
COVERING = [Setting("Shapes", 2, 1), Setting("Shapes", 3, 0), Setting("Toy", 2, 0), Setting("Toy", 3, 1)]


def _cases():
    """Return every name with every setting; the covering ones alternate the shapes of each algorithm."""
    cases = []
    for index, name in enumerate(TRAINED):
        for turn, shape in enumerate(SHAPES):
            covering = COVERING[(index + turn) % len(COVERING)]
            for setting in SETTINGS:
                full, marks = shape.format(name), [] if setting == covering else [pytest.mark.exhaustive]
                cases.append(pytest.param(full, setting, marks=marks, id="-".join(map(str, (full, *setting)))))
    return cases


def _base(name):
    return next(part for part in name.split("+") if part in ALGORITHMS)


def _make(name, *, dataset="Toy", hparams_seed=0, **given):
    own = get_algorithm_class(name).search_space(dataset)
    soon = {key: value for key, value in SOON.items() if key in own}
    if hparams_seed:
        soon |= {key: 1e-3 for key in ("lr", "lr_g") if key in own or key == "lr"}  # draws change nothing in float32
    return make_algorithm(name, dataset=dataset, hparams_seed=hparams_seed, **{**soon, **given})


def _updates(algorithm, count=6, *, dataset="Toy", **given):
    metrics = []
    for seed in range(count):
        seed_everything(seed)
        metrics.append(algorithm.update(make_minibatches(seed=seed, dataset=dataset, **given)))
    return metrics


def _assert_trains(algorithm, name, **given):
    parts = {"predictor": algorithm.predictor, "encoder": torch.nn.ModuleList(batchformers(algorithm))}
    before = {(part, n): p.detach().clone() for part in parts for n, p in parts[part].named_parameters()}

    metrics = _updates(algorithm, **given)

    for step in metrics:
        for value in step.values():
            assert not torch.is_tensor(value) or (value.ndim == 0 and not value.requires_grad)
            assert torch.isfinite(torch.as_tensor(value))
    still = [key for key in before if torch.equal(dict(parts[key[0]].named_parameters())[key[1]], before[key])]
    assert not still, f"never moved: {still}"
    assert ("BF" in name.split("+")) == bool(batchformers(algorithm))


@pytest.mark.parametrize(("name", "setting"), _cases())
def test_everything_trains(name, setting):
    dataset, num_domains, hparams_seed = setting
    n = 2 if name == "ARM" and dataset == "Shapes" else 6
    algorithm = _make(name, dataset=dataset, num_domains=num_domains, hparams_seed=hparams_seed)

    _assert_trains(algorithm, name, dataset=dataset, num_domains=num_domains, n=n)


@pytest.mark.parametrize("name", [name for name in TRAINED if name != "MLDG"])  # which is refused
def test_one_training_environment_is_enough(name):
    full = f"SWAD+{name}+BF"

    _assert_trains(_make(full, num_domains=1), full, num_domains=1)


def _equals_erm(name, *, dataset, num_domains=3, **hparams):
    algorithm, erm = (_make(each, dataset=dataset, num_domains=num_domains, **hparams) for each in (name, "ERM"))
    start = erm.predictor.state_dict()
    if algorithm.predictor.state_dict().keys() == start.keys():
        algorithm.begin_from(start)
    for one in (algorithm, erm):
        _updates(one, dataset=dataset, num_domains=num_domains)
    x = make_minibatches(dataset=dataset)[0][0]
    return torch.allclose(algorithm.predict(x), erm.predict(x), atol=1e-6)


@pytest.mark.parametrize("name", [name for name in TRAINED if name not in ("ERM", "MLDG")])
def test_a_method_that_equals_erm_on_one_training_environment_declares_it(name):
    is_erm = _equals_erm(name, dataset="Toy", num_domains=1)

    assert get_algorithm_class(f"SWAD+{name}+BF").has_nothing_to_compare(1) or not is_erm
    assert not get_algorithm_class(name).has_nothing_to_compare(2)


# These take fewer updates of the classifier, or restart its optimizer, so they do not equal ERM by the bit.
NEARLY_ERM = {"DANN", "CDANN", "IB_ERM"}


@pytest.mark.parametrize("name", [name for name in TRAINED if name not in ("ERM", "ARM")])  # ARM adds a channel
def test_a_method_that_equals_erm_on_frozen_features_declares_it(name, tmp_path):
    torch.save(make_algorithm("ERM", seed=3).featurizer.state_dict(), tmp_path / "weights.pth")
    frozen = {"freeze": "featurizer", "weights": str(tmp_path / "weights.pth")}

    is_erm = _equals_erm(name, dataset="Shapes", **frozen)

    assert get_algorithm_class(f"SWAD+{name}+BF").has_nothing_to_shape(frozen) == (is_erm or name in NEARLY_ERM)
    assert not get_algorithm_class(name).has_nothing_to_shape({"freeze": "layers.0", "tune": "all"})


@pytest.mark.parametrize("name", [shape.format(name) for name in TRAINED for shape in ("{}", "SWAD+{}+BF")])
def test_a_state_reloads_strictly_and_resumes_exactly(name, tmp_path):
    algorithm, fresh = _make(name), _make(name, seed=1)
    _updates(algorithm, 4)
    algorithm.observe(3, Validation(1.0, 0.5), None)

    checkpoint.save(tmp_path / "c.pt", checkpoint.capture(algorithm))
    checkpoint.restore(fresh, checkpoint.load(tmp_path / "c.pt", torch.device("cpu")))
    after = [_updates(one, 3) for one in (algorithm, fresh)]

    assert_close(after[0], after[1], rtol=0, atol=0)
    assert_close(algorithm.state_dict(), fresh.state_dict(), rtol=0, atol=0)
    for one in (algorithm, fresh):
        one.observe(6, Validation(0.9, 0.5), None)
        one.finalize([])
    assert_close(algorithm.predictor.state_dict(), fresh.predictor.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_predictions_depend_on_the_batch_only_if_a_method_declares_it(name):
    algorithm = _make(name, dataset="Shapes").eval()
    x = make_minibatches(n=3)[0][0]

    together, alone = algorithm.predict(x), algorithm.predict(x[:1])

    assert together.shape == (len(x), 7)
    assert torch.allclose(together[:1], alone, atol=1e-5) is not get_algorithm_class(name).batch_dependent


@pytest.mark.parametrize("name", [f"{name}{suffix}" for name in TRAINED for suffix in ("", "+BF")])
def test_the_loss_falls_on_separable_classes(name):
    algorithm = make_algorithm(  # before any penalty jumps
        name, dataset="Toy", **{"lr_g" if "DANN" in name else "lr": 1e-2, **EAGER.get(_base(name), {})}
    )
    minibatches = make_minibatches(n=12, dataset="Toy")
    x, y = (torch.cat([batch[i] for batch in minibatches]) for i in (0, 1))

    def loss():
        algorithm.eval()
        value = F.cross_entropy(algorithm.predict(x), y).item()
        algorithm.train()
        return value

    first = loss()
    for seed in range(40):
        seed_everything(seed)
        algorithm.update(minibatches)

    assert loss() < 0.85 * first


@pytest.mark.parametrize("name", ["DANN", "MTL"])
def test_random_hparams_train_and_are_recorded(name, tmp_path):
    spec = quick_spec(algorithm=f"SWAD+{name}+BF", hparams_seed=1, steps=3)

    assert run_quickly(spec, tmp_path) is State.DONE
    for line in RunFolder(tmp_path).records_file.read_text().splitlines():
        assert json.loads(line)["hparams"] == resolve_hparams(spec)

"""What every registered algorithm promises, plain and in every composition."""

import json

import pytest
import torch
from support import make_algorithm, make_minibatches, quick_spec, run_quickly
from torch.testing import assert_close

from dg_batchformer.algorithms import ALGORITHMS, get_algorithm_class
from dg_batchformer.algorithms.base import Validation
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.networks.batchformer import batchformers
from dg_batchformer.store import RunFolder, State
from dg_batchformer.training import checkpoint
from dg_batchformer.training.loop import seed_everything

SHAPES = ("{}", "{}+BF", "SWAD+{}", "SWAD+{}+BF")
NAMES = [shape.format(name) for name in ALGORITHMS for shape in SHAPES]
# Few updates must show what an annealed penalty, a warm-up or a rare turn does.
SOON = {
    "irm_penalty_anneal_iters": 3,
    "vrex_penalty_anneal_iters": 3,
    "ib_penalty_anneal_iters": 3,
    "rdm_penalty_anneal_iters": 3,
    "penalty_anneal_iters": 3,
    "eqrm_burnin_iters": 3,
    "iters": 3,
    "linear_steps": 2,
    "linear_lr": 1e-3,
}
# Where the classes are learned slowly by design: the weights with which they are learned in forty updates.
EAGER = {
    "ADRMX": {"d_steps_per_g_step": 1, "lr": 3e-2},
    "ARM": {"batch_size": 4},
    "ERMPlusPlus": {"linear_steps": 0},
    "IGA": {"penalty": 1e-3},
}


def _make(name, **given):
    own = get_algorithm_class(name).search_space("Shapes")
    return make_algorithm(name, **{**{key: value for key, value in SOON.items() if key in own}, **given})


def _updates(algorithm, count=6, **given):
    metrics = []
    for seed in range(count):
        seed_everything(seed)
        metrics.append(algorithm.update(make_minibatches(seed=seed, **given)))
    return metrics


@pytest.mark.parametrize("dataset", ["Shapes", "Toy"])
@pytest.mark.parametrize("num_domains", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_everything_trains(name, num_domains, dataset):
    algorithm = _make(name, num_domains=num_domains, dataset=dataset)
    parts = {"predictor": algorithm.predictor, "encoder": torch.nn.ModuleList(batchformers(algorithm))}
    before = {(part, n): p.detach().clone() for part in parts for n, p in parts[part].named_parameters()}

    metrics = _updates(algorithm, num_domains=num_domains, dataset=dataset)

    for step in metrics:
        for value in step.values():
            assert not torch.is_tensor(value) or (value.ndim == 0 and not value.requires_grad)
            assert torch.isfinite(torch.as_tensor(value))
    still = [key for key in before if torch.equal(dict(parts[key[0]].named_parameters())[key[1]], before[key])]
    assert not still, f"never moved: {still}"
    assert ("BF" in name.split("+")) == bool(batchformers(algorithm))


@pytest.mark.parametrize("name", NAMES)
def test_a_state_reloads_strictly_and_goes_on_exactly(name, tmp_path):
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
def test_prediction_depends_on_the_batch_only_where_a_method_says_so(name):
    algorithm = _make(name).eval()
    x = make_minibatches()[0][0]

    together, alone = algorithm.predict(x), algorithm.predict(x[:1])

    assert together.shape == (len(x), 7)
    assert torch.allclose(together[:1], alone, atol=1e-5) is not get_algorithm_class(name).batch_dependent


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls_on_classes_that_can_be_told_apart(name):
    eager = EAGER.get(next(part for part in name.split("+") if part in ALGORITHMS), {})
    algorithm = make_algorithm(name, **{"lr_g" if "DANN" in name else "lr": 1e-2, **eager})  # before any penalty jumps
    minibatches = make_minibatches(n=12)
    x, y = (torch.cat([batch[i] for batch in minibatches]) for i in (0, 1))

    def loss():
        algorithm.eval()
        value = torch.nn.functional.cross_entropy(algorithm.predict(x), y).item()
        algorithm.train()
        return value

    first = loss()
    for seed in range(40):
        seed_everything(seed)
        algorithm.update(minibatches)

    assert loss() < 0.85 * first


@pytest.mark.parametrize("hparams_seed", [1, 2])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_random_hparams_train_and_are_recorded(name, hparams_seed, tmp_path):
    spec = quick_spec(algorithm=f"SWAD+{name}+BF", hparams_seed=hparams_seed, steps=3, hparams={"lr": 1e-3})

    assert run_quickly(spec, tmp_path) is State.DONE
    for line in RunFolder(tmp_path).records_file.read_text().splitlines():
        assert json.loads(line)["hparams"] == resolve_hparams(spec)

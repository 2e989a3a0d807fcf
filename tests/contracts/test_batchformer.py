"""Properties of every registered algorithm under BatchFormer: where twins count, and where they must not."""

from collections import Counter

import numpy as np
import pytest
import torch
from support import TRAINED, make_algorithm, make_minibatches
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.testing import assert_close

from dg_batchformer.algorithms import ALGORITHMS
from dg_batchformer.networks.base import FeaturizerModule
from dg_batchformer.networks.batchformer import batchformers, without_batchformer
from dg_batchformer.training.loop import seed_everything

# So that six updates cross every step at which something changes.
SOON = {
    "IRM": {"irm_penalty_anneal_iters": 3}, "VREx": {"vrex_penalty_anneal_iters": 3},
    "IB_ERM": {"ib_penalty_anneal_iters": 3}, "IB_IRM": {"ib_penalty_anneal_iters": 3, "irm_penalty_anneal_iters": 4},
    "RDM": {"rdm_penalty_anneal_iters": 3}, "Fishr": {"penalty_anneal_iters": 3}, "EQRM": {"eqrm_burnin_iters": 3},
    "TRM": {"iters": 0}, "ERMPlusPlus": {"linear_steps": 2}, "DANN": {"d_steps_per_g_step": 2},
    "CDANN": {"d_steps_per_g_step": 2}, "BoDA": {"boda_start": 0.1},
    "GGA": {"gga_start_step": 3, "gga_trials": 2}, "iDAG": {"idag_anneal_steps": 3},
}  # fmt: skip
# Functions of the risks of environments, which include both streams, as the docstrings say.
ON_RISKS = {"IRM", "VREx", "GroupDRO", "EQRM"}
# Metrics of plain rows, apart from penalties.
OF_PLAIN = {
    "DANN": ["disc_loss"], "CDANN": ["disc_loss"], "CAD": ["bn_loss"], "CondCAD": ["bn_loss"],
    "ADRMX": ["loss_disc"], "TRM": ["trm_loss"],
}  # fmt: skip


def _make(full, **hparams):
    base = next(name for name in full.split("+") if name in ALGORITHMS)
    return make_algorithm(full, dataset="Toy", **{**SOON.get(base, {}), **hparams})


def _update(algorithm, seed):
    seed_everything(seed)
    return algorithm.update(make_minibatches(dataset="Toy", seed=seed))


def _encoder(algorithm):
    return [parameter for layer in batchformers(algorithm) for parameter in layer.parameters()]


@pytest.mark.parametrize("full", [*(f"{name}+BF" for name in TRAINED), "SagNet+BFv2", "Transfer+BFv2"])
def test_the_encoder_takes_one_step_in_an_update_in_which_the_featurizer_learns(full):
    """A gradient of zero counts as a step: Adam still moves by its momentum."""
    v2 = full.endswith("v2")
    algorithm = make_algorithm(full) if v2 else _make(full)
    weights = {id(parameter) for parameter in _encoder(algorithm)}
    steps = Counter()

    def count(optimizer, arguments, keywords):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        steps[update] += any(id(parameter) in weights and parameter.grad is not None for parameter in parameters)

    handle = register_optimizer_step_pre_hook(count)
    try:
        for update in range(6):
            before = [parameter.detach().clone() for parameter in algorithm.inner.featurizer.parameters()]
            seed_everything(update)
            algorithm.update(make_minibatches(dataset="Shapes" if v2 else "Toy", seed=update))
            learns = not all(map(torch.equal, algorithm.inner.featurizer.parameters(), before))
            follows_a_clone = full == "Fish+BF"
            assert steps[update] == (learns and not follows_a_clone)
    finally:
        handle.remove()


@pytest.mark.parametrize("name", TRAINED)
def test_twins_of_weight_zero_leave_the_base_algorithm(name):
    plain, wrapped = _make(name), _make(f"{name}+BF", bf_loss_weight=1e-30, bf_dropout=0.0)

    for seed in range(6):
        assert_close(_update(wrapped, seed), _update(plain, seed), rtol=1e-4, atol=1e-5)

    assert wrapped.inner.streams == 2
    assert_close(wrapped.predictor.state_dict(), plain.predictor.state_dict(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in TRAINED if name not in ON_RISKS])
def test_penalties_are_those_of_the_base_algorithm_on_plain_rows(name):
    plain, wrapped = _make(name, lr=0.0), _make(f"{name}+BF", lr=0.0, bf_loss_weight=0.9)
    for seed in range(3 if name == "RDM" else 1):  # with other worst environments
        base, metrics = _update(plain, seed), _update(wrapped, seed)
        for key in [*(key for key in base if "penalty" in key and key != "IRM_penalty"), *OF_PLAIN.get(name, [])]:
            assert_close(metrics[key], base[key])


@pytest.mark.parametrize("name", sorted(ON_RISKS))
def test_methods_on_the_risks_of_environments_say_that_these_are_of_both_streams(name):
    assert "both streams" in " ".join(ALGORITHMS[name].__doc__.split())


def test_identical_environments_have_aligned_gradients():
    algorithm = _make("IGA+BF")

    metrics = algorithm.update(make_minibatches(dataset="Toy", num_domains=1) * 3)

    assert metrics["penalty"] < 1e-10


@pytest.mark.parametrize("name", ["ANDMask", "SANDMask"])
def test_masks_are_those_of_plain_rows_and_the_encoder_has_its_own(name):
    masks = {}
    for full in (name, f"{name}+BF"):
        algorithm = _make(full, tau=0.5)
        inner = getattr(algorithm, "inner", algorithm)
        mask, seen = inner.mask, []
        inner.mask = lambda gradients, mask=mask, seen=seen: seen.append(mask(gradients)) or seen[-1]
        _update(algorithm, 0)
        of_base = {id(parameter) for parameter in without_batchformer(inner.network).parameters()}
        masks[full] = [kept for kept, p in zip(seen, inner.network.parameters(), strict=True) if id(p) in of_base]
        of_encoder = [kept for kept, p in zip(seen, inner.network.parameters(), strict=True) if id(p) not in of_base]

    assert_close(masks[f"{name}+BF"], masks[name])
    assert len(of_encoder) == 12
    assert all(kept.any() for kept in of_encoder)


def test_selfreg_weighs_distances_by_the_risk_of_plain_rows():
    algorithm = make_algorithm("SelfReg+BF", dataset="Toy", lr=1e-2)
    minibatches = make_minibatches(dataset="Toy")
    for _ in range(20):
        algorithm.update(minibatches)
    x, y = (torch.cat([batch[part] for batch in minibatches]) for part in (0, 1))
    expected = F.cross_entropy(algorithm.predict(x), y).detach()
    algorithm.inner.risk = lambda logits, y, num_domains: 0.0 * logits.sum()
    algorithm.inner.dissimilarity = lambda z, logits, y: logits.new_ones(())

    loss = algorithm.update(minibatches)["loss"]

    assert loss < 1
    assert_close(loss, expected)


@pytest.mark.parametrize("full", [f"{name}{suffix}" for name in TRAINED if name != "IGA" for suffix in ("", "+BF")])
def test_no_gradient_is_read_after_another_forward_pass(full, monkeypatch):
    """The next forward pass of a CUDA graph overwrites the gradients of its backward pass; IGA is never compiled."""
    expected = _make(full)
    for seed in range(2):
        _update(expected, seed)
    algorithm, returned, whole = _make(full), [], torch.autograd.grad

    def keep(*arguments, **keywords):
        gradients = whole(*arguments, **keywords)
        returned.extend(part for part in gradients if part is not None and not part.requires_grad)
        return gradients

    def overwrite(module, inputs):
        if isinstance(module, FeaturizerModule):
            stale = [*returned, *(p.grad for p in module.parameters() if p.grad is not None)]
            for gradient in stale:
                gradient.fill_(np.nan)
            returned.clear()

    monkeypatch.setattr(torch.autograd, "grad", keep)
    handle = register_module_forward_pre_hook(overwrite)
    try:
        for seed in range(2):
            _update(algorithm, seed)
    finally:
        handle.remove()

    assert_close(algorithm.predictor.state_dict(), expected.predictor.state_dict(), rtol=0, atol=0)

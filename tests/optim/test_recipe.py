"""Optimizers, schedules and clipping are PyTorch's; the defaults are Adam at a constant rate."""

import pytest
import torch
from support import make_algorithm, make_minibatches, resolved
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, lr_scheduler
from torch.testing import assert_close

from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.optim.recipe import Recipe

STEPS = 20
PYTORCH = {
    "constant": lambda optimizer, steps: lr_scheduler.ConstantLR(optimizer, 1.0),
    "cosine": lambda optimizer, steps: lr_scheduler.CosineAnnealingLR(optimizer, steps),
    "linear": lambda optimizer, steps: lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps),
    "step": lambda optimizer, steps: lr_scheduler.StepLR(optimizer, steps // 2, 0.1),
}


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("schedule", PYTORCH)
def test_schedules_are_pytorchs(schedule, warmup):
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler = PYTORCH[schedule](optimizer, STEPS - warmup)
    if warmup:
        rising = lr_scheduler.LinearLR(optimizer, 1 / warmup, 1.0, warmup - 1)
        scheduler = lr_scheduler.SequentialLR(optimizer, [rising, scheduler], [warmup])
    expected = []
    for _ in range(STEPS):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()

    recipe = Recipe(schedule=schedule, warmup_steps=warmup)

    assert_close([0.3 * recipe.lr_factor(step, STEPS) for step in range(STEPS)], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("name", "kind"), [("adam", Adam), ("adamw", AdamW), ("sgd", SGD)])
def test_every_optimizer_of_a_method_is_of_the_kind_asked_for(name, kind):
    algorithm = make_algorithm("DANN", dataset="Toy", optimizer=name, momentum=0.5)

    for optimizer in (algorithm.disc_opt, algorithm.gen_opt):
        assert type(optimizer) is kind
        assert optimizer.defaults.get("betas", (0.5, 0.9)) == (0.5, 0.9)
        assert optimizer.defaults.get("momentum", 0.5) == 0.5


def test_clones_and_restarts_step_at_the_learning_rate_of_the_update():
    for name in ("Fish", "IRM"):
        algorithm = make_algorithm(name, dataset="Toy", schedule="linear", optimizer="sgd", momentum=0.0, lr=0.1)
        before = [p.detach().clone() for p in algorithm.parameters()]
        moved = []
        for step in (0, 99):  # its Fish carries the state of the clones' optimizer on
            algorithm.begin_update(step, 100)
            algorithm.update(make_minibatches(dataset="Toy"))
            now = [p.detach().clone() for p in algorithm.parameters()]
            moved.append(max(float((a - b).abs().max()) for a, b in zip(before, now, strict=True)))
            before = now
        assert moved[1] < 0.05 * moved[0]


def test_gradients_are_clipped_to_a_norm():
    recipe = {"optimizer": "sgd", "momentum": 0.0, "lr": 1.0, "gradient_clip": 0.01}
    algorithm = make_algorithm("ERM", dataset="Toy", **recipe)
    before = torch.nn.utils.parameters_to_vector(algorithm.parameters()).clone()

    algorithm.update(make_minibatches(dataset="Toy"))

    moved = torch.nn.utils.parameters_to_vector(algorithm.parameters()) - before
    assert_close(moved.norm(), torch.tensor(0.01), rtol=1e-3, atol=0)


def test_label_smoothing_is_of_the_risk():
    algorithm = make_algorithm("BF", label_smoothing=0.3, bf_loss_weight=0.5).inner
    logits, y = torch.randn(8, 7), torch.arange(4).repeat(2)

    expected = F.cross_entropy(logits, y, label_smoothing=0.3)

    assert_close(algorithm.risk(logits, y), expected)


def test_a_scheduled_update_without_a_step_is_refused():
    algorithm = make_algorithm("ERM", dataset="Toy", warmup_steps=3)

    with pytest.raises(RuntimeError, match="begin_update"):
        algorithm.update(make_minibatches(dataset="Toy"))


def test_a_recipe_by_default_is_no_part_of_the_identity_and_of_no_draw():
    spec = resolved(dataset="PACS", hparams_seed=3)

    assert Recipe.of(resolve_hparams(spec)).of_optimizers == []
    assert not Recipe.of(resolve_hparams(spec)).acts_on_steps
    assert spec.id == resolved(dataset="PACS", hparams_seed=3, hparams={}).id

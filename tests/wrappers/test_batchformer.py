import pytest
import torch
from support import TRAINED, make_algorithm, make_minibatches
from torch.nn import functional as F
from torch.testing import assert_close

from dg_batchformer.algorithms import get_algorithm_class
from dg_batchformer.networks.batchformer import BatchFormer, batchformers, without_batchformer
from dg_batchformer.training.loop import seed_everything


@pytest.mark.parametrize("n", [5, 6])
def test_erm_bf_is_erm_on_features_and_attended_features_with_a_shared_classifier(n):
    algorithm, minibatches = make_algorithm("ERM+BF", bf_dropout=0.0), make_minibatches(n=n)
    x, y = (torch.cat([batch[i] for batch in minibatches]) for i in (0, 1))
    featurizer, classifier = algorithm.inner.featurizer, algorithm.inner.classifier
    z = without_batchformer(featurizer)(x)
    attended = featurizer.batchformer.layers[0](z.unsqueeze(1)).squeeze(1)
    logits = classifier(torch.cat([z, attended]))
    expected = F.cross_entropy(logits, torch.cat([y, y]))
    gradients = torch.autograd.grad(expected, list(algorithm.inner.network.parameters()))

    loss = algorithm.update(minibatches)["loss"]

    assert_close(loss, expected.detach())
    for parameter, gradient in zip(algorithm.inner.network.parameters(), gradients, strict=True):
        assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("base", TRAINED)
def test_weight_zero_gives_the_base_algorithm_bit_for_bit(base):
    states = []
    for name, hparams in ((base, {}), (f"{base}+BF", {"bf_loss_weight": 0.0, "bf_lr_scale": 0.0})):
        algorithm = make_algorithm(name, **hparams)
        for seed in range(3):
            seed_everything(seed)
            algorithm.update(make_minibatches(seed=seed))
        states.append(algorithm.predictor.state_dict())

    assert_close(states[0], states[1], rtol=0, atol=0)


def test_a_vanishing_weight_approaches_the_base_algorithm_through_the_twins():
    states = []
    for name, hparams in (("ERM", {}), ("ERM+BF", {"bf_loss_weight": 1e-6})):
        algorithm = make_algorithm(name, **hparams)
        algorithm.update(make_minibatches())
        states.append([parameter.grad for parameter in algorithm.predictor.parameters()])

    assert_close(states[0], states[1], rtol=1e-3, atol=1e-5)


def test_no_layers_give_doubled_cross_entropy_which_is_the_base_risk():
    plain, doubled = make_algorithm("ERM"), make_algorithm("ERM+BF", bf_layers=0)

    assert_close(doubled.update(make_minibatches())["loss"], plain.update(make_minibatches())["loss"])


def test_evaluation_of_a_sample_does_not_depend_on_its_batch():
    algorithm = make_algorithm("SWAD+CORAL+BF").eval()
    x = make_minibatches()[0][0]

    together, alone = algorithm.predict(x), torch.cat([algorithm.predict(row[None]) for row in x])

    assert_close(together, alone)


def test_pairing_is_undone_even_after_a_failing_update():
    algorithm = make_algorithm("ERM+BF")
    minibatches = make_minibatches()

    with pytest.raises(IndexError):
        algorithm.update([(x, y + 100) for x, y in minibatches])

    assert [layer.paired_rows for layer in batchformers(algorithm)] == [None]
    x = minibatches[0][0]
    assert len(algorithm.predict(x)) == len(x)


def test_predictor_keys_are_the_base_algorithms():
    plain, wrapped = make_algorithm("DANN"), make_algorithm("SWAD+DANN+BF")

    assert list(wrapped.predictor.state_dict()) == list(plain.predictor.state_dict())


def test_minibatches_of_unequal_size_are_refused():
    minibatches = make_minibatches()
    minibatches[1] = tuple(part[:4] for part in minibatches[1])

    with pytest.raises(ValueError, match=r"minibatches of equal size, got sizes \[4, 6\]"):
        make_algorithm("BF").update(minibatches)


def _encoder_moves(algorithm, seed):
    """Update once; return whether every parameter of the encoder changed."""
    parameters = [parameter for layer in batchformers(algorithm) for parameter in layer.parameters()]
    before = [parameter.detach().clone() for parameter in parameters]
    seed_everything(seed)
    algorithm.update(make_minibatches(seed=seed))
    return len(parameters) == 12 and not any(map(torch.equal, parameters, before))


@pytest.mark.parametrize("base", ["IRM", "VREx", "IB_ERM", "IB_IRM", "RDM"])
def test_the_encoder_is_still_trained_after_an_optimizer_reset(base):
    space = get_algorithm_class(base).search_space("Shapes")
    jumps = {name: 2 for name in space if name.endswith("penalty_anneal_iters")}
    algorithm = make_algorithm(f"{base}+BF", **jumps)
    optimizers = []
    for seed in range(5):
        assert _encoder_moves(algorithm, seed), f"not by update {seed}"
        optimizers.append(algorithm.inner.optimizer)

    assert len(jumps) > 0
    assert len(set(map(id, optimizers))) > 1, "no optimizer began anew"


@pytest.mark.parametrize("base", ["MLDG", "Fish"])
def test_the_encoder_is_trained_by_clones(base, monkeypatch):
    algorithm = make_algorithm(f"{base}+BF")
    [own] = batchformers(algorithm)
    attended = []
    whole = BatchFormer.forward
    monkeypatch.setattr(BatchFormer, "forward", lambda layer, z: (attended.append(layer), whole(layer, z))[1])

    assert all(_encoder_moves(algorithm, seed) for seed in range(3))

    assert len(attended) >= 3
    assert own not in attended  # a clone attends by its own copy

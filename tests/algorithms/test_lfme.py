import torch
from support import make_algorithm, make_minibatches
from torch.nn import functional as F
from torch.testing import assert_close


def test_the_target_follows_the_probabilities_that_experts_had_before_their_step():
    algorithm = make_algorithm("LFME", dataset="Toy", lfe_reg=3.0)
    minibatches = make_minibatches(dataset="Toy")
    guides = [expert(x).softmax(dim=1) for expert, (x, _) in zip(algorithm.experts, minibatches, strict=True)]
    x, y = (torch.cat([batch[part] for batch in minibatches]) for part in (0, 1))
    logits = algorithm.predict(x)
    penalty = ((logits - torch.cat(guides).detach()) ** 2).mean()
    weights = list(algorithm.network.parameters())
    gradients = torch.autograd.grad(F.cross_entropy(logits, y) + 3.0 * penalty, weights)

    metrics = algorithm.update(minibatches)

    assert_close(metrics["penalty"], penalty.detach())
    assert_close([weight.grad for weight in weights], list(gradients))


def test_every_expert_learns_from_its_own_environment_alone():
    algorithm, minibatches = make_algorithm("LFME", dataset="Toy"), make_minibatches(dataset="Toy")
    expected = [
        torch.autograd.grad(F.cross_entropy(expert(x), y), list(expert.parameters()))
        for expert, (x, y) in zip(algorithm.experts, minibatches, strict=True)
    ]

    algorithm.update(minibatches)

    for expert, gradients in zip(algorithm.experts, expected, strict=True):
        assert_close([weight.grad for weight in expert.parameters()], list(gradients))


def test_experts_begin_from_given_weights_and_predict_nothing():
    algorithm, erm = make_algorithm("LFME+BF", dataset="Toy"), make_algorithm("ERM", dataset="Toy", seed=1)

    algorithm.begin_from(erm.predictor.state_dict())

    for expert in algorithm.inner.experts:
        assert_close(expert.state_dict(), erm.predictor.state_dict())
    assert list(algorithm.predictor.state_dict()) == list(erm.predictor.state_dict())

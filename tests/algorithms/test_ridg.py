import pytest
import torch
from support import make_algorithm, make_minibatches
from torch.testing import assert_close

from dg_batchformer.errors import InputError


def test_the_penalty_is_the_distance_from_the_moving_average_of_every_class():
    algorithm = make_algorithm("RIDG", dataset="Toy", lr=0.0, ridg_momentum=0.25)
    bank = {}
    for seed in range(3):
        minibatches = make_minibatches(dataset="Toy", seed=seed, n=2)
        x, y = (torch.cat([batch[part] for batch in minibatches]) for part in (0, 1))
        expected = 0.0
        for label in sorted(set(y.tolist())):
            of_class = [
                torch.stack([w * z for w in algorithm.classifier.weight]) for z in algorithm.featurizer(x[y == label])
            ]
            mean = sum(of_class) / len(of_class)
            bank[label] = 0.75 * bank[label] + 0.25 * mean if label in bank else mean
            distances = [(sample - bank[label]).square().sum(dim=1).mean() for sample in of_class]
            expected = expected + sum(distances) / len(distances)

        assert_close(algorithm.update(minibatches)["penalty"], expected.detach())

    assert len(bank) == 3


def test_the_bank_is_no_path_for_gradients():
    algorithm = make_algorithm("RIDG", dataset="Toy")
    algorithm.update(make_minibatches(dataset="Toy"))

    assert not algorithm.bank.requires_grad


def test_it_needs_a_linear_classifier():
    with pytest.raises(InputError, match="set hparam nonlinear_classifier false"):
        make_algorithm("RIDG", nonlinear_classifier=True)

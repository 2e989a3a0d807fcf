"""WiSE is the line between the first weights and the last."""

import pytest
import torch
from support import make_algorithm, make_minibatches
from torch.testing import assert_close


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_it_ends_between_its_ends(alpha):
    algorithm = make_algorithm("WiSE+BF", dataset="Toy", wise_alpha=alpha, lr=1e-2)
    begun = {name: torch.randn_like(value) for name, value in algorithm.predictor.state_dict().items()}
    algorithm.begin_from(begun)
    for seed in range(3):
        algorithm.update(make_minibatches(dataset="Toy", seed=seed))
    ended = {name: value.clone() for name, value in algorithm.predictor.state_dict().items()}

    algorithm.finalize([])

    expected = {name: (1 - alpha) * begun[name] + alpha * ended[name] for name in begun}
    exact = {"rtol": 0, "atol": 0} if alpha in (0, 1) else {}
    assert_close(dict(algorithm.predictor.state_dict()), expected, **exact)
    assert algorithm.summary == {"wise_alpha": alpha}

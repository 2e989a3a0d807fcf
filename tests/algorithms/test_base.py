import torch
from support import make_algorithm
from torch.nn import functional as F
from torch.testing import assert_close


def test_the_encoder_gets_its_own_learning_rate_in_every_optimizer():
    algorithm = make_algorithm("IRM+BF", bf_lr_scale=0.1, lr=1e-2)
    encoder = set(algorithm.inner.featurizer.batchformer.parameters())

    for optimizer in (algorithm.inner.optimizer, algorithm.inner.new_optimizer(algorithm.inner.network, lr=1e-2)):
        base, own = optimizer.param_groups
        assert set(own["params"]) == encoder
        assert not encoder & set(base["params"])
        assert own["lr"] == 0.1 * base["lr"]


def test_rows_are_split_into_plain_and_attended_per_minibatch():
    algorithm = make_algorithm("ERM")
    rows = torch.arange(12)
    assert algorithm.split_streams(rows, 3)[1] is None

    algorithm.streams = 2
    plain, twin = algorithm.split_streams(rows, num_domains=3)

    assert plain.tolist() == [0, 1, 4, 5, 8, 9]
    assert twin.tolist() == [2, 3, 6, 7, 10, 11]
    assert algorithm.in_both_streams(plain, num_domains=3).tolist() == [0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9]


def test_risk_is_the_weighted_mean_of_both_streams():
    algorithm = make_algorithm("BF", bf_loss_weight=0.2).inner
    logits, y = torch.randn(8, 7), torch.tensor([0, 1, 0, 1, 2, 3, 2, 3])
    rows = torch.tensor([0, 1, 4, 5])

    expected = 0.8 * F.cross_entropy(logits[rows], y[rows]) + 0.2 * F.cross_entropy(logits[rows + 2], y[rows])

    assert_close(algorithm.risk(logits, y, num_domains=2), expected)
    unshared = make_algorithm("BF", bf_shared=False).inner
    assert_close(unshared.risk(logits, y, num_domains=2), F.cross_entropy(logits[rows + 2], y[rows]))

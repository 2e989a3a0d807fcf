"""MyAlgorithm: its penalty, and the contracts of every algorithm."""

import torch
from torch.testing import assert_close

import my_algorithm
from dg_batchformer.testing import assert_contracts


def test_the_penalty_is_the_mean_squared_logit():
    assert_close(my_algorithm.penalty_on(torch.tensor([[1.0, 3.0]])), torch.tensor(5.0))


def test_it_learns_resumes_exactly_and_composes_with_bf_and_swad():
    assert_contracts("my_algorithm")

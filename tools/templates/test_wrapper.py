"""MyWrapper: what it changes, and the contracts of every wrapper."""

import torch
from torch.testing import assert_close

import my_wrapper
from dg_batchformer.testing import assert_contracts


def test_a_gain_of_one_doubles_the_brightness():
    assert_close(my_wrapper.brighter(torch.tensor([0.0, 0.3]), gain=1.0), torch.tensor([0.0, 0.6]))


def test_it_trains_around_algorithms_of_every_kind_and_resumes_exactly():
    assert_contracts("my_wrapper")

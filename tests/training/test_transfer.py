"""Tensors that are copied to a device together."""

import torch

from dg_batchformer.training.transfer import Parcel, transfer

TENSORS = [
    torch.arange(5),
    torch.tensor([True, False, True]),
    torch.rand(2, 3),
    torch.empty(0, dtype=torch.uint8),
    torch.rand(4, dtype=torch.double).t(),
    torch.arange(7, dtype=torch.uint8),
    torch.rand(3, 4).T,
]


def test_a_parcel_returns_its_tensors_with_their_dtypes_and_shapes():
    unpacked = Parcel(TENSORS, torch.device("cpu")).unpack()

    for tensor, other in zip(TENSORS, unpacked, strict=True):
        assert other.dtype == tensor.dtype
        assert torch.equal(other, tensor)


def test_all_tensors_arrive_on_the_device():
    arrived = transfer(TENSORS, torch.device("meta"))

    assert [(tensor.device.type, tensor.shape) for tensor in arrived] == [("meta", tensor.shape) for tensor in TENSORS]


def test_nothing_is_copied_on_the_cpu():
    assert all(one is other for one, other in zip(transfer(TENSORS, torch.device("cpu")), TENSORS, strict=True))

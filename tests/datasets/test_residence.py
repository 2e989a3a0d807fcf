"""Planes take at most a quarter of a GPU's memory, shared with other workers."""

import torch
from stand_in_gpus import GIB, Gpus

from dg_batchformer.datasets.residence import Residence

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


class _Plane:
    """Images that do not exist, with a size in GiB."""

    def __init__(self, size, *, fits=True):
        self.num_bytes, self.resident, self.fits = size * GIB, None, fits

    def copy_to(self, device):
        if not self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.resident = device


def _held(planes):
    return [plane.resident is not None for plane in planes]


def test_planes_take_a_quarter_of_a_card_at_most(monkeypatch):
    Gpus(monkeypatch, 1, free=80 * GIB, total=80 * GIB)
    planes = [_Plane(12), _Plane(9), _Plane(7)]

    Residence().hold(planes, GPU)

    assert _held(planes) == [True, False, True]


def test_workers_on_one_card_share_that_quarter(monkeypatch):
    Gpus(monkeypatch, 1, free=80 * GIB, total=80 * GIB)
    planes = [_Plane(4), _Plane(2)]

    Residence(workers=4).hold(planes, GPU)

    assert _held(planes) == [True, False]


def test_half_of_what_is_free_stays_free(monkeypatch):
    Gpus(monkeypatch, 1, free=10 * GIB, total=80 * GIB)
    planes = [_Plane(6), _Plane(4), _Plane(4)]

    Residence().hold(planes, GPU)

    assert _held(planes) == [False, True, False]


def test_planes_of_earlier_runs_are_evicted_only_if_needed(monkeypatch):
    Gpus(monkeypatch, 1, free=80 * GIB, total=80 * GIB)
    earlier, small, large = [_Plane(8)], [_Plane(8)], [_Plane(10)]
    residence = Residence()
    residence.hold(earlier, GPU)

    residence.hold(small, GPU)
    assert _held(earlier + small) == [True, True]
    residence.hold(large, GPU)
    assert _held(earlier + small + large) == [False, False, True]


def test_evicted_planes_do_not_come_back(monkeypatch):
    Gpus(monkeypatch, 1)
    planes, residence = [_Plane(1)], Residence()
    residence.hold(planes, GPU)

    assert residence.give_up()
    residence.hold(planes, GPU)

    assert _held(planes) == [False]
    assert not residence.give_up(), "nothing was left to evict"


def test_a_plane_without_room_stays_in_its_file(monkeypatch):
    Gpus(monkeypatch, 1)
    planes, residence = [_Plane(1, fits=False)], Residence()

    residence.hold(planes, GPU)

    assert _held(planes) == [False]
    assert not residence.give_up()


def test_a_cpu_holds_no_planes():
    planes = [_Plane(1)]

    Residence().hold(planes, CPU)

    assert _held(planes) == [False]

"""Work in every core: as if it were done here, in order, and said where a process dies of it."""

import os

import pytest

from dg_batchformer.errors import InputError
from dg_batchformer.runtime.parallel import in_every_core, usable_cores

MANY = range(2000)


def test_results_come_in_the_order_of_items_from_other_processes():
    found = list(in_every_core(lambda item: (item**2, os.getpid()), MANY))

    assert [square for square, _ in found] == [item**2 for item in MANY]
    if usable_cores() > 1:
        assert os.getpid() not in {process for _, process in found}


def test_what_work_raises_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        list(in_every_core(lambda item: 1 // (1000 - item), MANY))


@pytest.mark.skipif(usable_cores() == 1, reason="one core, so that no process is started")
def test_a_process_that_is_killed_ends_the_work_with_a_sentence():
    with pytest.raises(InputError, match="a process that reads files was killed"):
        list(in_every_core(lambda item: os._exit(9) if item == 1000 else item, MANY))

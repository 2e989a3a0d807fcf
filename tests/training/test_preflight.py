import pytest
from support import resolved

from dg_batchformer.algorithms import get_algorithm_class
from dg_batchformer.errors import InputError
from dg_batchformer.training.preflight import check_runs


def test_a_method_without_enough_training_environments_is_refused_before_anything_starts():
    enough, too_few = (
        resolved(dataset="Toy", algorithm="SWAD+MLDG+BF", test_envs=envs) for envs in ([0, 1], [0, 1, 2])
    )
    check_runs([enough], None)

    with pytest.raises(InputError, match=r"BF\+MLDG\+SWAD needs at least 2 training environments, got 1; hold out"):
        check_runs([enough, too_few], None)


def test_wrappers_need_as_many_environments_as_what_they_wrap():
    assert get_algorithm_class("SWAD+MLDG+BF").min_domains == 2
    assert get_algorithm_class("SWAD+ERM+BF").min_domains == 1

import pytest

from dg_batchformer.errors import InputError
from dg_batchformer.spec.manifest import manifest_content
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.sweep.expand import expand


def _sweep(**given):
    return SweepSpec(**{"name": "s", "datasets": ("PACS",), "algorithms": (Row("ERM", "ERM"),), "trials": 1, **given})


def test_runs_come_in_domainbeds_order():
    rows = (Row("ERM", "ERM"), Row("ERM+BF", "ERM+BF"))
    runs = expand(_sweep(algorithms=rows, trials=2, draws=2, test_envs=("photo", "A")))

    order = [(run.spec.trial_seed, run.label, run.spec.test_envs, run.spec.hparams_seed) for run in runs]
    assert order[:4] == [(0, "ERM", (0,), 0), (0, "ERM", (0,), 1), (0, "ERM", (2,), 0), (0, "ERM", (2,), 1)]
    assert len(order) == 2 * 2 * 2 * 2
    assert order == sorted(order)


def test_trials_can_be_listed_by_their_seeds():
    runs = expand(_sweep(trials=(60, 7), test_envs=("sketch",)))

    assert [run.spec.trial_seed for run in runs] == [60, 7]
    assert runs[0].spec.id == expand(_sweep(trials=61, test_envs=("sketch",)))[-1].spec.id


def test_too_many_runs_are_refused_before_they_are_listed():
    with pytest.raises(InputError, match=r"at least 1,000,000,000,000,000,000 runs, but a sweep may have at most"):
        expand(_sweep(trials=10**9, draws=10**9))


def test_pairs_follow_their_first_environment():
    runs = expand(_sweep(pairs=True))

    envs = [run.spec.test_envs for run in runs]
    assert envs == [(0,), (0, 1), (0, 2), (0, 3), (1,), (1, 2), (1, 3), (2,), (2, 3), (3,)]


def test_pairs_of_some_environments_are_those_that_selection_reads():
    envs = [run.spec.test_envs for run in expand(_sweep(pairs=True, test_envs=("sketch",)))]

    assert envs == [(3,), (0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize("given", [{}, {"train_envs": "all"}, {"pairs": True}])
def test_environments_with_numbers_as_names_expand_like_others(given):
    runs = {
        names: expand(_sweep(datasets=("Sites",), environments={"Sites": names}, **given))
        for names in [("1", "2", "3"), ("a", "b", "c")]
    }

    numbered, named = [[(run.spec.test_envs, run.spec.train_envs) for run in found] for found in runs.values()]
    assert numbered == named


def test_a_typed_environment_is_the_one_of_that_name():
    names = tuple(sorted(map(str, range(11))))
    sites = {"datasets": ("Sites",), "environments": {"Sites": names}}

    [run] = expand(_sweep(test_envs=("2",), **sites))
    assert [names[env] for env in run.spec.test_envs] == ["2"]


def test_variants_share_the_seed_and_differ_in_identity():
    rows = (Row("BF", "ERM+BF"), Row("2 layers", "ERM+BF", {"bf_layers": 2}))
    plain, variant = expand(_sweep(algorithms=rows, test_envs=("A",)))

    assert plain.spec.seed == variant.spec.seed
    assert plain.spec.id != variant.spec.id


def test_a_grid_point_is_the_run_with_these_hparams():
    [_, point] = expand(_sweep(grid={"lr": (1e-5, 3e-5)}, hparams={"batch_size": 8}, test_envs=("sketch",)))
    [same] = expand(_sweep(hparams={"lr": 3e-5, "batch_size": 8}, test_envs=("sketch",)))

    assert point.spec == same.spec
    assert point.spec.id == same.spec.id
    assert (point.name, same.name) == ("ERM on PACS/sketch, trial 0, lr 3e-05", "ERM on PACS/sketch, trial 0")


def test_grid_points_come_in_their_order_and_rows_replace_lists_of_the_sweep():
    rows = (
        Row("a", "ERM"),
        Row("b", "ERM+BF", grid={"bf_dropout": (0.5, 0.1)}),
        Row("c", "ERM", {"lr": 1}),
        Row("d", "ERM", grid={"lr": (2,)}),
    )
    runs = expand(_sweep(algorithms=rows, grid={"lr": (3e-5, 1e-5)}, test_envs=("A",)))

    assert [(run.label, run.point) for run in runs] == [
        ("a", {"lr": 3e-5}),
        ("a", {"lr": 1e-5}),
        ("b", {"lr": 3e-5, "bf_dropout": 0.5}),
        ("b", {"lr": 3e-5, "bf_dropout": 0.1}),
        ("b", {"lr": 1e-5, "bf_dropout": 0.5}),
        ("b", {"lr": 1e-5, "bf_dropout": 0.1}),
        ("c", {}),
        ("d", {"lr": 2}),
    ]
    assert len({run.spec.seed for run in runs}) == 1


def test_a_grid_with_too_many_points_is_refused_before_it_is_listed():
    with pytest.raises(InputError, match=r"1 trials and 10,000,000,000 grid points of all rows make at least 40,000"):
        expand(_sweep(datasets=("PACS",) * 4, grid={f"hparam{name}": range(10) for name in range(10)}))


def test_the_manifest_has_everything_that_status_needs():
    sweep = _sweep()
    declared = manifest_content(sweep, expand(sweep))

    assert declared["rows"] == ["ERM"]
    assert [run["spec"]["test_envs"] for run in declared["runs"]] == [[0], [1], [2], [3]]


def test_every_imbalance_has_runs_of_its_own_from_the_same_seeds():
    runs = expand(_sweep(imbalance=("long_tail:10", "natural"), test_envs=("photo",)))

    assert [str(run.spec.imbalance) for run in runs] == ["long_tail:10", "natural"]
    assert len({run.spec.id for run in runs}) == 2
    assert len({run.spec.seed for run in runs}) == 1
    assert runs[0].name == "ERM on PACS/photo, long_tail:10, trial 0"

from dg_batchformer.catalog.wrappers import own_averaging_wrappers
from dg_batchformer.spec.manifest import SweepRun
from dg_batchformer.spec.run import RunRequest
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.spec.trajectories import averages, base_run, trajectories
from dg_batchformer.sweep.expand import expand


def _spec(name, **given):
    return RunRequest("PACS", name, **given).resolve()


def test_the_base_of_a_run_is_the_run_without_averaging():
    for base in ("ERM", "BF", "CORAL", "CORAL+BF+Focal"):
        assert base_run(_spec(base)) is not None
        for wrapper in own_averaging_wrappers():
            spec = _spec(f"{wrapper}+{base}", test_envs=("sketch",), hparams_seed=3, trial_seed=1)
            assert averages(spec)
            assert base_run(spec) == _spec(base, test_envs=("sketch",), hparams_seed=3, trial_seed=1)
    assert not averages(_spec("BF"))
    assert base_run(_spec("SWAD+CORAL")) != base_run(_spec("SWAD+BF"))
    assert base_run(_spec("SWAD", seed=7)) == _spec("ERM", seed=7)


def test_settings_of_the_average_are_no_settings_of_its_base():
    given = {"swad_mode": "clean", "swad_n_converge": 5, "lr": 1e-4}

    assert base_run(_spec("SWAD", hparams=given)) == _spec("ERM", hparams={"lr": 1e-4})
    assert base_run(_spec("SWAD", hparams={"lr": 1e-4})) != _spec("ERM")


def test_runs_are_grouped_by_trajectory_in_the_order_of_their_first_runs():
    rows = [Row(name, name) for name in ("ERM", "SWAD+BF", "SWAD", "BF", "MIRO", "EMA+BF")]
    rows.append(Row("wide", "SWAD", {"swad_n_tolerance": 9}))
    runs = expand(SweepSpec("mine", ("PACS",), tuple(rows), trials=2, test_envs=("photo", "sketch")))

    groups = trajectories(runs)

    assert [[run.label for run in group] for group in groups[::2]] == [
        ["ERM", "SWAD", "wide"],
        ["SWAD+BF", "BF", "EMA+BF"],
        ["MIRO"],
    ] * 2
    assert all(len({(run.spec.test_envs, run.spec.trial_seed) for run in group}) == 1 for group in groups)
    assert trajectories(runs, share=False) == [(run,) for run in runs]


def test_other_steps_or_evaluations_are_another_trajectory():
    runs = [_spec("ERM"), _spec("SWAD", steps=7), _spec("SWAD", checkpoint_freq=7), _spec("SWAD", precision="bf16")]

    assert len(trajectories([SweepRun(spec.algorithm, spec) for spec in runs])) == 4


def test_wrappers_of_plugins_that_are_not_imported_stay_in_the_name():
    spec = _spec("SWAD+Mine+CORAL", plugins=["mine"], seed=3)

    assert base_run(spec) == _spec("Mine+CORAL", plugins=["mine"], seed=3)

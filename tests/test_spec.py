import json
from pathlib import Path

import pytest

from dg_batchformer.errors import InputError
from dg_batchformer.spec import RunSpec

GOLDEN = json.loads((Path(__file__).parent / "data" / "domainbed_golden.json").read_text())


def test_the_identity_of_a_run_never_changes():
    assert RunSpec().id == "f3bd56f3b07bdd33"
    assert RunSpec(dataset="PACS", algorithm="SWAD+CORAL+BF", test_envs=["sketch"]).id == "d577ab323f7b6c7b"


def test_spellings_and_defaults_that_mean_the_same_run_have_one_identity():
    a = RunSpec(dataset="PACS", algorithm="SWAD+ERM+BF", test_envs=["sketch", "A"], hparams={"lr": "5e-5"})
    b = RunSpec(dataset="PACS", algorithm="BF+SWAD", test_envs=(0, 3), hparams={"lr": 5e-5}, steps=5001)

    assert a.id == b.id
    assert RunSpec.from_dict(json.loads(json.dumps(a.as_dict()))).id == a.id


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 7},
        {"protocol": "quick"},
        {"seed": 0},
        {"hparams": {"lr": 1.0}},
        {"evaluate": "all"},
        {"trial_seed": 1},
    ],
)
def test_whatever_can_change_a_number_changes_the_identity(change):
    assert RunSpec(**change).id != RunSpec().id


def test_the_seed_is_domainbeds_and_wrappers_share_it():
    jobs = [case["train_args"] for case in GOLDEN["job_hash"]]
    for job in jobs:
        spec = RunSpec(
            dataset=job["dataset"],
            algorithm=job["algorithm"],
            test_envs=job["test_envs"],
            hparams_seed=job["hparams_seed"],
            trial_seed=job["trial_seed"],
        )
        assert spec.seed == job["seed"]

    assert RunSpec(algorithm="SWAD+BF").seed == RunSpec(algorithm="ERM").seed
    assert RunSpec(seed=0).seed == 0


def test_steps_and_frequency_come_from_protocol_and_dataset():
    assert (RunSpec(dataset="PACS").steps, RunSpec(dataset="PACS").checkpoint_freq) == (5001, 300)
    swad = RunSpec(dataset="DomainNet", protocol="swad-2021")
    assert (swad.steps, swad.checkpoint_freq) == (15001, 500)
    assert RunSpec(dataset="VLCS", protocol="swad-2021").checkpoint_freq == 50
    assert RunSpec(dataset="VLCS", protocol="batchformer-2022").checkpoint_freq == 100


def test_every_step_on_the_grid_and_the_last_is_evaluated():
    spec = RunSpec(steps=6, checkpoint_freq=4)

    assert [step for step in range(6) if spec.is_checkpoint(step)] == [0, 4, 5]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dataset": "shapes"}, "did you mean 'Shapes'"),
        ({"test_envs": []}, "test_envs is empty"),
        ({"test_envs": [0, 1, 2, 3]}, "none is left to train on"),
        ({"trial_seed": -1}, "trial_seed is -1"),
        ({"steps": 0}, "steps is 0, allowed is a whole number, at least 1"),
        ({"holdout_fraction": 1.0}, "between 0 and 1"),
        ({"protocol": "domainbed"}, "unknown protocol"),
        ({"evaluate": "some"}, "unknown value of evaluate"),
    ],
)
def test_what_cannot_be_run_is_refused_with_the_rule(given, message):
    with pytest.raises(InputError, match=message):
        RunSpec(**given)


def test_a_field_from_another_version_is_named():
    with pytest.raises(InputError, match="unknown field of a run 'algoritm'; did you mean 'algorithm'"):
        RunSpec.from_dict({"algoritm": "ERM"})

import json
from pathlib import Path

import pytest
from support import resolved

from dg_batchformer.errors import InputError
from dg_batchformer.hparams_registry import default_hparams
from dg_batchformer.spec.run import RunSpec

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "domainbed_golden.json").read_text())


def test_the_identity_of_a_run_never_changes():
    assert resolved().id == "f3bd56f3b07bdd33"
    assert resolved(dataset="PACS", algorithm="SWAD+CORAL+BF", test_envs=["sketch"]).id == "d577ab323f7b6c7b"
    assert "train_envs" not in resolved(dataset="PACS").as_dict()  # as in specs before the field existed


def test_training_environments_are_the_complement_of_test_environments():
    rest = resolved(dataset="PACS", test_envs=["A", "C", "S"])
    source = resolved(dataset="PACS", train_envs=["photo"])

    assert rest.id == source.id
    assert (source.train_envs, source.test_envs) == ((2,), (0, 1, 3))
    few = resolved(dataset="PACS", train_envs=["photo"], test_envs=["sketch"])
    assert few.used_envs == (2, 3)
    assert few.id != resolved(dataset="PACS", test_envs=["sketch"]).id
    assert RunSpec.from_dict(json.loads(json.dumps(few.as_dict()))) == few


def test_own_data_carries_its_environments():
    spec = resolved(dataset="Mine", environments=("day", "night"), test_envs=["night"])

    assert (spec.train_envs, spec.checkpoint_freq, spec.facts.shape) == ((0,), 300, (3, 224, 224))
    assert RunSpec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec
    assert spec.id != resolved(dataset="Mine", environments=("day", "noon"), test_envs=[1]).id


def test_indices_stay_indices_if_environments_have_numbers_as_names():
    asked = {"dataset": "Sites", "environments": ("1", "10", "2")}

    assert resolved(test_envs=["2"], **asked) == resolved(test_envs=[2], **asked)
    for env in range(3):
        spec = resolved(test_envs=[env], **asked)
        assert spec.test_envs == (env,)
        assert RunSpec.from_dict(json.loads(json.dumps(spec.as_dict()))).id == spec.id


def test_spellings_and_defaults_that_mean_the_same_run_have_one_identity():
    a = resolved(dataset="PACS", algorithm="SWAD+ERM+BF", test_envs=["sketch", "A"], hparams={"lr": "5e-5"})
    b = resolved(dataset="PACS", algorithm="BF+SWAD", test_envs=(0, 3), hparams={"lr": 5e-5}, steps=5001)

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
def test_every_setting_that_can_change_results_changes_the_identity(change):
    assert resolved(**change).id != resolved().id


def test_the_seed_equals_domainbeds_and_is_the_same_under_wrappers():
    jobs = [case["train_args"] for case in GOLDEN["job_hash"]]
    for job in jobs:
        spec = resolved(
            dataset=job["dataset"],
            algorithm=job["algorithm"],
            test_envs=job["test_envs"],
            hparams_seed=job["hparams_seed"],
            trial_seed=job["trial_seed"],
        )
        assert spec.seed == job["seed"]

    assert resolved(algorithm="SWAD+BF").seed == resolved(algorithm="ERM").seed
    assert resolved(seed=0).seed == 0


def test_steps_and_checkpoint_frequency_come_from_protocol_and_dataset():
    assert (resolved(dataset="PACS").steps, resolved(dataset="PACS").checkpoint_freq) == (5001, 300)
    swad = resolved(dataset="DomainNet", protocol="swad-2021")
    assert (swad.steps, swad.checkpoint_freq) == (15001, 500)
    for protocol in ("swad-2021", "batchformer-2022"):  # the commands of SWAD's release
        specs = [resolved(dataset=name, protocol=protocol) for name in ("PACS", "VLCS", "DomainNet")]
        assert [spec.checkpoint_freq for spec in specs] == [100, 50, 500]
        assert [default_hparams("SWAD", spec.dataset)["swad_tolerance_ratio"] for spec in specs] == [0.3, 0.2, 0.3]


def test_a_frequency_of_an_earlier_protocol_keeps_its_identity_and_the_present_one_has_another():
    asked = {"dataset": "VLCS", "protocol": "batchformer-2022", "algorithm": "SWAD+BF"}
    as_written_before = RunSpec.from_dict({**asked, "checkpoint_freq": 100})

    assert as_written_before.id == "82feeeded9c1efd3"
    assert resolved(**asked).id != as_written_before.id


def test_every_step_on_the_grid_and_the_last_is_evaluated():
    spec = resolved(steps=6, checkpoint_freq=4)

    assert [step for step in range(6) if spec.is_checkpoint(step)] == [0, 4, 5]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dataset": "shapes"}, "did you mean 'Shapes'"),
        ({"test_envs": []}, "test_envs is empty"),
        ({"test_envs": [0, 1, 2, 3]}, "none is left to train on"),
        ({"train_envs": []}, "train_envs is empty"),
        ({"train_envs": [0, 1, 2, 3]}, "none is left to test on"),
        ({"train_envs": [0, 1], "test_envs": ["painting"]}, "painting of Shapes is in both train_envs and test_envs"),
        ({"dataset": "PACS", "environments": ("a", "b")}, "those of PACS are known"),
        ({"dataset": "Mine", "environments": ("a",)}, "at least two different names, got a"),
        ({"trial_seed": -1}, "trial_seed is -1"),
        ({"steps": 0}, "steps is 0, but must be a whole number, at least 1"),
        ({"holdout_fraction": 1.0}, "between 0 and 1"),
        ({"protocol": "domainbed"}, "unknown protocol"),
        ({"evaluate": "some"}, "unknown value of evaluate"),
    ],
)
def test_invalid_runs_are_refused_with_the_rule(given, message):
    with pytest.raises(InputError, match=message):
        resolved(**given)


def test_a_field_of_another_version_is_named():
    with pytest.raises(InputError, match="unknown field of a run 'algoritm'; did you mean 'algorithm'"):
        RunSpec.from_dict({"algoritm": "ERM"})

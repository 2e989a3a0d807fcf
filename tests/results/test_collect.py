"""Collection of sweeps, ours and DomainBed's, alone and together."""

import json
import subprocess

import pytest
from domainbed_sweeps import Kind, write_sweep

from dg_batchformer.cli.main import main
from dg_batchformer.results.collect import collect, refuse_mixed
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.folders import State
from dg_batchformer.tables.table import build_sections

SMALL = Kind(datasets=("PACS",), algorithms=("ERM", "Mine"), trials=2, draws=2)


def _rewrite(folder, change):
    for file in folder.glob("*/results.jsonl"):
        records = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(change(record)) + "\n" for record in records))


def test_a_sweep_of_domainbed_has_its_algorithms_as_rows(tmp_path):
    write_sweep(tmp_path, SMALL, seed=0)

    collection = collect([tmp_path])

    assert list(collection.rows) == ["ERM", "Mine"]
    assert len(collection.runs) == 2 * 2 * 2 * 4
    assert {run.state for run in collection.runs} == {State.DONE}
    assert (list(collection.skipped), list(collection.commands)) == ([], [])
    [section] = build_sections(collection, ["oracle"])
    assert not section.tables[0].has_empty_cells


def test_unfinished_runs_are_left_out_and_unreadable_ones_are_named(tmp_path, capsys):
    write_sweep(tmp_path, SMALL, seed=0)
    first, second, third, *_ = sorted(tmp_path.iterdir())
    (first / "done").unlink()
    (second / "results.jsonl").unlink()
    with (third / "results.jsonl").open("a") as file:
        file.write('{"step": 1, "arg')
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "results.jsonl").write_text('{"step": 0, "args": {"dataset": ["PACS"]}}\n')

    assert main(["tables", str(tmp_path)]) == 0

    said = capsys.readouterr()
    assert "1 of 2 trials" in said.out or "runs trained" in said.out
    assert f"1 unreadable lines skipped, of {third / 'results.jsonl'}" in said.err
    assert f"skipped (no results.jsonl): {second.name}" in said.err
    assert "do not identify the test environments): foreign" in said.err
    assert "1 of 31 runs of" in said.err
    assert "have no file 'done', which DomainBed writes when a run ends; --unfinished includes them" in said.err


def _unmark(folder):
    for file in folder.glob("*/done"):
        file.unlink()


def test_a_copy_without_done_files_can_be_read_or_marked_and_nothing_is_advised_to_be_deleted(tmp_path, capsys):
    write_sweep(tmp_path, SMALL, seed=0)
    assert main(["tables", str(tmp_path), "--format", "json"]) == 0
    whole = json.loads(capsys.readouterr().out)["sections"][0]["tables"][0]["rows"]
    _unmark(tmp_path)

    assert main(["tables", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert main(["tables", str(tmp_path), "--unfinished", "--format", "json"]) == 0
    counted = capsys.readouterr()

    assert "0 of 2 trials; 0 of 4 runs trained, 4 not marked done" in said.out
    assert "delete" not in said.err
    assert json.loads(counted.out)["sections"][0]["tables"][0]["rows"] == whole
    assert "32 of 32 runs" in counted.err
    assert "they are included with their records so far" in counted.err
    subprocess.run(said.err.split("create them: ")[1], shell=True, check=True)
    assert collect([tmp_path]).skipped == []


def test_finished_runs_replace_the_same_unfinished_runs(tmp_path):
    for name in ("copied", "whole"):
        write_sweep(tmp_path / name, SMALL, seed=0)
    _unmark(tmp_path / "copied")

    for unfinished in (False, True):
        collection = collect([tmp_path / "copied", tmp_path / "whole"], unfinished=unfinished)
        assert {run.path.parent.name for run in collection.runs} == {"whole"}
        assert (collection.skipped, collection.commands) == ([], [])


def test_invalid_numbers_are_reported_with_their_run_and_empty_folders_are_named(tmp_path, capsys):
    write_sweep(tmp_path, SMALL._replace(draws=1, trials=1, evaluations=1), seed=0)
    second = sorted(tmp_path.iterdir())[1]
    (second / "results.jsonl").write_text("")
    _rewrite(tmp_path, lambda record: record | {"env1_out_acc": float("nan")} if _held_out(record) == 0 else record)

    assert main(["tables", str(tmp_path), "--selection", "oracle"]) == 0

    said = capsys.readouterr()
    nan = [path.parent for path in tmp_path.glob("*/results.jsonl") if "NaN" in path.read_text()]
    assert nan
    for path in nan:
        assert f"(In-domain): nan: an accuracy in results.jsonl of {path} is not finite" in said.out
    assert f"skipped (results.jsonl is empty): {second.name}" in said.err


def _held_out(record):
    [env] = record["args"]["test_envs"]
    return env


def test_unknown_datasets_come_last_with_the_environments_of_their_records(tmp_path):
    write_sweep(tmp_path, SMALL._replace(datasets=("Nowhere", "PACS")), seed=0)

    collection = collect([tmp_path])

    assert list(collection.environments) == ["PACS", "Nowhere"]
    assert collection.environments["Nowhere"] == ["env0", "env1", "env2"]


def test_two_sweeps_make_one_table_and_a_run_in_both_counts_once(tmp_path):
    write_sweep(tmp_path / "a", SMALL, seed=0)
    write_sweep(tmp_path / "b", SMALL._replace(algorithms=("CORAL", "ERM")), seed=1)

    collection = collect([tmp_path / "a", tmp_path / "b"])

    assert list(collection.rows) == ["ERM", "Mine", "CORAL"]
    assert len(collection.runs) == 48
    assert "16 runs are duplicated" in collection.skipped[0]
    alone = build_sections(collect([tmp_path / "a"]), ["oracle"])[0].tables[0]
    assert build_sections(collection, ["oracle"])[0].tables[0].rows["ERM"] == alone.rows["ERM"]


def test_the_same_trials_under_other_conditions_are_no_repetition(tmp_path, capsys):
    for name in ("a", "b"):
        write_sweep(tmp_path / name, SMALL, seed=0)
    _rewrite(tmp_path / "b", lambda record: {**record, "protocol": "other"})

    assert main(["tables", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "mixes runs of different protocol" in capsys.readouterr().err


def test_an_algorithm_of_another_suite_is_read_whatever_its_name(tmp_path):
    write_sweep(tmp_path, SMALL._replace(algorithms=("SWAD", "EMA")), seed=0)

    [section] = build_sections(collect([tmp_path]), ["training-domain"])

    assert not section.tables[0].has_empty_cells


def test_runs_on_environments_without_evaluations_are_named_and_not_counted(tmp_path):
    write_sweep(tmp_path, SMALL._replace(datasets=("Nowhere", "PACS")), seed=0)
    for file in sorted(tmp_path.glob("*/results.jsonl"))[:3]:
        record = json.loads(file.read_text().splitlines()[0])
        file.write_text(json.dumps({**record, "args": {**record["args"], "test_envs": [30_000_000]}}) + "\n")

    assert "do not identify the test environments" in collect([tmp_path]).skipped[0]


_OF_RECORDS = (
    "protocol", "precision", "data_path", "dataset_fingerprint", "training_short_side", "feature_dtype",
)  # fmt: skip
_ASKED = ("task", "steps", "checkpoint_freq", "holdout_fraction", "compile", "plugins", "train_envs")


@pytest.mark.parametrize("name", [*_OF_RECORDS, *_ASKED])
def test_different_conditions_within_a_cell_are_refused_without_mix(name, tmp_path, capsys):
    def change(record):
        if name in _ASKED:
            return {**record, "args": {**record["args"], name: "other"}}
        return {**record, name: "other"}

    write_sweep(tmp_path / "a", SMALL, seed=0)
    write_sweep(tmp_path / "b", SMALL, seed=1)
    _rewrite(tmp_path / "a", _later_trials)
    _rewrite(tmp_path / "b", change)
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]

    assert main(["tables", *folders]) == 2
    said = capsys.readouterr().err
    assert f"on PACS mixes runs of different {name}: " in said
    assert said.count("\n") == 1
    assert main(["tables", *folders, "--mix"]) == 0


def test_runs_with_a_frozen_part_are_not_pooled_with_others(tmp_path, capsys):
    for name, freeze in (("a", "none"), ("b", "featurizer")):
        write_sweep(tmp_path / name, SMALL, seed=0)
        more = {"freeze": freeze}
        _rewrite(tmp_path / name, lambda record, more=more: {**record, "hparams": {**record["hparams"], **more}})
    _rewrite(tmp_path / "a", _later_trials)

    assert main(["tables", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "on PACS mixes runs of different freeze: none" in capsys.readouterr().err


def _later_trials(record):
    return {**record, "args": {**record["args"], "trial_seed": record["args"]["trial_seed"] + 7}}


def test_every_field_of_a_run_is_an_axis_of_tables_or_must_be_equal_within_a_cell(tmp_path):
    write_sweep(tmp_path, SMALL, seed=0)

    known = set(collect([tmp_path]).runs[0].conditions.fields)

    axes = {"dataset", "test_envs", "trial_seed", "hparams_seed", "imbalance"}
    assert set(RunSpec.__dataclass_fields__) - known == {*axes, "evaluate"}  # which no table reads


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        ({"seed": 0}, {"seed": 1}, "seed: 0"),
        ({"hparams": None}, {"hparams": '{"batch_size": 8}'}, "hparams: not recorded"),
        ({"checkpoint_freq": 300}, {"checkpoint_freq": 100}, "checkpoint_freq: 300"),
    ],
    ids=["seed", "hparams", "checkpoint_freq"],
)
def test_equal_trials_that_differ_in_any_field_are_not_duplicates(first, second, refused, tmp_path, capsys):
    for name, changed in (("a", first), ("b", second)):
        write_sweep(tmp_path / name, SMALL, seed=0)
        _rewrite(tmp_path / name, lambda record, changed=changed: {**record, "args": {**record["args"], **changed}})

    assert main(["tables", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert f"mixes runs of different {refused}" in capsys.readouterr().err


def test_code_that_was_edited_between_two_sweeps_is_refused(tmp_path, capsys):
    """ResNet-18 set in DomainBed's source leaves no trace in the arguments."""
    for name in ("a", "b"):
        write_sweep(tmp_path / name, SMALL, seed=0)
        hparams = {"resnet18": name == "a"}
        _rewrite(tmp_path / name, lambda record, more=hparams: {**record, "hparams": {**record["hparams"], **more}})
    _rewrite(tmp_path / "a", _later_trials)

    assert main(["tables", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "mixes runs of different resnet18: true" in capsys.readouterr().err


def test_more_recorded_values_in_a_later_version_do_not_make_another_run(tmp_path):
    for name, more in (("a", {}), ("b", {"new": 1})):
        write_sweep(tmp_path / name, SMALL, seed=0)
        _rewrite(tmp_path / name, lambda record, more=more: {**record, "hparams": {**record["hparams"], **more}})

    collection = collect([tmp_path / "a", tmp_path / "b"])

    refuse_mixed(collection)
    assert len(collection.runs) == 32
    assert "32 runs are duplicated" in collection.skipped[0]


def test_different_data_in_different_rows_are_not_mixed(tmp_path):
    write_sweep(tmp_path / "a", SMALL, seed=0)
    write_sweep(tmp_path / "b", SMALL._replace(algorithms=("CORAL",)), seed=1)
    _rewrite(tmp_path / "b", lambda record: {**record, "protocol": "other"})

    assert main(["tables", str(tmp_path / "a"), str(tmp_path / "b")]) == 0

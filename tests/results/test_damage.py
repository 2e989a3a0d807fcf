"""Finished runs with damaged files, deleted folders, or of older versions."""

import json
import os
import shutil

import pytest
from support import quick_spec, run_quickly
from sweep_folders import write_sweep

from dg_batchformer.cli.main import main
from dg_batchformer.results import cache
from dg_batchformer.results.collect import collect
from dg_batchformer.spec.manifest import SweepRun, manifest_content
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.storage.folders import RunFolder, State, SweepFolder, write_json
from dg_batchformer.sweep.expand import expand
from dg_batchformer.sweep.plan import plan

SWEEP = SweepSpec("mine", ("PACS",), (Row("ERM", "ERM"),), trials=2, test_envs=("sketch",))


@pytest.fixture
def sweep(tmp_path):
    return write_sweep(tmp_path / "mine", SWEEP, lambda run: 0.6, hparams={})


def _states(folder):
    return [run.state for run in collect([folder.path]).runs]


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_damaged_records_are_named_and_not_counted_by_any_verb(damage, sweep, capsys):
    file = sweep.run(expand(SWEEP)[0].spec.id).records_file
    main(["tables", str(sweep.path)])  # the cache must not hide the damage
    assert "damaged" not in capsys.readouterr().err
    if damage == "gone":
        file.unlink()
    else:
        text = file.read_text()
        file.write_text(text.replace("0.6", "0.9") if damage == "flipped" else text[:-20])

    for command in (["tables", str(sweep.path)], ["report", str(sweep.path), "--output", str(sweep.path / "r.html")]):
        main(command)
        said = capsys.readouterr().err
        assert f"changed or missing since the run finished, which is excluded: {file}" in said
        assert "--retry damaged" in said

    assert _states(sweep) == [State.DAMAGED, State.DONE]
    main(["tables", str(sweep.path)])
    assert "1 damaged" in capsys.readouterr().out


def test_a_flipped_bit_is_found_despite_equal_size_and_time(sweep):
    file = sweep.run(expand(SWEEP)[0].spec.id).records_file
    collect([sweep.path])
    status = file.stat()
    file.write_bytes(file.read_bytes().replace(b"0.6", b"0.7"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert _states(sweep)[0] is State.DAMAGED


def test_a_second_table_reads_neither_records_nor_done(sweep, monkeypatch):
    collect([sweep.path])
    monkeypatch.setattr(cache, "read_bytes", None)

    assert _states(sweep) == [State.DONE, State.DONE]


def test_a_damaged_done_is_damage(sweep):
    sweep.run(expand(SWEEP)[1].spec.id).done_file.write_text('{"outcome": "do')

    assert _states(sweep) == [State.DONE, State.DAMAGED]


def test_runs_of_older_versions_are_read_with_a_note(sweep, capsys):
    for run in expand(SWEEP):
        write_json(sweep.run(run.spec.id).done_file, {"outcome": "done", "seconds": 1.0})

    main(["tables", str(sweep.path)])

    assert _states(sweep) == [State.DONE, State.DONE]
    assert "2 of 2 runs have no digests of their files" in capsys.readouterr().err


def test_a_deleted_folder_is_a_reason_in_tables(sweep, capsys):
    first = expand(SWEEP)[0].spec.id
    for run in expand(SWEEP):
        sweep.log_final(run.spec.id, State.DONE, 1.0)
    shutil.rmtree(sweep.run(first).path)

    main(["tables", str(sweep.path), "--selection", "training-domain"])

    said = capsys.readouterr()
    assert "1 folder is gone" in said.out
    assert "records lack" not in said.out
    assert "sweeps/mine.yaml" in said.err
    assert _states(sweep) == [State.GONE, State.DONE]


def _trained(path, spec):
    folder = SweepFolder(path)
    folder.write(manifest_content(SweepSpec("mine", ("Toy",), (Row("ERM", "ERM"),)), [SweepRun("ERM", spec)]))
    run_quickly(spec, folder.run(spec.id).path, predictions=True)
    folder.log_final(spec.id, State.DONE, 1.0)
    return folder, folder.run(spec.id)


def test_domainbeds_format_counts_damaged_records_and_says_so(tmp_path, capsys):
    folder, run = _trained(tmp_path, quick_spec())
    run.records_file.write_text(run.records_file.read_text() + "\n")

    main(["tables", str(folder.path), "--format", "domainbed"])

    assert f"included, as in DomainBed: {run.records_file}" in capsys.readouterr().err


def test_a_damaged_run_is_trained_again_to_the_same_numbers(tmp_path, capsys):
    spec = quick_spec()
    folder, run = _trained(tmp_path, spec)
    before = [json.loads(line)["env3_in_acc"] for line in run.records_file.read_text().splitlines()]
    run.records_file.write_text("damaged\n")
    assert main(["status", str(tmp_path)]) == 0
    assert main(["status", str(tmp_path), "--verify"]) == 1
    assert "results.jsonl changed since the run finished" in capsys.readouterr().out

    [due] = plan(folder, [SweepRun("ERM", spec)], retry=[State.DAMAGED]).due
    folder.restart(due.spec.id)
    run_quickly(spec, run.path, predictions=True)

    assert [json.loads(line)["env3_in_acc"] for line in run.records_file.read_text().splitlines()] == before
    assert _states(folder) == [State.DONE]


def test_damaged_predictions_and_models_are_reported_by_the_commands_that_read_them(tmp_path, capsys):
    folder, run = _trained(tmp_path, quick_spec())
    for file in (run.predictions_file, run.model_file):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)

    main(["tables", str(tmp_path), "--metric", "balanced"])
    assert f"which is excluded: {run.predictions_file}" in capsys.readouterr().err
    assert main(["predict", str(run.path), str(tmp_path)]) == 2
    assert f"{run.model_file} is damaged: it differs from what its run wrote" in capsys.readouterr().err
    assert _states(folder) == [State.DONE]  # the accuracy needs neither


def test_train_says_that_its_finished_run_is_damaged(tmp_path, capsys):
    words = f"train --dataset Toy --output_dir {tmp_path / 'run'} --protocol quick --steps 2".split()
    assert main(words) == 0
    with (tmp_path / "run" / "results.jsonl").open("a") as file:
        file.write("\n")

    assert main(words) == 1
    assert "results.jsonl changed since the run finished; delete" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\x00"])
def test_an_unreadable_spec_of_an_unfinished_run_that_its_sweep_declares_is_written_again(content, tmp_path):
    spec = quick_spec()
    folder = SweepFolder(tmp_path)
    folder.write(manifest_content(SweepSpec("mine", ("Toy",), (Row("ERM", "ERM"),)), [SweepRun("ERM", spec)]))
    run = folder.run(spec.id)
    run.path.mkdir(parents=True)
    run.records_file.touch()
    if content is not None:
        run.spec_file.write_bytes(content)

    assert run_quickly(spec, run.path) is State.DONE

    assert json.loads(run.spec_file.read_text()) == spec.as_dict()


def test_an_unreadable_spec_elsewhere_is_still_refused(tmp_path):
    spec = quick_spec()
    for path in (tmp_path / "runs" / spec.id, tmp_path / "train"):
        RunFolder(path).path.mkdir(parents=True)
        RunFolder(path).records_file.touch()
        RunFolder(path).spec_file.write_text("{")
        with pytest.raises(ValueError, match=r"spec\.json cannot be read"):
            run_quickly(spec, path)

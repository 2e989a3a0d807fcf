"""Tables, report and status of single runs of ``train``, and of folders of them."""

import re
import shlex
from pathlib import Path

import pytest
from support import resolved

from dg_batchformer.cli.main import main, parser
from dg_batchformer.cli.train import run_spec
from dg_batchformer.results.collect import collect
from dg_batchformer.results.our_sweep import train_command
from dg_batchformer.spec.launch import Launch, kept_options, options_of_run
from dg_batchformer.storage.digests import mark_done
from dg_batchformer.storage.folders import RunFolder, State, SweepFolder, write_json
from dg_batchformer.storage.records import to_line
from dg_batchformer.text.command import PROGRAM


def _write(path, *, done=True, dataset="Toy", **asked):
    spec, folder = resolved(dataset, **asked), RunFolder(path)
    folder.path.mkdir(parents=True)
    write_json(folder.spec_file, spec.as_dict())
    values = {f"env{env}_{split}_acc": 0.5 + 0.1 * env for env in range(4) for split in ("in", "out")}
    folder.records_file.write_text(to_line({**values, "step": 4, "args": {}, "protocol": spec.protocol}))
    if done:
        mark_done(folder, {"outcome": "done", "seconds": 1.0})
    return spec


def test_a_run_has_a_table_and_a_report_of_its_own(tmp_path, capsys):
    spec = _write(tmp_path / "run", algorithm="SWAD+BF", test_envs=("C",))

    assert main(["tables", str(tmp_path / "run"), "--format", "csv", "--selection", "swad-last"]) == 0
    said = capsys.readouterr()
    assert main(["report", str(tmp_path / "run")]) == 0

    assert "swad-last,Toy,BF+SWAD,C,70.0" in said.out
    assert said.err == ""
    page = re.sub("<[^>]*>", "", (tmp_path / "run" / "report.html").read_text()).replace("&#34;", '"')
    [train] = re.findall(rf"{PROGRAM} (train .+)", page)
    assert run_spec(parser().parse_args(shlex.split(train))).id == spec.id


def test_the_runs_of_a_folder_make_one_table(tmp_path, capsys):
    for env in "ABCD":
        _write(tmp_path / f"erm-{env}", test_envs=(env,))
    _write(tmp_path / "coral", algorithm="CORAL", test_envs=("A",), done=False)

    collection = collect([tmp_path])

    assert list(collection.rows) == ["ERM", "CORAL"]
    assert [run.state for run in collection.runs].count(State.DONE) == 4
    assert "1 of 5 runs" in collection.skipped[0]
    assert main(["status", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "ERM on Toy/A, trial 0: done" in said
    assert f"CORAL on Toy/A, trial 0: interrupted, 5 of 5001 updates\ncontinue: {PROGRAM} train " in said
    assert main(["tables", str(tmp_path), "--unfinished", "--format", "csv", "--selection", "oracle"]) == 0
    assert "oracle,Toy,CORAL,A,50.0" in capsys.readouterr().out


def test_a_run_is_continued_with_the_options_that_train_was_given(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _write(Path("runs/one"), dataset="PACS", done=False)
    kept = kept_options({"data_dir": Path("my data"), "keep": "none"}, Path("runs/one"))
    write_json(Path("runs/one/launch.json"), kept)

    assert main(["status", "runs/one"]) == 0

    [train] = re.findall(rf"continue: {PROGRAM} (train .+)", capsys.readouterr().out)
    asked = parser().parse_args(shlex.split(train))
    assert (asked.data_dir, asked.keep, asked.output_dir) == (Path("my data"), "none", Path("runs/one"))
    monkeypatch.chdir(tmp_path / "runs" / "one")
    assert options_of_run(RunFolder(Path()))["data_dir"].resolve() == tmp_path / "my data"


@pytest.mark.parametrize(("given", "keep"), [({}, "none"), ({"keep": "best", "devices": "cpu,cpu"}, "best")])
def test_a_run_of_a_sweep_is_continued_with_the_options_of_that_sweep(given, keep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = SweepFolder(Path("results/mine"))
    launch = Launch(Path("mine.yaml"), {"data_dir": Path("my data"), **given})
    sweep.write({"launch": launch.kept(sweep.path)})

    assert options_of_run(sweep.run("0")) == {"data_dir": Path("my data"), "keep": keep}


def test_commands_contain_data_if_the_data_folder_is_unknown(tmp_path):
    spec = _write(tmp_path / "run", dataset="PACS", done=False)

    assert "--data_dir DATA" in train_command(spec, tmp_path / "run")


def test_status_of_a_run_that_failed_says_why(tmp_path, capsys):
    _write(tmp_path / "run", done=False, dataset="PACS")
    RunFolder(tmp_path / "run").fail("all is lost")

    assert main(["status", str(tmp_path / "run")]) == 1
    assert "ERM on PACS/art_painting, trial 0: failed, 5 of 5001 updates: all is lost" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["tables", "status", "report"])
def test_a_run_whose_spec_cannot_be_read_is_named(verb, tmp_path, capsys):
    (tmp_path / "spec.json").write_text("{")

    assert main([verb, str(tmp_path)]) == 2
    assert f"{tmp_path / 'spec.json'} cannot be read" in capsys.readouterr().err

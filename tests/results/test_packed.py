"""Packed records: one file gives the same tables, comparisons and report as the run folders, byte for byte."""

import json
import re
import shutil

import pytest
from generated import ROWS, write_sweep
from support import resolved

from dg_batchformer.cli.main import main
from dg_batchformer.errors import InputError
from dg_batchformer.results.collect import collect
from dg_batchformer.results.our_sweep import pack
from dg_batchformer.results.unpack import unpack
from dg_batchformer.spec.race import Race
from dg_batchformer.storage.digests import mark_done
from dg_batchformer.storage.folders import RunFolder, State, SweepFolder, write_json
from dg_batchformer.storage.parquet import read_parquet, write_parquet
from dg_batchformer.storage.records import to_line

pandas = pytest.importorskip("pandas")
pyarrow = pytest.importorskip("pyarrow")
pyarrow_parquet = pytest.importorskip("pyarrow.parquet")


def _become(run):
    if run.spec.trial_seed == 0 or run.spec.hparams_seed == 0:
        return State.DONE
    return {"ERM": State.FAILED, "SWAD": State.DIVERGED, "ERM+BF": State.DUE}.get(run.label, State.DONE)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = write_sweep(tmp_path_factory.mktemp("results") / "mine", _become, test_envs=("0", "1"), records=3)
    first, second, third, *_ = sorted(file for file in folder.runs.glob("*/results.jsonl"))
    first.write_text(first.read_text().replace('"step": 0', '"step": 0, "label": 3.5, "loss": null', 1) + "{torn\n")
    second.write_text(re.sub(r'(env0_out_acc": )[\d.]+', r"\1NaN", second.read_text(), count=1))
    mark_done(RunFolder(third.parent), {"outcome": "done"})
    third.write_text(third.read_text() + "\n")  # damaged
    spec = resolved("PACS", algorithm="ERM", test_envs=(0,))
    soup = RunFolder(folder.soups / "0123456789abcdef")
    soup.path.mkdir(parents=True)
    write_json(soup.soup_file, {"label": "ERM soup"})
    write_json(soup.spec_file, spec.as_dict())
    soup.records_file.write_text(to_line({"env0_in_acc": 0.5, "env1_out_acc": 0.6, "step": 9, "args": spec.as_dict()}))
    mark_done(soup, {"outcome": "done"})
    return folder


@pytest.fixture(scope="module")
def packed(sweep, tmp_path_factory):
    """The packed sweep alone, in a folder of the same name."""
    assert main(["pack", str(sweep.path)]) == 0
    folder = tmp_path_factory.mktemp("packed") / "mine"
    folder.mkdir()
    shutil.move(sweep.packed_file, folder)
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["tables", "DIR", "--selection", "all", "--hparams"],
        ["tables", "DIR", "--format", "json", "--unfinished"],
        ["tables", "DIR", "--format", "domainbed"],
        ["compare", "ERM", "SWAD", "DIR", "--format", "json"],
    ],
    ids=" ".join,
)
def test_what_is_printed_is_equal_to_the_byte(words, sweep, packed, capsys, monkeypatch):
    said = []
    for folder in (sweep.path, packed):
        monkeypatch.chdir(folder.parent)
        main([folder.name if word == "DIR" else word for word in words])
        said.append(capsys.readouterr())

    assert said[0] == said[1]
    assert "PACS" in said[0].out


def test_the_report_is_equal_but_for_its_time(tmp_path, monkeypatch):
    asked = {"algorithms": ROWS[:2], "test_envs": ("0",), "draws": 1, "trials": 1}
    folder = write_sweep(tmp_path / "mine", lambda run: State.FAILED if run.label == "ERM+BF" else State.DONE, **asked)
    assert main(["pack", str(folder.path)]) == 0
    alone = tmp_path / "packed" / "mine"
    alone.mkdir(parents=True)
    shutil.move(folder.packed_file, alone)
    pages = []
    for place in (folder.path, alone):
        monkeypatch.chdir(place.parent)
        main(["report", place.name, "--output", str(tmp_path / "report.html")])
        pages.append(re.sub(r"Made [\d-]+ [\d:]+", "", (tmp_path / "report.html").read_text()))

    assert pages[0] == pages[1]
    assert "CUDA out of memory" in pages[0]


def test_records_are_restored_unchanged(sweep, packed):
    for run, back in zip(collect([sweep.path]).runs, collect([packed]).runs, strict=True):
        assert (run.label, run.state, run.constant) == (back.label, back.state, back.constant)
        assert run.evaluations.steps.tolist() == back.evaluations.steps.tolist()
        for key in {*run.evaluations.keys, *back.evaluations.keys}:
            assert run.evaluations.has(key).tolist() == back.evaluations.has(key).tolist()
            assert repr(run.evaluations.column(key).tolist()) == repr(back.evaluations.column(key).tolist())


def test_pandas_reads_one_row_per_record(packed):
    frame = pandas.read_parquet(packed / "records.parquet")

    rows = frame[(frame.label == "ERM") & (frame.test_envs == "art_painting") & (frame.trial_seed == 0)]
    assert sorted(rows.step.unique()) == [0, 400, 800]
    assert rows.env0_in_acc.between(0, 1).all()
    assert json.loads(rows.constant.iloc[0])["protocol"] == "domainbed-2020"


def test_run_folders_take_precedence_over_packed_records(sweep, packed):
    sweep.packed_file.write_bytes(b"damaged")

    assert len(collect([sweep.path]).runs) == len(collect([packed]).runs)
    sweep.packed_file.unlink()


@pytest.mark.parametrize("damage", [lambda content: b"no parquet", lambda content: content[:-200], lambda content: b""])
def test_a_damaged_file_is_one_sentence(damage, packed, tmp_path, capsys):
    (tmp_path / "records.parquet").write_bytes(damage((packed / "records.parquet").read_bytes()))

    assert main(["tables", str(tmp_path)]) == 2
    assert "cannot be read as packed records" in capsys.readouterr().err


def test_a_table_of_another_program_is_not_a_sweep(tmp_path, capsys):
    pandas.DataFrame({"run": ["a"]}).to_parquet(tmp_path / "records.parquet")

    assert main(["tables", str(tmp_path)]) == 2
    assert "dg_batchformer did not write it" in capsys.readouterr().err


def test_too_many_rows_are_not_read(tmp_path):
    rows = pyarrow.array([0]).take(pyarrow.array([0] * 3_500_000))
    pyarrow_parquet.write_table(pyarrow.table([rows] * 10, names=list("abcdefghij")), tmp_path / "records.parquet")
    with pytest.raises(InputError, match="more than the records of a sweep"):
        read_parquet(tmp_path / "records.parquet", texts=[])


def test_a_sweep_without_any_record_is_packed_too(tmp_path, capsys):
    folder = write_sweep(tmp_path / "mine", lambda run: State.DUE, algorithms=ROWS[:1], trials=1, draws=1)

    assert main(["pack", str(folder.path)]) == 0
    folder.sweep_file.unlink()
    assert main(["tables", str(folder.path)]) == 0
    assert "0 of 1 runs trained, 1 due" in capsys.readouterr().out


def test_commands_that_need_run_folders_say_so(packed, capsys):
    assert main(["status", str(packed)]) == 2
    assert "packed records" in capsys.readouterr().err
    assert main(["pack", str(packed)]) == 2
    assert "is packed already" in capsys.readouterr().err


def test_a_sweep_in_a_packed_folder_trains_only_what_is_new(tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    asked = "datasets: [Debug28]\nalgorithms: [{rows}]\nprotocol: quick\nsteps: 2\ntrials: 1\ntest_envs: ['0']\n"
    words = ["--results_dir", str(tmp_path / "results"), "--devices", "cpu", "--threads", "1"]
    file.write_text(asked.format(rows="ERM"))
    assert main(["sweep", str(file), *words]) == 0
    folder = SweepFolder(tmp_path / "results" / "mine")
    assert main(["pack", str(folder.path)]) == 0
    (trained,) = folder.run_names()
    records = folder.run(trained).records_file.read_bytes()
    for left in (folder.runs, folder.launches):
        shutil.rmtree(left)
    for file_of_sweep in (folder.sweep_file, folder.states_log):
        file_of_sweep.unlink()
    file.write_text(asked.format(rows="ERM, CORAL"))
    capsys.readouterr()

    assert main(["sweep", str(file), *words, "--launcher", "dry_run"]) == 0
    assert "2 runs: 1 due, 1 done. To start: 1" in capsys.readouterr().out
    assert not folder.runs.exists()
    assert not folder.sweep_file.exists()

    assert main(["sweep", str(file), *words]) == 0

    said = capsys.readouterr().out
    assert "has 1 finished run, which are not trained again" in said
    assert "2 runs: 1 due, 1 done. To start: 1" in said
    assert folder.run(trained).records_file.read_bytes() == records
    assert [run.state for run in collect([folder.path]).runs] == [State.DONE, State.DONE]


def test_a_soup_cannot_leave_its_folder(packed, tmp_path):
    (folder := tmp_path / "mine").mkdir()
    table, note = read_parquet(packed / "records.parquet", texts=[])
    note["soups"] = {f"../../{name}": soup for name, soup in note["soups"].items()}
    with (folder / "records.parquet").open("wb") as target:
        write_parquet(target, table, note)

    with pytest.raises(InputError, match="a name that soups do not have"):
        unpack(SweepFolder(folder))
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "records.parquet"]


def test_unpacked_folders_give_what_the_packed_records_give(packed, tmp_path):
    folder = SweepFolder(tmp_path / "mine")
    shutil.copytree(packed, folder.path)

    unpack(folder)

    final = [
        (packed_run, run)
        for packed_run, run in zip(collect([packed]).runs, collect([folder.path]).runs, strict=True)
        if packed_run.state.is_final
    ]
    assert len(final) > 10
    for packed_run, run in final:
        assert (run.label, run.state, run.constant) == (packed_run.label, packed_run.state, packed_run.constant)
        assert run.evaluations.latest() == pytest.approx(packed_run.evaluations.latest(), abs=0, nan_ok=True)
    with pytest.raises(InputError, match="is not packed"):
        unpack(folder)


def test_runs_that_a_race_stopped_are_packed_and_unpacked(tmp_path):
    asked = {"draws": 3, "trials": 1, "test_envs": ("0",), "checkpoint_freq": 100, "race": Race((200,))}
    folder = write_sweep(tmp_path / "mine", algorithms=ROWS[:1], **asked)
    stopped = folder.run(collect([folder.path]).runs[1].path.name)
    stopped.done_file.unlink()
    write_json(stopped.race_file, {"step": 200, "seconds": 60.0, "seconds_spared": 180.0})
    found = []

    for _ in ("run folders", "packed", "unpacked"):
        runs = collect([folder.path]).runs
        found.append([(run.state, run.ending[:2], run.ending.seconds_spared, run.constant) for run in runs])
        if folder.is_packed:
            assert unpack(folder) == 3
        else:
            pack(folder)
            shutil.rmtree(folder.runs)
            folder.states_log.unlink(missing_ok=True)
            folder.sweep_file.unlink()

    assert found[0] == found[1] == found[2]
    assert found[0][1][:3] == (State.OUTRACED, (60.0, ""), 180.0)

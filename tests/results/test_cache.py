"""Reading of run folders, and its cache."""

import json
import math
import os
import sys

import numpy as np
import pytest
from domainbed_sweeps import Kind, write_sweep

from dg_batchformer.results import cache
from dg_batchformer.results.cache import read_folders
from dg_batchformer.storage.folders import cache_dir


@pytest.fixture
def sweep(tmp_path):
    write_sweep(tmp_path, Kind(datasets=("PACS",), trials=1, draws=1, diverged=0.2), seed=0)
    return tmp_path


def _everything(files):
    return {name: [(run.constant, *_columns(run.evaluations)) for run in file.runs] for name, file in files.items()}


def _columns(evaluations):
    values = np.nan_to_num(evaluations.values, nan=-1)
    return evaluations.keys, evaluations.steps.tolist(), evaluations.recorded.tolist(), values.tolist()


def test_a_second_call_reads_no_file_and_returns_the_same(sweep, monkeypatch):
    first = read_folders(sweep)

    def refuse(content):
        raise AssertionError("a file was read again")

    monkeypatch.setattr(cache, "parse_records", refuse)

    assert _everything(read_folders(sweep)) == _everything(first)


def test_only_what_changed_is_read_again(sweep, monkeypatch):
    read_folders(sweep)
    file = next(sweep.glob("*/results.jsonl"))
    file.write_text(file.read_text() * 2)
    read = []
    parse = cache.parse_records
    monkeypatch.setattr(cache, "parse_records", lambda content: read.append(content) or parse(content))

    files = read_folders(sweep)

    assert len(read) == 1
    assert len(files[file.parent.name].runs[0].evaluations) == 10


def test_the_cache_keeps_nan_and_odd_names(tmp_path):
    record = {"step": 0, "args": {"dataset": "PACS", "lr": float("nan"), "big": 10**30}, "env0_in_acc": 0.5}
    for name in ("plain", os.fsdecode(b"caf\xe9")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.jsonl").write_text(json.dumps(record) + "\n")

    first, again = read_folders(tmp_path), read_folders(tmp_path)

    assert list(first) == list(again) == sorted(path.name for path in tmp_path.iterdir())
    for files in (first, again):
        args = files["plain"].runs[0].args
        assert (math.isnan(args["lr"]), args["big"]) == (True, 10**30)


def test_a_deleted_run_is_removed_from_the_cache(sweep):
    read_folders(sweep)
    file = next(sweep.glob("*/results.jsonl"))
    file.unlink()

    assert file.parent.name not in read_folders(sweep)


@pytest.mark.parametrize("damage", [b"", b"PK no archive", None])
def test_a_damaged_cache_is_ignored(sweep, damage):
    first = _everything(read_folders(sweep))
    [memory] = (cache_dir() / "records").glob(f"{cache.cache_file(sweep).name}")
    memory.write_bytes(memory.read_bytes()[:-400] if damage is None else damage)

    assert _everything(read_folders(sweep)) == first


def test_an_unwritable_cache_only_costs_time(sweep, monkeypatch):
    (sweep.parent / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(sweep.parent / "a file"))

    assert len(read_folders(sweep)) == 12


@pytest.fixture
def usual_recursion_limit():
    """Limit recursion as Python does by default; compilers raise the limit for the whole process."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("usual_recursion_limit")
@pytest.mark.parametrize("depths", [(300,), (300, 1020, 5000)])
def test_records_nested_too_deep_are_counted_each_time(tmp_path, depths):
    record = {"step": 0, "args": {"dataset": "PACS"}, "env0_in_acc": 0.5}
    (tmp_path / "run").mkdir()
    deep = ['{"step": 0, "args": ' + '{"a":' * depth + "1" + "}" * depth + "}" for depth in depths]
    (tmp_path / "run" / "results.jsonl").write_text("\n".join([*deep, json.dumps(record)]))

    first, again = (read_folders(tmp_path)["run"] for _ in range(2))

    assert first.unreadable == again.unreadable == max(len(depths) - 1, 1)
    assert first.runs[-1].args == again.runs[-1].args == record["args"]


def test_torn_lines_foreign_lines_and_wrong_types_are_counted(tmp_path):
    record = {"step": 0, "args": {"dataset": "PACS"}, "env0_in_acc": 0.5}
    lines = [json.dumps(record), '{"step": 1, "env0', "[]", "null", "", json.dumps(record | {"env0_in_acc": "high"})]
    lines += [json.dumps({**record, "args": {"dataset": "VLCS"}, "env0_in_acc": float("nan"), "step": 2})]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.jsonl").write_text("\n".join(lines))

    file = read_folders(tmp_path)["run"]

    assert file.unreadable == 5
    assert [run.args["dataset"] for run in file.runs] == ["VLCS"]

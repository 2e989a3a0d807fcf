"""Rows that differ in more than the algorithm, or deviate from their protocol, are marked in all outputs."""

import json

import pytest
from domainbed_sweeps import Kind
from domainbed_sweeps import write_sweep as write_domainbed_sweep
from generated import write_sweep

from dg_batchformer.cli.main import main
from dg_batchformer.report.page import build_page
from dg_batchformer.results.collect import collect
from dg_batchformer.results.collection import CollectedRun
from dg_batchformer.results.conditions import conditions
from dg_batchformer.results.row_conditions import by_benchmark
from dg_batchformer.results.runs import Place, RunRecords, parse_records
from dg_batchformer.spec.sweep import Row
from dg_batchformer.storage.folders import State
from dg_batchformer.tables.render import FORMATS, render
from dg_batchformer.tables.table import build_sections

SMALL = Row("small batch", "ERM", {"batch_size": 8})
ROWS = (Row("ERM", "ERM"), Row("CORAL", "CORAL"), SMALL)


def _sweep(path, *, name="mine", algorithms=ROWS, draws=1, records=3, test_envs=("0",), **asked):
    return write_sweep(
        path, name=name, algorithms=algorithms, draws=draws, records=records, test_envs=test_envs, **asked
    ).path


def _table(*folders):
    [section] = build_sections(collect(folders), ["training-domain"])
    return section.tables[-1]


def test_a_row_with_another_hparam_is_marked_and_the_note_says_which(tmp_path):
    conditions = _table(_sweep(tmp_path)).conditions

    assert conditions.differs == {"small batch": ["batch_size 8, not 32"]}


@pytest.mark.parametrize(
    ("form", "mark"),
    [
        ("text", "small batch §"),
        ("markdown", "| small batch §"),
        ("latex", r"small batch $\S$ &"),
        ("latex_fragment", r"small batch $\S$ &"),
        ("html", '<th scope="row">small batch §</th>'),
        ("csv", "batch_size 8, not 32"),
        ("json", "batch_size 8, not 32"),
    ],
)
def test_every_format_shows_what_differs_and_what_deviates(form, mark, tmp_path):
    said = render(build_sections(collect([_sweep(tmp_path)]), ["training-domain"]), form).replace(r"\_", "_")

    assert set(FORMATS) == {"text", "latex", "latex_fragment", "markdown", "html", "csv", "json"}
    assert mark in said
    assert "steps 801, not 5001" in said
    if form not in ("csv", "json"):
        assert "differs from the other rows in more than the algorithm: small batch (batch_size 8, not 32)" in said
        assert "deviates from protocol domainbed-2020: steps 801, not 5001; data_path cached, not exact" in said


def test_compare_says_in_its_sentence_that_rows_differ_in_more_than_the_algorithm(tmp_path, capsys):
    folder = str(_sweep(tmp_path, test_envs=None))

    assert main(["compare", "ERM", "small batch", folder, "--format", "json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert found["sentence"].endswith("The rows differ in more than the algorithm: batch_size 8, not 32.")
    assert found["differs"] == ["batch_size 8, not 32"]
    assert "steps 801, not 5001" in found["deviations"]["ERM"]

    assert main(["compare", "ERM", "CORAL", folder]) == 0
    said = capsys.readouterr().out
    assert "more than the algorithm" not in said
    assert "deviates from protocol domainbed-2020: steps 801, not 5001" in said


def test_the_report_says_so_below_its_tables_and_in_its_verdict(tmp_path):
    folder = _sweep(tmp_path, algorithms=(ROWS[0], SMALL), test_envs=None)

    page = build_page(collect([folder]), [folder])

    verdict = page[page.index('class="verdict"') : page.index("<figure")]
    assert "The rows differ in more than the algorithm: batch_size 8, not 32" in verdict
    assert "small batch (batch_size 8, not 32)" in page
    assert "deviates from protocol domainbed-2020" in page


def test_rows_of_sweeps_under_different_conditions_are_set_apart(tmp_path):
    first = _sweep(tmp_path / "a", algorithms=ROWS[:2])
    conditions = {"protocol": "swad-2021", "precision": "fp32", "steps": 101, "hparams": {"backbone": "resnet18"}}
    second = _sweep(tmp_path / "b", algorithms=(Row("MMD", "MMD"),), **conditions)

    said = _table(first, second).conditions.differs

    assert list(said) == ["MMD"]
    assert {"protocol swad-2021, not domainbed-2020", "steps 101, not 801"} <= set(said["MMD"])
    assert "checkpoint_freq 100, not 300" in said["MMD"]


@pytest.mark.parametrize(
    ("recorded", "said"),
    [({"device": "NVIDIA A100"}, "fp32 or tf32"), ({"device": "NVIDIA A100", "tf32": False}, "fp32"),
     ({"device": "cpu"}, "fp32"), ({"device": "NVIDIA A100", "precision": "bf16"}, "bf16")],
)  # fmt: skip
def test_fp32_of_a_gpu_that_does_not_record_tf32_may_have_been_tf32(recorded, said):
    place = Place("PACS", "ERM", (0,), 0, 0)

    assert conditions({"precision": "fp32", **recorded}, place).fields["precision"] == said


def test_a_row_that_chooses_among_fewer_draws_is_marked(tmp_path):
    many = _sweep(tmp_path / "a", algorithms=ROWS[:2], draws=3)
    alone = _sweep(tmp_path / "b", algorithms=(Row("MMD", "MMD"),))

    assert _table(many).conditions.differs == {}
    assert "draws 1, not 3" in _table(many, alone).conditions.differs["MMD"]


def test_a_soup_is_of_all_draws_of_its_row():
    recorded, of_soup = RunRecords({"args": {}}), RunRecords({"args": {}, "soup_members": 3})
    draws = [CollectedRun("ERM", "Toy", "ERM", (0,), 0, draw, State.DONE, recorded) for draw in range(3)]
    soup = CollectedRun("soup", "Toy", "ERM", (0,), 0, 0, State.DONE, of_soup)

    assert by_benchmark([*draws, soup], ["ERM", "soup"])["Toy"].differs == {}


def test_switches_in_records_are_conditions_and_not_measurements():
    record = {"args": {}, "step": 0, "env0_in_acc": 0.5, "tf32": False, "soup_members": 3}

    [run] = parse_records(json.dumps(record).encode()).runs

    assert run.evaluations.keys == ("env0_in_acc",)
    assert run.constant == {"args": {}, "tf32": False, "soup_members": 3}


def test_an_hparam_that_other_rows_lack_belongs_to_the_algorithm(tmp_path):
    rows = (Row("ERM", "ERM"), Row("BF", "ERM+BF", {"bf_layers": 1}), Row("2 layers", "ERM+BF", {"bf_layers": 2}))

    assert _table(_sweep(tmp_path, algorithms=rows)).conditions.differs == {"2 layers": ["bf_layers 2, not 1"]}
    assert _table(_sweep(tmp_path / "alone", algorithms=rows[:2])).conditions.differs == {}


def test_averages_over_datasets_say_on_which_a_row_deviates(tmp_path):
    table = _table(_sweep(tmp_path, datasets=("PACS", "DomainNet"), protocol="swad-2021", steps=5001, hparams={}))

    assert table.title == "Averages"
    assert "steps 5001, not 15001 on DomainNet" in table.conditions.deviations["ERM"]


@pytest.mark.parametrize(("protocol", "deviates"), [("domainbed-2020", True), ("swad-2021", True), ("quick", False)])
def test_only_protocols_of_papers_fix_precision_and_compilation(protocol, deviates, tmp_path):
    deviations = _table(_sweep(tmp_path, protocol=protocol, compile="auto")).conditions.deviations["ERM"]

    assert "steps 801, not" in deviations[0]
    assert ("compile auto, not off" in deviations) is deviates


def test_the_unchanged_protocol_has_no_deviations(tmp_path):
    asked = {"protocol": "swad-2021", "steps": None, "data_path": "exact", "precision": "fp32", "compile": "off"}

    conditions = _table(_sweep(tmp_path, algorithms=ROWS[:2], **asked)).conditions

    assert (conditions.differs, conditions.deviations, conditions.notes) == ({}, {}, [])


def test_cached_features_are_part_of_the_protocols_that_use_them(tmp_path):
    path = _sweep(tmp_path, protocol="laptop", steps=1001, checkpoint_freq=50, precision="fp32", compile="off")

    assert not any("data_path" in text for texts in _table(path).conditions.deviations.values() for text in texts)


def test_rows_of_domainbed_differ_by_the_network_that_their_hparams_say(tmp_path):
    for name, small in (("a", False), ("b", True)):
        kind = Kind(datasets=("PACS",), algorithms=("ERM",) if small else ("CORAL", "MMD"), trials=1, draws=1)
        write_domainbed_sweep(tmp_path / name, kind, seed=0)
        for file in (tmp_path / name).glob("*/results.jsonl"):
            records = [json.loads(line) for line in file.read_text().splitlines()]
            lines = [json.dumps({**one, "hparams": {**one["hparams"], "resnet18": small}}) for one in records]
            file.write_text("\n".join(lines) + "\n")

    conditions = _table(tmp_path / "a", tmp_path / "b").conditions

    assert conditions.differs == {"ERM": ["resnet18 true, not false"]}
    assert conditions.deviations == {}


def test_foreign_texts_in_records_are_printed_in_one_line(tmp_path):
    for name, hparam in (("a", "x"), ("b", "y\x1b[31m\n\u202e")):
        kind = Kind(datasets=("PACS",), algorithms=("ERM" if name == "a" else "MMD",), trials=1, draws=1)
        write_domainbed_sweep(tmp_path / name, kind, seed=0)
        for file in (tmp_path / name).glob("*/results.jsonl"):
            records = [json.loads(line) for line in file.read_text().splitlines()]
            file.write_text("".join(json.dumps({**one, "hparams": {"backbone": hparam}}) + "\n" for one in records))

    [text] = _table(tmp_path / "a", tmp_path / "b").conditions.differs["MMD"]

    assert text.isprintable()
    assert text.endswith(", not x")

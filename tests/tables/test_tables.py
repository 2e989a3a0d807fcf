"""Tables from run folders: numbers, marks, and a reason for every empty cell."""

import csv
import io
import json

import pytest
from sweep_folders import write_sweep
from typesetting import typeset

from dg_batchformer.cli.main import main
from dg_batchformer.results import selection
from dg_batchformer.results.collect import collect
from dg_batchformer.spec.manifest import manifest_content
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.storage.folders import SweepFolder, write_json, write_text
from dg_batchformer.storage.records import to_line
from dg_batchformer.sweep.expand import expand
from dg_batchformer.tables.render import FORMATS, render
from dg_batchformer.tables.render.latex_text import MATHS, TEXT, escape
from dg_batchformer.tables.table import build_sections

METHODS = ["training-domain", "leave-one-domain-out", "oracle"]
METHODS_THERE = list(selection.METHODS)
ROWS = (Row("ERM", "ERM"), Row("ERM+BF", "ERM+BF"), Row("50% off & _more_", "CORAL"))


def _finish(folder, run, test, records=1, outcome="done"):
    spec = run.spec
    path = folder.run(spec.id).path
    path.mkdir(parents=True)
    lines = []
    for step in range(records):
        values = {f"env{env}_{split}_acc": 0.5 for env in range(4) for split in ("in", "out")}
        values |= {f"env{env}_in_acc": test for env in spec.test_envs}
        lines.append(to_line({**values, "step": step, "args": {}}))
    write_text(folder.run(spec.id).records_file, "".join(lines))
    write_json(folder.run(spec.id).done_file, {"outcome": outcome})


def _sweep(tmp_path, *, keep=lambda run: True, **asked):
    sweep = SweepSpec(**{"name": "mine", "datasets": ("PACS",), "algorithms": ROWS, "trials": 3, **asked})
    runs = expand(sweep)
    folder = SweepFolder(tmp_path)
    folder.write(manifest_content(sweep, runs))
    for run in runs:
        if keep(run):
            bonus = 0.1 * [row.label for row in sweep.algorithms].index(run.label)
            _finish(folder, run, 0.5 + bonus + 0.01 * run.spec.trial_seed + 0.02 * run.spec.test_envs[0])
    return folder


def _sections(folder):
    return build_sections(collect([folder.path]), METHODS)


def test_cells_are_domainbeds_means_and_errors_over_trials(tmp_path):
    table = _sections(_sweep(tmp_path))[0].tables[0]

    cell = table.rows["ERM+BF"][3]
    assert (round(cell.mean, 6), round(cell.error, 6), cell.n) == (67.0, round(0.816496580927726 / 3**0.5, 6), 3)
    assert table.columns == ["art_painting", "cartoon", "photo", "sketch", "Average", "Worst", "In-domain"]
    average, worst, in_domain = table.rows["ERM"][4:]
    assert round(average.mean, 6) == 54.0
    assert round(worst.mean, 6) == 51.0
    assert (round(in_domain.mean, 6), round(in_domain.error, 6), in_domain.n) == (50.0, 0.0, 3)
    assert ("50% off & _more_", 0) in table.best
    assert ("ERM+BF", 4) in table.second


def test_every_empty_or_thin_cell_is_explained(tmp_path):
    def keep(run):
        return not (run.label == "ERM" and run.spec.trial_seed == 2) and run.label != "ERM+BF"

    text = render(_sections(_sweep(tmp_path, keep=keep)), "text")

    assert "ERM (art_painting, cartoon, photo, sketch): 2 of 3 trials; 2 of 3 runs trained, 1 due" in text
    assert "ERM+BF (art_painting, cartoon, photo, sketch): 0 of 3 trials; 0 of 3 runs trained, 3 due" in text
    assert "50.5 ± 0.4 (n=2)" in text
    assert "X no value: the reason is below the table" in text


def test_a_cell_chosen_among_fewer_draws_than_declared_says_so(tmp_path):
    def keep(run):
        return run.spec.hparams_seed == 0 or run.label != "ERM" or run.spec.test_envs != (3,)

    table = _sections(_sweep(tmp_path, trials=1, draws=4, keep=keep))[0].tables[0]

    assert table.rows["ERM"][3].n == 1
    assert table.notes[0] == "ERM (sketch): 1 of 4 runs trained, 3 due"


def test_diverged_runs_are_counted_below_the_table_even_if_the_cell_has_a_value(tmp_path):
    folder = _sweep(tmp_path, trials=1, keep=lambda run: run.spec.test_envs != (0,))
    for run in expand(SweepSpec("mine", ("PACS",), ROWS, trials=1)):
        if run.spec.test_envs == (0,):
            _finish(folder, run, 0.2, outcome="diverged")

    table = _sections(folder)[0].tables[0]

    assert table.rows["ERM"][0].mean == pytest.approx(20)
    assert "50% off & _more_ (art_painting): 1 run diverged" in table.notes[0]


def test_summary_columns_say_what_they_average_if_unclear(tmp_path):
    def about(name, **asked):
        return [note for note in _sections(_sweep(tmp_path / name, **asked))[0].tables[0].notes if "Average" in note]

    assert about("whole") == []
    assert about("thin", keep=lambda run: run.spec.trial_seed > 0 or run.spec.test_envs != (1,)) == [
        "Average, Worst, In-domain: over the trials that have all environments"
    ]
    assert about("few", test_envs=("photo", "sketch")) == [
        "Average, Worst: over the 2 of 4 environments that are held out"
    ]


def test_a_trial_that_lacks_an_environment_is_in_no_average(tmp_path):
    def keep(run):
        return run.spec.dataset == "PACS" or run.spec.trial_seed > 0 or run.spec.test_envs != (1,)

    sections = _sections(_sweep(tmp_path, datasets=("PACS", "OfficeHome"), keep=keep))
    tables = {table.title: table for table in sections[0].tables}

    assert list(tables) == ["PACS", "OfficeHome", "Averages"]
    assert tables["OfficeHome"].rows["ERM"][4].n == 2
    assert tables["Averages"].columns == ["PACS", "OfficeHome", "Average"]
    assert "OfficeHome): 2 of 3 trials have all environments" in " ".join(tables["Averages"].notes)
    assert tables["Averages"].rows["ERM"][2].mean == pytest.approx((54.0 + 54.5) / 2)


def test_leave_one_out_reads_pairs_and_names_what_it_lacks(tmp_path):
    sections = _sections(_sweep(tmp_path, pairs=True, trials=1, keep=lambda run: run.spec.test_envs != (0, 3)))
    table = sections[1].tables[0]

    assert table.rows["ERM"][0].n == 0
    assert table.rows["ERM"][1].n == 1
    assert "0 of 1 trials; 3 of 4 runs trained, 1 due" in table.notes[0]


def test_unfinished_runs_do_not_count_and_torn_lines_are_counted(tmp_path):
    folder = _sweep(tmp_path / "mine")
    run, other, *_ = folder.runs.iterdir()
    (run / "done").unlink()
    with (other / "results.jsonl").open("a") as file:
        file.write('{"step": 7, "env0')

    collection = collect([folder.path])

    assert sum(not len(collected.evaluations) for collected in collection.runs) == 1
    torn, older, unfinished = collection.skipped
    assert "36 runs have no digests" in older
    assert torn == f"1 unreadable lines skipped, of {other / 'results.jsonl'}"
    assert unfinished.startswith("1 of 36 runs of mine are unfinished; train them: python -m")


@pytest.mark.parametrize("name", FORMATS)
def test_a_selection_without_tables_is_one_line(name, tmp_path):
    sections = _sections(_sweep(tmp_path))[1:2]

    lines = [line for line in render(sections, name).splitlines() if "leave-one-domain-out" in line]

    assert len(lines) == (0 if name in ("csv", "latex_fragment") else 2 if name == "json" else 1)


def test_csv_holds_every_cell(tmp_path):
    rows = list(csv.DictReader(io.StringIO(render(_sections(_sweep(tmp_path)), "csv"))))

    assert len(rows) == 2 * 3 * 7
    assert rows[0]["row"] == "ERM"
    assert float(rows[0]["mean"]) == pytest.approx(51.0)


def test_markdown_escapes_and_marks(tmp_path):
    text = render(_sections(_sweep(tmp_path)), "markdown")

    assert r"| 50% off & \_more\_" in text
    assert "**71.0 ± 0.5**" in text
    assert "<u>61.0 ± 0.5</u>" in text


def test_latex_escapes_and_marks(tmp_path):
    text = render(_sections(_sweep(tmp_path)), "latex")

    assert r"50\% off \& \_more\_ & \textbf{71.0 $\pm$ 0.5}" in text
    assert r"\underline{61.0 $\pm$ 0.5}" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("λ = 0.1 → 5·10⁻²", r"$\lambda$ = 0.1 $\rightarrow$ 5$\cdot$10$^{-}$$^{2}$"),
        ("Müller’s ≥ H₂", r"M\"{u}ller's $\geq$ H$_{2}$"),
        ("a\\b^~", r"a\textbackslash{}b\textasciicircum{}\textasciitilde{}"),
    ],
)
def test_latex_spells_unicode_out(text, printed):
    assert escape(text) == printed


def test_latex_leaves_other_characters_to_fonts_and_escapes_those_no_font_has():
    assert escape("BF 晴雨 é") == r"BF \resulttext{26228 }{晴雨} \'{e}"
    assert escape("a\x00\udcff") == r"a\textbackslash{}u0000\textbackslash{}udcff"


def test_a_name_that_pdflatex_cannot_print_leaves_every_format_written(tmp_path, capsys):
    folder = _sweep(tmp_path / "sweep", algorithms=(Row("晴 & 雨", "ERM"),))

    assert main(["tables", str(folder.path), "--output", str(tmp_path / "out")]) == 0

    assert {path.name for path in (tmp_path / "out").iterdir()} == {form.file for form in FORMATS.values()}
    said = capsys.readouterr().err
    assert "tables.tex and tables_fragment.tex" in said
    assert "xelatex or lualatex" in said


@pytest.mark.parametrize("name", ["latex", "latex_fragment"])
def test_only_documents_with_names_that_pdflatex_cannot_print_need_fonts(name, tmp_path):
    plain = render(_sections(_sweep(tmp_path / "plain")), name)
    named = render(_sections(_sweep(tmp_path / "named", algorithms=(Row("晴 & 雨", "ERM"),))), name)

    assert "fontspec" not in plain
    assert "fontspec" in named
    assert named.index(r"\def\resulttext") < named.index(r"\resulttext{26228 }{晴}")


@pytest.mark.system
def test_latex_compiles_and_shows_the_numbers_of_the_table(tmp_path):
    sections = _sections(_sweep(tmp_path, datasets=("PACS", "DomainNet"), pairs=True, trials=1))

    said, log = typeset(tmp_path, render(sections, "latex"))

    assert "Overfull" not in log
    assert "50% off &" in said
    for row in sections[0].tables[0].rows.values():
        assert f"{row[0].mean:.1f} (n=1)" in said


@pytest.mark.system
def test_a_name_that_pdflatex_cannot_print_is_in_the_document_of_xelatex(tmp_path):
    sections = _sections(_sweep(tmp_path / "sweep", algorithms=(Row("晴 & 雨 λ é", "ERM"),), trials=1))

    said, _ = typeset(tmp_path, render(sections, "latex"), engine="xelatex")

    assert "晴&雨λé50.0(n=1)" in "".join(said.split())


@pytest.mark.system
def test_every_transcribed_character_compiles(tmp_path):
    body = escape(" ".join([*TEXT, *MATHS, *"éüçñåűēǖž"]))

    said, _ = typeset(tmp_path, rf"\documentclass{{article}}\begin{{document}}{body}\end{{document}}")

    assert "→" in said


def test_all_selections_are_shown_side_by_side_with_the_averages_of_their_tables(tmp_path, capsys):
    folder = _sweep(tmp_path)

    assert main(["tables", str(folder.path), "--selection", "all", "--format", "json"]) == 0

    sections = {section["selection"]: section for section in json.loads(capsys.readouterr().out)["sections"]}
    [beside] = sections["all"]["tables"]
    assert beside["columns"] == [name for name in METHODS_THERE if sections[name]["tables"]]
    for place, name in enumerate(beside["columns"]):
        [table] = sections[name]["tables"]
        average = table["columns"].index("Average")
        for row, own in zip(beside["rows"], table["rows"], strict=True):
            assert row["cells"][place]["mean"] == own["cells"][average]["mean"]


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("text", "52.0 (n=1)"),
        ("markdown", " 52.0 (n=1) |"),
        ("latex", "& 52.0 (n=1) &"),
        ("latex_fragment", "& 52.0 (n=1) &"),
        ("html", "<span>52.0</span><small> (n=1)</small>"),
        ("csv", ",,1,"),
        ("json", '"error": null'),
    ],
)
def test_one_trial_has_n_but_no_error(form, shown, tmp_path):
    text = render(_sections(_sweep(tmp_path, trials=1, test_envs=("cartoon",), algorithms=ROWS[:1])), form)

    assert shown in text
    assert "± 0.0" not in text
    if form not in ("csv", "json"):
        assert "one trial (n = 1), so no standard error" in text


def test_a_cell_of_one_trial_among_more_has_no_error(tmp_path):
    def keep(run):
        return run.spec.trial_seed == 0 or run.spec.test_envs != (3,)

    cell = _sections(_sweep(tmp_path, keep=keep))[0].tables[0].rows["ERM"][3]

    assert (cell.error, cell.n) == (None, 1)


def test_tables_of_runs_with_different_numbers_of_threads_say_so(tmp_path):
    sweep = SweepSpec("mine", ("PACS",), ROWS[:1], trials=2)
    note = "runs with 1 and 2 CPU threads, which differ in rounding"
    for name, threads in (("alike", lambda run: 2), ("mixed", lambda run: 1 + run.spec.trial_seed)):
        write_sweep(tmp_path / name, sweep, lambda run: 0.5, hparams={}, threads=threads)

    alike, mixed = (_sections(SweepFolder(tmp_path / name)) for name in ("alike", "mixed"))
    for form in ("text", "markdown", "html", "latex"):
        assert note in " ".join(render(mixed, form).split())
        assert "CPU threads" not in render(alike, form)


def test_tables_say_what_was_frozen_and_in_which_rows(tmp_path):
    for row, freeze in zip(ROWS, ("featurizer", "blocks.4", "none"), strict=True):
        sweep = SweepSpec("mine", ("PACS",), (row,), trials=2)
        write_sweep(tmp_path / row.algorithm, sweep, lambda run: 0.5, hparams={"freeze": freeze})
    alone, unfrozen = (build_sections(collect([tmp_path / name]), METHODS) for name in ("ERM", "CORAL"))
    together = build_sections(collect([tmp_path / row.algorithm for row in ROWS]), METHODS)

    for form in ("text", "markdown", "html", "latex"):
        assert "all rows: the featurizer was frozen" in " ".join(render(alone, form).split())
        assert "frozen" not in render(unfrozen, form)
    said = render(together, "text")
    assert "ERM: the featurizer was frozen\n" in said
    assert "ERM+BF: the featurizer was frozen up to and including blocks.4\n" in said

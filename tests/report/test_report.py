"""The report: all sections, for sweeps in any state, self-contained, with escaped labels."""

import json
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
from generated import LABEL, ROWS, write_sweep

from dg_batchformer.cli.main import main
from dg_batchformer.report.choices import Choices
from dg_batchformer.report.figures.catalog import bf_pairs
from dg_batchformer.report.figures.frames import accuracy_frame, curve_frame, draw_frame, gain_frame
from dg_batchformer.report.figures.scatter import draws_figure
from dg_batchformer.report.looks import looks
from dg_batchformer.report.page import build_page
from dg_batchformer.report.provenance import costs
from dg_batchformer.report.reproduce import sweep_files
from dg_batchformer.results.collect import collect
from dg_batchformer.results.selection import METHODS
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.spec.sweep_file import load_sweep
from dg_batchformer.stats.comparison import Verdict, compare_rows
from dg_batchformer.stats.verdict import sentence
from dg_batchformer.storage.folders import State
from dg_batchformer.storage.records import to_line
from dg_batchformer.sweep.expand import expand
from dg_batchformer.tables.render import render
from dg_batchformer.tables.table import build_sections

FIGURES = ["accuracy", "gain", "curves", "valley", "transfer", "selection", "draws"]
PARTS = ["answer", *FIGURES, "runs", "provenance", "reproduce"]
QUESTION = "Does BatchFormer help on PACS?"


class _Page(HTMLParser):
    """A parsed page: its tags, its links, and its text by section."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.loaded, self.said = Counter(), [], [], {"": ""}
        self.part = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags[tag] += 1
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.loaded += [attributes[name] for name in ("src", "href", "srcset", "data", "action") if name in attributes]
        if tag == "section":
            self.part = attributes["id"]
        if tag == "svg":
            self.tags[self.part, "svg"] += 1

    def handle_data(self, data):
        data = data.replace("\N{NO-BREAK SPACE}", " ")
        self.said[self.part] = self.said.get(self.part, "") + data


def _page(*folders):
    return _Page(build_page(collect(folders), list(folders)))


def _become(run):
    """Assign every state to some run of trial 1, draw 1."""
    if run.spec.hparams_seed == 0 or run.spec.trial_seed == 0:
        return State.DONE
    return {"ERM": State.FAILED, "SWAD": State.DIVERGED, "ERM+BF": State.DUE}.get(run.label, State.DONE)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("sweep"), _become, question=QUESTION, test_envs=("0", "2"))


@pytest.fixture(scope="module")
def text(sweep):
    return build_page(collect([sweep.path]), [sweep.path])


@pytest.fixture(scope="module")
def page(text):
    return _Page(text)


def test_every_section_exists_and_is_drawn(page):
    assert [part for part in page.said if part] == PARTS
    for part in ("answer", *FIGURES):
        assert page.tags[part, "svg"], part


def test_labels_are_never_markup(page, text):
    assert "</script>" not in text
    assert page.tags["script"] == 0
    assert LABEL in page.said["answer"]
    assert LABEL in page.said["accuracy"]  # inside a figure
    assert LABEL in page.said["runs"]


def test_the_page_loads_nothing(page, text):
    assert all(link.startswith(("#", "data:,")) for link in page.loaded)
    assert set(re.findall(r"url\(['\"]?(.)", text)) == {"#"}
    assert not page.tags.keys() & {"img", "iframe", "object", "embed", "link rel=stylesheet", "base", "form"}
    assert "@import" not in text
    assert "Content-Security-Policy\" content=\"default-src 'none'" in text


def test_ids_inside_figures_are_unique(page):
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.loaded if link.startswith("#")} <= set(page.ids)


def test_the_first_screen_holds_question_verdict_figure_and_table(text, page, sweep):
    said = page.said["answer"]
    order = [text.index(f"<h1>{QUESTION}</h1>"), *(text.index(word) for word in ('class="verdict"', "<svg", "<table"))]
    collection = collect([sweep.path])
    trained = sum(run.state.is_final for run in collection.runs)

    assert order == sorted(order)
    assert trained < 40
    assert f"{trained} of 40 runs are trained." in said


def test_the_verdict_is_that_of_compare_and_a_tie_is_called_one(page, sweep):
    others = [label for label in collect([sweep.path]).rows if label != "ERM"]
    found = compare_rows(collect([sweep.path]), "ERM", others, ["training-domain"])
    words = {Verdict.OPEN: "Undecided", Verdict.EQUAL: "Tie", Verdict.BETTER: "Better", Verdict.WORSE: "Worse"}

    [first] = [one for one in found if one.other == "ERM+BF"]  # what BatchFormer adds comes before larger gains
    assert first.mean < max(one.mean for one in found)
    assert first.interval is not None
    assert f"The intervals of {len(found)} rows have a joint coverage of 95 % (Bonferroni)." in page.said["answer"]
    assert f"{words[first.verdict]} {sentence(first)}" in " ".join(page.said["answer"].split())
    places = {one.other: page.said["answer"].index(sentence(one)) for one in found}
    assert min(places, key=places.get) == first.other


def test_selections_without_values_or_equal_to_another_vanish(page):
    said = page.said["answer"]

    for name in ("training-domain", "oracle", "swad-averaged"):
        assert f"by-{name}" in page.ids
        assert METHODS[name].title in said
        assert METHODS[name].about[1:] in said
    for name in ("leave-one-domain-out", "auto-lr"):
        assert f"by-{name}" not in page.ids
        assert METHODS[name].title not in said


def test_every_selection_has_its_figures(text, page):
    shown = [link[5:] for link in page.ids if link.startswith("pick-")]

    assert len(shown) > 2
    for name in shown:
        for part in ("accuracy", "curves", "selection"):
            section = text[text.index(f'<section id="{part}">') :]
            assert re.search(rf'<figure class="by[^"]* by-{name}[ "]', section[: section.index("</section>")])


def test_failed_and_diverged_runs_are_named_with_their_reason(page):
    assert "2 failed: CUDA out of memory: 80 GiB <asked>" in page.said["runs"]
    assert "ERM on PACS/photo, trial 1, draw 1" in page.said["runs"]
    assert "2 diverged: loss or metrics are not finite" in page.said["runs"]


def test_provenance_and_cost(page, sweep):
    for fact in ("domainbed-2020", "fp32", "27e12e731d897e65", "2.11.0", "NVIDIA H100"):
        assert fact in page.said["provenance"]

    cost = costs(collect([sweep.path]))["all on NVIDIA H100"]
    seconds = [json.loads(file.read_text())["seconds"] for file in sweep.runs.glob("*/done")]
    assert (cost.runs, cost.untimed) == (len(seconds), 0)
    assert cost.seconds == pytest.approx(sum(seconds))


def test_the_sweep_file_on_the_page_declares_the_same_runs(page, tmp_path):
    asked = {"name": "mine", "datasets": ("PACS", "VLCS"), "test_envs": ("0", "1"), "hparams": {"lr": 1e-4}}
    row = Row("deep", "ERM+BF", {"bf_layers": 2}, line=7)
    sweep = SweepSpec(**asked, algorithms=(*ROWS, row), trials=1, precision="fp32", pairs=True)
    folder = write_sweep(tmp_path / "results", lambda run: State.DUE, **vars(sweep))

    (file,) = sweep_files([folder.path])
    (tmp_path / "mine.yaml").write_text(file.text)

    assert file.name == "sweeps/mine.yaml"
    assert "line" not in file.text
    assert expand(load_sweep(tmp_path / "mine.yaml")) == expand(sweep)
    assert "python -m dg_batchformer sweep sweeps/mine.yaml --data_dir DATA" in page.said["reproduce"]


def test_pairs_are_rows_that_differ_in_bf_alone():
    assert bf_pairs(["ERM", "BF", "SWAD+CORAL", "BF+CORAL + SWAD", "MMD+BF", "2 layers"]) == [
        ("ERM", "BF"),
        ("SWAD+CORAL", "BF+CORAL + SWAD"),
    ]


def test_gains_have_the_interval_of_compare_at_the_average(sweep):
    choices = Choices(collect([sweep.path]), METHODS["training-domain"])

    found = gain_frame(choices, [("ERM", "ERM+BF")]).set_index("environment")

    [compared] = compare_rows(choices.collection, "ERM", ["ERM+BF"], ["training-domain"])
    assert found.index[0] == "Average"
    assert found.loc["Average", ["gain", "low", "high"]].tolist() == pytest.approx([compared.mean, *compared.interval])
    without, with_bf = (choices.trials("PACS", label, 2) for label in ("ERM", "ERM+BF"))
    expected = [100 * (with_bf[trial].score.test - without[trial].score.test) for trial in (0, 1)]
    assert found.loc["photo", "gain"] == pytest.approx(np.mean(expected))
    assert found.loc["photo", "high"] == pytest.approx(np.mean(expected) + np.std(expected) / 2**0.5)


def test_the_bar_of_an_average_excludes_the_reference_where_compare_finds_a_difference(sweep):
    choices = Choices(collect([sweep.path]), METHODS["training-domain"])
    found = accuracy_frame(choices).query("environment == 'Average'").set_index("row")
    reference = found.loc["ERM", "accuracy"]
    others = [row for row in found.index if row != "ERM"]

    assert np.isnan(found.loc["ERM", "low"])
    for compared in compare_rows(choices.collection, "ERM", others, ["training-domain"]):
        low, high = found.loc[compared.other, ["low", "high"]]
        assert (low - reference, high - reference) == pytest.approx(compared.interval)


def test_curves_are_means_over_trials_from_step_0_and_end_in_what_was_averaged(sweep):
    choices = Choices(collect([sweep.path]), METHODS["training-domain"])
    runs = [choice.run for choice in choices.trials("PACS", "SWAD", 0).values()]

    found = curve_frame(choices).query("row == 'SWAD' and environment == 'art_painting' and split == 'test'")

    values = 100 * np.array([run.evaluations.column("env0_in_acc") for run in runs])
    trained, [averaged] = found[found.model == "trained"], found[found.model == "averaged"].to_dict("records")
    assert trained.step.iloc[0] == 0
    np.testing.assert_allclose(trained.accuracy, values.mean(axis=0)[:-1])
    np.testing.assert_allclose(trained.error, values.std(axis=0)[:-1] / len(runs) ** 0.5)
    window = averaged["step"], averaged["to_step"], averaged["accuracy"]
    assert window == pytest.approx((200, 600, values[:, -1].mean()))


def test_the_axis_of_draws_suits_the_hyper_parameter(tmp_path):
    folder = write_sweep(tmp_path, algorithms=ROWS[:1], draws=12, trials=1, test_envs=("0",), records=2)
    choices = Choices(collect([folder.path]), METHODS["training-domain"])

    figure = draws_figure(draw_frame(choices), looks(["ERM"]))

    figure.canvas.draw()
    ticks = {axes.get_title(loc="left"): [tick.get_text() for tick in axes.get_xticklabels()] for axes in figure.axes}
    assert {"10⁻⁵", "10⁻⁴"} <= set(ticks["lr"])  # logarithmic
    assert ticks["batch_size"] == ["16", "32"]  # by name
    assert ticks["class_balanced"] == ["False", "True"]


def test_labels_with_invalid_xml_characters_are_drawn(tmp_path):
    rows = (Row("bell \x07 ￾ 🤖", "ERM"),)
    folder = write_sweep(tmp_path, algorithms=rows, draws=1, trials=1, test_envs=("0",), records=2)

    assert r"bell \u0007 � 🤖" in _page(folder.path).said["answer"]


def test_sections_without_anything_to_show_vanish(tmp_path):
    rows = (Row("ERM", "ERM"), Row("CORAL", "CORAL"))
    page = _page(write_sweep(tmp_path, algorithms=rows, draws=1, trials=1, test_envs=("sketch",)).path)

    assert not {"gain", "valley", "draws"} & page.said.keys()
    assert "#valley" not in page.loaded
    assert page.tags["accuracy", "svg"]


def test_of_many_rows_the_best_are_drawn_and_the_page_says_so(tmp_path):
    names = ("ERM", "IRM", "GroupDRO", "Mixup", "MLDG", "CORAL", "MMD", "DANN", "VREx", "RSC")
    rows = tuple(Row(name, name) for name in names)
    page = _page(write_sweep(tmp_path, algorithms=rows, draws=1, trials=1, records=3).path)

    assert all(name in page.said["accuracy"] for name in names)
    assert "8 of 10 rows are drawn, those that test best on average." in page.said["curves"]
    assert sum(f"{name}\n" in page.said["curves"] or name in page.said["curves"] for name in names) == 8
    assert "Too few runs" in page.said["answer"]
    assert "one trial cannot separate a gain" in page.said["answer"]


def test_a_sweep_that_has_only_started_has_a_page(tmp_path):
    page = _page(write_sweep(tmp_path, lambda run: State.DUE).path)

    assert "0 of 80 runs are trained" in page.said["answer"]
    assert "0 of 2 trials; 0 of 4 runs trained, 4 due" in page.said["answer"]
    assert "accuracy" not in page.said


def test_a_sweep_of_nothing_but_nan_has_a_page(tmp_path):
    folder = write_sweep(tmp_path, lambda run: State.DIVERGED, trials=1, algorithms=ROWS[:2], records=3)
    for file in folder.runs.glob("*/results.jsonl"):
        file.write_text(re.sub(r'(_acc|_loss)": [\d.]+', r'\1": NaN', file.read_text()))

    assert "16 diverged" in _page(folder.path).said["runs"]


def test_domainbeds_sweeps_have_a_page(tmp_path):
    for env in range(4):
        for seed in range(2):
            args = {"algorithm": "ERM", "dataset": "VLCS", "test_envs": [env], "trial_seed": 0, "hparams_seed": seed}
            accuracies = {f"env{e}_{split}_acc": 0.5 + 0.1 * seed for e in range(4) for split in ("in", "out")}
            records = [{**accuracies, "step": step, "args": args, "hparams": {"lr": 10.0**-seed}} for step in (0, 300)]
            path = tmp_path / f"{env}{seed}"
            path.mkdir()
            (path / "results.jsonl").write_text("".join(map(to_line, records)))
            (path / "done").write_text("done")

    page = _page(tmp_path)

    assert "60.0 (n=1)" in " ".join(page.said["answer"].split())
    assert page.tags["draws", "svg"]
    assert "not recorded" in page.said["provenance"]
    assert f"python -m dg_batchformer report {tmp_path}" in page.said["reproduce"]


def test_the_command_writes_the_page_or_reports_the_reason_in_one_sentence(tmp_path, capsys):
    folder = write_sweep(tmp_path / "mine", trials=1, draws=1, algorithms=ROWS[:1], test_envs=("0",), records=2).path

    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"wrote {folder / 'report.html'}\n"
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert main(["report", str(folder), "--output", str(folder / "sweep.json" / "page.html")]) == 2
    assert "cannot write" in (said := capsys.readouterr().err)
    assert said.endswith("name another file with --output FILE\n")
    assert main(["report", str(folder), str(folder)]) == 2
    assert "name it with --output FILE" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2
    assert "is not a sweep folder" in capsys.readouterr().err


def test_tables_as_html_mark_and_escape(sweep):
    sections = build_sections(collect([sweep.path]), ["training-domain", "swad-averaged"])
    text = render(sections, "html")
    page = _Page(text)

    assert "&lt;b&gt;&amp;\"'&lt;/script&gt;" in text
    assert '<abbr title="no value: the reason is below the table">X</abbr></td>' in text
    assert page.tags["b"] == sum(len(section.tables[0].best) for section in sections)
    assert page.tags["u"] == sum(len(section.tables[0].second) for section in sections)
    assert page.tags["caption"] == page.tags["table"] == 2
    assert page.loaded == []

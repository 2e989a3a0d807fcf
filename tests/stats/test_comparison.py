"""``compare`` and significance marks, on rows with planted differences."""

import json
import subprocess
import sys

import pytest

from dg_batchformer.cli.main import main
from dg_batchformer.spec.manifest import manifest_content
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.storage.records import to_line
from dg_batchformer.sweep.expand import expand

TWO = ("PACS", "VLCS")
ROWS = {"ERM": "ERM", "ERM+BF": "ERM+BF", "a_b": "CORAL"}
PLACES = {0: 0.4, 1: -0.3, 2: 0.2, 3: -0.3}  # deviations of environments from the mean gain, in points


@pytest.fixture
def compare(tmp_path, capsys):
    """Return a function that writes a sweep with rows above ERM by given points, and compares them."""

    def run(gains, *more, datasets=TWO, trials=3, accuracy=None, verb=("compare", "ERM", "ERM+BF"), **asked):
        rows = tuple(Row(label, algorithm) for label, algorithm in ROWS.items() if label in {"ERM", *gains})
        sweep = SweepSpec(name="mine", datasets=datasets, algorithms=rows, trials=trials, **asked)
        runs = expand(sweep)
        folder = SweepFolder(tmp_path / "mine")
        folder.write(manifest_content(sweep, runs))
        for run in runs:
            env, trial = run.spec.test_envs[0], run.spec.trial_seed
            gain = gains[run.label] + PLACES[env] if run.label != "ERM" else 0
            test = 0.6 + 0.02 * env + 0.01 * trial + gain / 100
            if accuracy is not None:
                test = accuracy(run, test)
            if test is not None:
                _finish(folder.run(run.spec.id), env, test)
        status = main([*verb, str(folder.path), *more])
        said = capsys.readouterr()
        assert status == 0
        assert "error" not in said.err
        return said.out

    return run


def _finish(files, env, test):
    files.path.mkdir(parents=True, exist_ok=True)
    values = {f"env{other}_out_acc": 0.5 for other in range(4)} | {f"env{env}_in_acc": test}
    files.records_file.write_text(to_line({**values, "step": 0, "args": {}}))
    files.done_file.write_text('{"outcome": "done"}')


@pytest.mark.parametrize(
    ("gain", "sentence"),
    [
        (1.2, "ERM+BF improves on ERM by 1.2 points (95 % interval 0.9 to 1.5) on average over 8 environments of 2"),
        (-1.2, "ERM+BF falls behind ERM by 1.2 points (95 % interval 0.9 to 1.5) on average over 8 environments of 2"),
        (
            0,
            "These runs do not show whether ERM+BF improves on ERM: the difference is 0.0 points (95 % interval -0.3",
        ),
    ],
)
def test_one_sentence_states_whether_it_helps_and_by_how_much(gain, sentence, compare):
    said = compare({"ERM+BF": gain})

    assert sentence in said
    assert "Environments of a dataset share training data" in said


def test_every_environment_has_a_line_and_tests_follow_below(compare):
    lines = compare({"ERM+BF": 1}).splitlines()

    table = [line.split() for line in lines]
    assert ["PACS", "art_painting", "61.0", "62.4", "+1.4", "3"] in table
    assert ["Average", "64.0", "65.0", "+1.0"] in table
    assert "- ERM+BF wins 8, ties 0, loses 0 of 8 environments (a tie is 0.0 points)" in lines
    assert "- Wilcoxon signed-rank test: p = 0.008" in lines  # 2 / 2**8
    assert "- sign test: p = 0.008" in lines
    assert not any(line.startswith("warning") for line in lines)


def test_one_trial_gives_no_verdict_and_the_reason(compare):
    said = compare({"ERM+BF": 3}, datasets=("PACS",), trials=1)

    assert (
        "ERM+BF is 3.0 points above ERM on average over 4 environments of PACS, but one trial cannot separate" in said
    )
    assert "run at least 3 trials" in said
    assert "interval" not in said.splitlines()[1]


def test_few_environments_have_no_p_values_and_few_trials_are_noted(compare):
    said = compare({"ERM+BF": 3}, datasets=("PACS",), trials=2)

    assert "ERM+BF improves on ERM by 3.0 points (95 % interval 2.4 to 3.6)" in said
    assert (
        "no p-values: a test on 4 environments gives p = 0.125 at best; 6 or more are needed for less than 0.05" in said
    )
    assert "fewer than 3 trials, so no interval or a wide one: PACS/art_painting (2), PACS/cartoon (2)" in said
    assert "p = 0.0" not in said.replace("p = 0.05", "")


def test_noise_that_environments_of_a_trial_share_widens_the_interval(compare):
    """All environments gain equally in every trial, but trials disagree, which p-values do not reflect."""
    shift = {0: 0.5, 1: -0.3, 2: 3.0}

    def accuracy(run, test):
        return test + (run.label == "ERM+BF") * shift[run.spec.trial_seed] / 100

    said = compare({"ERM+BF": 0}, accuracy=accuracy)

    assert "These runs do not show whether ERM+BF improves on ERM: the difference is +1.1 points" in said
    assert "Wilcoxon signed-rank test: p = 0.008" in said


def test_one_environment_has_no_interval(compare):
    said = compare({"ERM+BF": 3}, datasets=("PACS",), test_envs=("sketch",))

    assert "ERM+BF is 2.7 points above ERM on PACS/sketch, but one environment does not show whether it" in said
    assert "interval" not in said


def test_missing_pairs_are_counted_and_named(compare):
    def accuracy(run, test):
        place = (run.label, run.spec.dataset, run.spec.test_envs[0])
        if place == ("ERM+BF", "VLCS", 1) and run.spec.trial_seed > 0:
            return None
        return float("nan") if place == ("ERM", "PACS", 3) else test

    said = compare({"ERM+BF": 1}, accuracy=accuracy)

    assert "2 of 24 pairs left out, without a test accuracy of ERM+BF: VLCS/LabelMe (trials 1, 2)" in said
    assert "3 of 24 pairs left out, without a test accuracy of ERM: PACS/sketch (trials 0, 1, 2)" in said
    assert "over 7 environments" in said


def test_a_row_without_results_is_not_an_error(compare):
    said = compare({"ERM+BF": 1}, accuracy=lambda run, test: test if run.label == "ERM" else None)

    assert "ERM and ERM+BF cannot be compared: no trial has a test accuracy for both." in said
    assert "24 of 24 pairs left out, without a test accuracy of ERM+BF: VLCS/Caltech101, LabelMe, SUN09, VOC2" in said


def test_a_selection_that_needs_pairs_of_environments_says_so(compare):
    said = compare({"ERM+BF": 1}, "--selection", "leave-one-domain-out", datasets=("PACS",))

    assert "no trial has a test accuracy for both; it needs a sweep with 'pairs: true'." in said


def test_equal_rows_are_reported_as_equal(compare):
    said = compare({"ERM+BF": 0}, accuracy=lambda run, test: 0.5)

    assert "ERM+BF is level with ERM, to 0.1 points (95 % interval 0.0 to 0.0), on average over 8" in said
    assert "wins 0, ties 8, loses 0" in said


def test_p_values_of_many_rows_are_corrected(compare):
    said = compare({"ERM+BF": 1, "a_b": -2}, "--also", "a_b")

    assert said.count("p = 0.008; Holm-corrected for 2 rows: p = 0.016") == 4
    assert "a_b falls behind ERM by 2.0 points" in said
    assert "The intervals of 2 rows have a joint coverage of 95 % (Bonferroni)." in said


def test_further_rows_widen_the_interval(compare):
    def width(said):
        low, high = json.loads(said)[0]["interval"]
        return high - low

    one = compare({"ERM+BF": 1}, "--format", "json")
    two = compare({"ERM+BF": 1, "a_b": -2}, "--also", "a_b", "--format", "json")

    assert width(two) > width(one)
    assert [json.loads(said)[0]["corrected_for"] for said in (one, two)] == [1, 2]


def test_latex_has_the_verdict_as_caption_and_a_line_for_every_environment(compare):
    text = compare({"a_b": 1}, "--format", "latex", verb=("compare", "ERM", "a_b"))

    assert r"\caption{a\_b improves on ERM by 1.0 points" in text
    assert r"\begin{tabular}{llrrrr}" in text
    assert "art\\_painting" in text
    assert text.count(r" \\") == 1 + 8 + 1  # header, environments, average
    assert text.index(r"\midrule", text.index("sketch")) < text.index("Average & ")


def test_markdown_escapes_and_json_holds_the_numbers(compare):
    markdown = compare({"a_b": 1}, "--format", "markdown", verb=("compare", "ERM", "a_b"))
    found = json.loads(compare({"a_b": 1}, "--format", "json", "--selection", "all", verb=("compare", "ERM", "a_b")))

    assert r"**a\_b improves on ERM by 1.0 points" in markdown
    assert r"| art\_painting " in markdown
    assert [comparison["selection"] for comparison in found][:3] == [
        "training-domain",
        "leave-one-domain-out",
        "oracle",
    ]
    first = found[0]
    assert first["mean_difference"] == pytest.approx(1)
    assert first["interval"][0] < 1 < first["interval"][1]
    assert first["wilcoxon_signed_rank"] == {"p": 0.0078125, "holm": 0.0078125}
    assert first["blocks"][3]["trials"] == [0, 1, 2]
    assert found[1]["mean_difference"] is None


TABLES = ("tables", "--selection", "training-domain", "--compare_to", "ERM", "--format")


@pytest.mark.parametrize(
    ("form", "above", "below"),
    [
        ("text", "65.0*†", "62.0 ‡"),
        ("markdown", "**65.0†**", "62.0‡"),
        ("latex", r"\textbf{65.0$\dagger$}", r"62.0$\ddagger$"),
        ("html", "<b>65.0</b><sup>†</sup>", "<span>62.0</span><sup>‡</sup>"),
        ("csv", ",0,,above", ",0,,below"),
        ("json", '"significance": "above"', '"significance": "below"'),
    ],
)
def test_tables_mark_rows_that_differ_significantly_and_explain_the_mark(form, above, below, compare):
    said = compare({"ERM+BF": 1, "a_b": -2}, verb=(*TABLES, form))

    assert above in said
    assert below in said
    if form in ("text", "markdown"):
        assert said.count("†") == 2 * 3  # the cell and the note of every table
        assert "† above, ‡ below ERM significantly (95 % interval of the mean paired difference" in said


def test_tables_mark_nothing_without_differences_or_without_asking(compare):
    same = compare({"ERM+BF": -0.05}, verb=(*TABLES, "text"))
    unasked = compare({"ERM+BF": 5}, verb=("tables",))

    assert "no row differs significantly from ERM (" in same
    for said in (same, unasked):
        assert not set("†‡") & set(said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "ERN", "ERM+BF", "mine"], "unknown row 'ERN'; did you mean 'ERM'? (known: ERM, ERM+BF)"),
        (["compare", "ERM", "BF", "mine"], "unknown row 'BF'"),
        (["compare", "ERM", "ERM", "mine"], "'ERM' is given twice; a comparison needs different rows"),
        (["compare", "mine", "ERM", "ERM+BF"], "ERM+BF is not a folder; the order is: compare A B DIR"),
        (
            ["compare", "ERM", "ERM+BF", "SWAD", "mine"],
            "SWAD is not a folder; the order is: compare A B DIR, with more",
        ),
        (["tables", "mine", "--compare_to", "ERM+BT"], "unknown row 'ERM+BT'; did you mean 'ERM+BF'"),
    ],
)
def test_missing_rows_and_folders_are_named(arguments, message, compare, tmp_path, capsys, monkeypatch):
    compare({"ERM+BF": 1})
    monkeypatch.chdir(tmp_path)

    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1


def test_tables_load_scipy_only_to_compare(compare, tmp_path):
    compare({"ERM+BF": 1})
    code = """if True:
        import sys
        from dg_batchformer.cli.main import main
        main(["tables", sys.argv[1]])
        print("scipy" in sys.modules)
        main(["tables", sys.argv[1], "--compare_to", "ERM"])
        print("scipy" in sys.modules)
    """

    command = [sys.executable, "-c", code, str(tmp_path / "mine")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    assert [line for line in said if line in ("True", "False")] == ["False", "True"]

"""Results compared with expected averages."""

import json

import pytest
from sweep_folders import write_sweep

from dg_batchformer.cli.main import main
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.tables.expectation import default_tolerance
from dg_batchformer.tables.table import Cell

EXPECTED = {"source": "a paper", "PACS": {"ERM": 80.0, "SWAD": 85.0}}


def _sweep(path, *, trials=3, keep=lambda run: True, expected=EXPECTED):
    rows = (Row("ERM", "ERM"), Row("SWAD", "SWAD"))
    spec = SweepSpec("mine", ("PACS",), rows, trials=trials, expected=expected)
    found = {"ERM": 0.81, "SWAD": 0.82}

    def accuracy(run):
        return found[run.label] + 0.002 * run.spec.trial_seed  # standard error of 3 trials, in points

    return write_sweep(path, spec, accuracy, hparams={"backbone": "resnet50", "weights": "imagenet_v1"}, keep=keep)


def _verdicts(capsys):
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[1]: line for line in lines if line.startswith("PACS")}


def test_the_spread_over_trials_decides_and_one_deviation_gives_status_1(tmp_path, capsys):
    _sweep(tmp_path, expected={**EXPECTED, "PACS": {"ERM": 80.5, "SWAD": 85.0}})

    assert main(["tables", str(tmp_path), "--expect"]) == 1

    lines = _verdicts(capsys)
    assert lines["ERM"].split()[2:] == ["80.5", "81.2", "±", "0.1", "(n=3)", "+0.7", "0.8", "inside"]
    assert lines["SWAD"].split()[2:] == ["85.0", "82.2", "±", "0.1", "(n=3)", "-2.8", "0.8", "outside"]


def test_a_tolerance_of_the_sweep_file_takes_precedence_and_agreement_gives_status_0(tmp_path, capsys):
    _sweep(tmp_path, expected={**EXPECTED, "tolerance": 3})

    assert main(["tables", str(tmp_path), "--expect"]) == 0

    said = capsys.readouterr().out
    assert "Tolerance: 3 points, as given in the sweep file." in said
    assert "2 expected: 2 inside" in said
    assert "Expected: a paper" in said


def test_a_missing_average_is_neither_inside_nor_outside(tmp_path, capsys):
    _sweep(tmp_path, keep=lambda run: run.label == "SWAD" and run.spec.test_envs != (0,))

    assert main(["tables", str(tmp_path), "--expect"]) == 0

    assert "2 expected: 2 not run" in capsys.readouterr().out


def test_a_selection_that_the_sweep_has_no_runs_for_says_what_it_needs(tmp_path, capsys):
    _sweep(tmp_path, expected={**EXPECTED, "selection": "leave-one-domain-out"})

    assert main(["tables", str(tmp_path), "--expect"]) == 0

    said = capsys.readouterr().out
    assert "needs runs that hold out two environments: 'pairs: true' in a sweep file" in said
    assert "2 expected: 2 not run" in said


def test_one_trial_has_no_spread_and_needs_a_tolerance(tmp_path, capsys):
    _sweep(tmp_path, trials=1)

    assert main(["tables", str(tmp_path), "--expect"]) == 0

    assert _verdicts(capsys)["SWAD"].endswith("1 trial: give a tolerance")


def test_the_default_tolerance_is_two_standard_errors_of_a_difference_and_half_a_point():
    trials = [0.80, 0.81, 0.82]  # sample deviation: 1 point

    assert default_tolerance(Cell.of(trials)) == pytest.approx(2 * (2 / 3) ** 0.5 + 0.5)
    assert default_tolerance(Cell.of(trials[:1])) is None
    assert default_tolerance(Cell()) is None


def test_a_sweep_without_expectations_is_told_how_to_add_them(tmp_path, capsys):
    _sweep(tmp_path, expected={})

    assert main(["tables", str(tmp_path), "--expect"]) == 2

    assert "has no expected results; add 'expected:' to its sweep file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda declared: declared.update(expected=[1]), "expected must have a source"),
        (
            lambda declared: declared.update(expected={"source": "a", "VLCS": {}}),
            "unknown dataset of this sweep 'VLCS'",
        ),
        (lambda declared: declared.pop("algorithms"), "lacks the content of the sweep file"),
    ],
)
def test_a_malformed_manifest_is_refused_in_one_sentence(tmp_path, capsys, change, sentence):
    folder = _sweep(tmp_path)
    content = folder.read()
    change(content["declared"])
    folder.sweep_file.write_text(json.dumps(content))

    assert main(["tables", str(tmp_path), "--expect"]) == 2

    assert sentence in capsys.readouterr().err


def test_options_that_would_be_ignored_are_refused(tmp_path, capsys):
    _sweep(tmp_path)

    assert main(["tables", str(tmp_path), "--expect", "--published"]) == 2

    assert "drop --published" in capsys.readouterr().err

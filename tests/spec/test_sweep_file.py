from pathlib import Path

import pytest

from dg_batchformer.errors import InputError
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.spec.expected import parse_expected
from dg_batchformer.spec.search import Search
from dg_batchformer.spec.sweep_file import load_sweep
from dg_batchformer.sweep.expand import expand

SWEEPS = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))


def _load(tmp_path, text, data_dir=None):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return load_sweep(file, data_dir)


def test_a_sweep_file_declares_rows_with_labels_and_numbers(tmp_path):
    sweep = _load(
        tmp_path,
        """
        datasets: [PACS]
        algorithms:
          - ERM
          - {name: ERM+BF, label: 2 layers, hparams: {bf_layers: 2, lr: 5e-5}}
        trials: 2
        """,
    )

    assert sweep.name == "mine"
    assert [row.label for row in sweep.algorithms] == ["ERM", "2 layers"]
    assert sweep.algorithms[1].hparams == {"bf_layers": 2, "lr": 5e-5}
    assert sweep.trials == 2


def test_imbalance_is_one_or_several_and_what_is_none_is_named_with_its_line(tmp_path):
    text = "datasets: [PACS]\nalgorithms: [ERM]\nimbalance: {}\n"

    assert _load(tmp_path, text.format("long_tail:50.0")).imbalance == ("long_tail:50",)
    assert _load(tmp_path, text.format("[step:10, Duality]")).imbalance == ("step:10", "Duality")
    with pytest.raises(InputError, match=r"mine.yaml:3: imbalance: unknown imbalance 'longtail'"):
        _load(tmp_path, text.format("[step:10, longtail:5]"))
    with pytest.raises(InputError, match=r"'step:10' is given twice"):
        _load(tmp_path, text.format("[step:10, step:10.0]"))


@pytest.mark.parametrize(
    "written", ["2", "01", "010", "1:30", "no", "Yes", "1e3", "1_000", "0x10", "~", "null", "2020-01-01", "-1", "+1.0"]
)
def test_names_are_kept_as_written_whatever_yaml_would_make_of_them(tmp_path, written):
    for domain in (written, "other"):
        (tmp_path / written / domain / "cat").mkdir(parents=True)
    text = f"""
        datasets: [{written}]
        algorithms: [ERM, {{name: ERM, label: {written}}}]
        test_envs: [{written}]
        expected: {{source: a paper, {written}: {{{written}: 50.0}}}}
    """

    sweep = _load(tmp_path, text, tmp_path)
    assert sweep.datasets == sweep.test_envs == (written,)
    assert [row.label for row in sweep.algorithms] == ["ERM", written]
    assert [run.spec.environment_names(run.spec.test_envs) for run in expand(sweep)] == [written] * 6
    keys = f"datasets: &names [{written}]\nalgorithms: [ERM]\ntrain_envs: *names\n"
    by_train_envs = _load(tmp_path, keys, tmp_path)
    assert [run.spec.environment_names(run.spec.train_envs) for run in expand(by_train_envs)] == [written] * 3


def test_numbers_are_decimal_and_never_hours_and_minutes(tmp_path):
    head = "datasets: [PACS]\nalgorithms: [ERM]\n"

    assert _load(tmp_path, f"{head}trials: 010\n").trials == 10
    assert _load(tmp_path, f"{head}trials: [60, 010]\n").trials == (60, 10)
    with pytest.raises(InputError, match="steps must be a whole number, at least 1, got '1:30'"):
        _load(tmp_path, f"{head}steps: 1:30\n")


def test_a_name_is_found_whatever_unicode_form_it_is_typed_in(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    for domain in ("bar", decomposed):
        (tmp_path / decomposed / domain / "cat").mkdir(parents=True)
    text = f"""
        datasets: [{composed}]
        algorithms: [{{name: ERM, label: {decomposed}}}]
        test_envs: [{composed}]
        expected: {{source: a paper, {composed}: {{{decomposed}: 50.0}}}}
    """

    sweep = _load(tmp_path, text, tmp_path)
    [run] = expand(sweep)[:1]
    assert (run.spec.dataset, run.spec.environments, run.spec.test_envs) == (decomposed, ("bar", decomposed), (1,))
    expected = parse_expected(sweep.expected, sweep.datasets, [run.label], lambda key, text: InputError(text))
    assert expected.averages == {decomposed: {composed: 50.0}}


def test_two_unicode_forms_of_a_label_are_one_label(tmp_path):
    rows = "[{name: ERM, label: caf\u00e9}, {name: ERM+BF, label: cafe\u0301}]"

    with pytest.raises(InputError, match="is given twice"):
        _load(tmp_path, f"datasets: [PACS]\nalgorithms: {rows}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: [PACS, ]\nalgorithms: [ERM]\nplugins: [[a]]\n", r"mine.yaml:3: plugins must be a name, got "),
        ("datasets:\n-\nalgorithms: [ERM]\n", r"mine.yaml:2: datasets must be a name, got None"),
        ("datasets: [PACS]\nalgoritms: [ERM]\n", r"mine.yaml:2: unknown key 'algoritms'; did you mean 'algorithms'"),
        ("datasets: [PACS]\n", r"mine.yaml:1: key 'algorithms' is missing"),
        ("datasets: [PACS]\nalgorithms: [ERM]\ntrials: many\n", r"mine.yaml:3: trials must be a whole number"),
        ("datasets: [PACS]\nalgorithms: [ERM]\ntrials: [1, -1]\n", r"trials must be a whole number, at least 0, got"),
        (f"datasets: [PACS]\nalgorithms: [ERM]\ntrials: {2**63}\n", r"mine.yaml:3: trials must be below 2\^63, got"),
        ("datasets: [PACS]\nalgorithms: [ERM]\ntrials: [1, 1]\n", r"mine.yaml:3: trials: 1 is given twice"),
        ("datasets: [PACS, PAX]\nalgorithms: [ERM]\n", r"mine.yaml:1: datasets: unknown dataset 'PAX'"),
        ("datasets:\n- PACS\nalgorithms:\n- ERM\n- ERM+BF+BF\n", r"mine.yaml:5: algorithms: .*names BF twice"),
        ("datasets: [PACS]\nalgorithms: [ERM, ERM]\n", r"mine.yaml:2: algorithms: 'ERM' is given twice"),
        ("datasets: [PACS]\nalgorithms:\n- {name: ERM, hparams: {lr: 1}}\n", r"mine.yaml:3: .*needs a label"),
        (
            'datasets: [PACS]\nalgorithms:\n- {name: ERM, label: "a\\nb"}\n',
            r"mine.yaml:3: a label must be one printable line",
        ),
        (
            "datasets: [PACS]\nalgorithms: [ERM]\ntest_envs: [skech]\n",
            r"mine.yaml:3: test_envs: .*did you mean 'sketch'",
        ),
        ("datasets: [PACS]\nalgorithms: [ERM]\ngrid: [1e-5]\n", r"mine.yaml:3: grid must map names to lists of values"),
        ("datasets: [PACS]\nalgorithms: [ERM]\ngrid:\n  lr: []\n", r"mine.yaml:4: grid: lr must be a list of at least"),
        ("datasets: [PACS]\nalgorithms: [ERM]\ngrid: {lr: 1}\n", r"mine.yaml:3: grid: lr must be a list of .* got 1"),
        ("datasets: [PACS]\nalgorithms: [ERM]\ngrid: {lr: [1, 1.0]}\n", r"mine.yaml:3: grid: lr lists 1.0 twice"),
        ("datasets: [PACS]\nalgorithms: [ERM]\ngrid: {lr: [[1]]}\n", r"mine.yaml:3: grid: an item of lr must be"),
        (
            "datasets: [PACS]\nalgorithms: [ERM]\ndraws: 3\ngrid: {lr: [1, 2]}\n",
            r"mine.yaml:4: grid cannot be combined with draws: 3",
        ),
        (
            "datasets: [PACS]\nalgorithms: [ERM]\nhparams: {lr: 1}\ngrid: {lr: [1, 2]}\n",
            r"mine.yaml:4: both grid and hparams set lr: keep one of them",
        ),
        (
            "datasets: [PACS]\nalgorithms:\n- {name: ERM, label: a, hparams: {lr: 1}, grid: {lr: [1]}}\n",
            r"mine.yaml:3: both grid and hparams set lr",
        ),
        *[
            (f"datasets: [PACS]\nalgorithms: [ERM]\n{keys}\n", message)
            for keys, message in [
                ("search: 20", r"mine.yaml:3: search needs on and repeat, as in \{draws: 20, on: \[0\], repeat: 3\}"),
                ("search: {draws: 20, repeat: 3}", r"mine.yaml:3: search needs on and repeat"),
                ("search: {drwas: 2, on: [0], repeat: 3}", r"unknown key of search 'drwas'; did you mean 'draws'"),
                ("search: {draws: 2, on: 0, repeat: 3}", r"search must be a list of at least one item, got 0"),
                ("search: {draws: 2, on: [0], repeat: no}", r"search: repeat must be a whole number, at least 1"),
                ("search: {draws: 2, on: [0], repeat: 200001}", r"search: repeat is 200,001, but a sweep may have at"),
                ("search: {draws: 2, on: [0], repeat: [1, 0]}", r"search: repeat has trial 0, which the search is on"),
                ("search: {on: [0], repeat: 3}", r"mine.yaml:3: search tries nothing: give it draws"),
                ("search: {on: [0], repeat: 3}\ngrid: {lr: [1]}", r"mine.yaml:3: search tries nothing: give it draws"),
                ("search: {draws: 2, on: [0, 1], repeat: 3}", r"mine.yaml:3: search: draws differ between trials"),
                (
                    "search: {draws: 2, on: [0], repeat: 3, selection: swad-averaged}",
                    r"unknown selection of search: 'swad-averaged'",
                ),
                (
                    "search: {draws: 2, on: [0], repeat: 3, selection: leave-one-domain-out}",
                    r"unknown selection of search: 'leave-one-domain-out'",
                ),
                ("search: {draws: 2, on: [0], repeat: 3}\ntrials: 2", r"mine.yaml:4: trials cannot be combined with"),
                ("search: {draws: 2, on: [0], repeat: 3}\ngrid: {lr: [1]}", r"grid cannot be combined with draws: 2"),
                (
                    "race: [4]\ndraws: 2",
                    r"mine.yaml:3: race needs rungs, as in \{rungs: \[300, 900\], keep: 0.5\}; got",
                ),
                ("race: {rungs: [4], kepe: 0.5}", r"unknown key of race 'kepe'; did you mean 'keep'"),
                ("race: {rungs: [0]}", r"race: rungs must be a whole number, at least 1, got 0"),
                ("race: {rungs: [9, 4]}", r"mine.yaml:3: race: rungs must be steps in ascending order, got \[9, 4\]"),
                ("race: {rungs: [4, four]}", r"race: rungs must be a whole number, at least 1, got 'four'"),
                ("race: {rungs: [4], keep: 1}", r"race: keep must be a number between 0 and 1, got 1"),
                ("race: {rungs: [4]}", r"mine.yaml:3: race has nothing to compare: give draws"),
                ("race: {rungs: [4]}\ngrid: {lr: [1]}", r"mine.yaml:3: race has nothing to compare: give draws"),
                ("race: {rungs: [4]}\ndraws: 2\npairs: true", r"race cannot be combined with pairs"),
                (
                    "race: {rungs: [4]}\ngrid: {lr: [1, 2]}\nsearch: {on: [0, 1], repeat: 3}",
                    r"race cannot be combined with a search of a grid on several trials",
                ),
                ("hparams_from: results/a\ndraws: 2", r"mine.yaml:4: draws cannot be combined with hparams_from"),
            ]
        ],
        ("datasets: [PACS]\ndatasets: [VLCS]\n", r"mine.yaml:2: key 'datasets' is given twice"),
        ("datasets: [PACS\n", r"mine.yaml:2: not valid YAML"),
        ("datasets: !!python/object:os.system [x]\n", r"mine.yaml"),
        ("- PACS\n", r"mine.yaml:1: a sweep file must be a mapping with keys"),
        ("", r"mine.yaml:1: a sweep file must be a mapping with keys"),
    ],
)
def test_an_error_names_file_line_and_key(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        _load(tmp_path, text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*nowhere.yaml: No such file"):
        load_sweep(tmp_path / "nowhere.yaml")


def test_expectations_are_of_datasets_and_rows_of_the_sweep(tmp_path):
    text = "datasets: [PACS]\nalgorithms: [ERM]\nexpected:\n  source: a paper\n  tolerance: 1.5\n  PACS: {ERM: 85.5}\n"

    assert _load(tmp_path, text).expected == {"source": "a paper", "tolerance": 1.5, "PACS": {"ERM": 85.5}}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["PACS: {ERM: 85.5}"], r"mine.yaml:3: expected needs a source"),
        (["source: a paper"], r"mine.yaml:3: expected names no dataset; add percentages by label, as in 'PACS: {ERM"),
        (["source: a", "VLCS: {ERM: 85.5}"], r"mine.yaml:5: unknown dataset of this sweep 'VLCS'"),
        (["source: a", "PACS:", "  EMR: 85.5"], r"mine.yaml:6: unknown row of this sweep 'EMR'; did you mean 'ERM'"),
        (["source: a", "PACS:", "  ERM: 855"], r"mine.yaml:6: ERM must be a percentage between 0 and 100, got 855"),
        (["source: a", "PACS: 85.5"], r"mine.yaml:5: PACS must have percentages by label, as in {ERM: 85.5}; got 85.5"),
        (["source: a", "tolerance: -1", "PACS: {ERM: 85.5}"], r"mine.yaml:5: tolerance must be in points"),
        (["source: a", "selection: orakel", "PACS: {ERM: 1}"], r"mine.yaml:5: unknown selection 'orakel'; .*'oracle'"),
        (["source: a", "tolerances: 1", "PACS: {ERM: 1}"], r"mine.yaml:5: .*'tolerances'; did you mean 'tolerance'"),
        (["- 85.5"], r"mine.yaml:3: expected must have a source, and percentages by dataset and label; got \[85.5\]"),
    ],
)
def test_an_expectation_that_cannot_be_met_is_refused_with_its_line(tmp_path, lines, message):
    text = "datasets: [PACS]\nalgorithms: [ERM]\nexpected:\n" + "".join(f"  {line}\n" for line in lines)

    with pytest.raises(InputError, match=message):
        _load(tmp_path, text)


def test_a_search_repeats_on_the_first_trials_that_it_does_not_use(tmp_path):
    text = "datasets: [PACS]\nalgorithms: [ERM]\ngrid: {lr: [1e-4, 1e-3]}\nsearch: {on: [0, 2], repeat: 3}\n"

    sweep = _load(tmp_path, text)

    assert sweep.search == Search(on=(0, 2), repeat=(1, 3, 4), draws=1, selection="training-domain")
    assert {(run.spec.trial_seed, run.searches) for run in expand(sweep)} == {(0, True), (2, True)}
    assert len(expand(sweep)) == 4 * 2 * 2


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_every_committed_sweep_expands_and_resolves(file):
    runs = expand(load_sweep(file))

    assert file.read_text().startswith("# "), "a sweep file begins with its question"
    assert runs
    for spec in {(run.label, run.spec.dataset): run.spec for run in runs}.values():
        resolve_hparams(spec)


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_sweeps_under_protocols_of_papers_load_large_images_as_in_the_papers(file):
    sweep = load_sweep(file)
    large = {"VLCS", "OfficeHome", "TerraIncognita", "DomainNet"} & {*sweep.datasets}

    assert sweep.protocol == "quick" or not large or sweep.data_path == "exact"

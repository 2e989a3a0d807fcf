"""Runs, sweeps and tables of custom datasets and of given training environments, end to end."""

import csv
import json
import re
import shlex
import shutil

import pytest
from data_folders import write_own
from support import run_quickly

from dg_batchformer.cli.main import main, parser
from dg_batchformer.cli.train import run_spec
from dg_batchformer.errors import InputError
from dg_batchformer.spec.manifest import manifest_content
from dg_batchformer.spec.sweep_file import load_sweep
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.sweep.expand import expand

TINY = {"image_size": 8, "backbone": "tiny", "batch_size": 2}
SWEEP = f"algorithms: [ERM, CORAL]\nprotocol: quick\nsteps: 3\ncheckpoint_freq: 2\ntrials: 1\nhparams: {TINY}\n"


def _train(tmp_path, *more, dataset="Mine"):
    command = ["train", "--protocol", "quick", "--steps", "3", "--checkpoint_freq", "2", "--hparams", json.dumps(TINY)]
    where = ["--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "out"), "--device", "cpu"]
    return main([*command, *where, "--dataset", dataset, *more])


def _records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def _sweep(tmp_path, text):
    """Write the manifest of a sweep as the command does, and train its runs in this process."""
    file = tmp_path / "mine.yaml"
    file.write_text(text + SWEEP)
    asked = load_sweep(file, tmp_path)
    folder = SweepFolder(tmp_path / "results" / "mine")
    folder.write(manifest_content(asked, expand(asked)))
    for run in expand(asked):
        run_quickly(run.spec, folder.run(run.spec.id).path, data_dir=tmp_path, keep="none")
    return folder


def test_a_folder_is_trained_on_by_name_and_a_repeated_command_prints_the_result(tmp_path, capsys):
    write_own(tmp_path)

    assert _train(tmp_path, "--test_envs", "night") == 0
    said = capsys.readouterr().out
    assert "ERM on Mine (quick): trains on day, rain; 20% held out for validation; tests on night" in said
    record = _records(tmp_path / "out" / "results.jsonl")[-1]
    assert record["environments"] == ["day", "night", "rain"]
    assert len(record["dataset_fingerprint"]) == 64
    assert _train(tmp_path, "--test_envs", "1") == 0
    assert "already has this run, done" in capsys.readouterr().out


def test_environments_neither_trained_nor_tested_on_are_not_evaluated(tmp_path, capsys):
    write_own(tmp_path)

    assert _train(tmp_path, "--train_envs", "day", "--test_envs", "rain") == 0
    said = capsys.readouterr().out
    assert "trains on day; 20% held out for validation; tests on rain" in said
    assert len(re.findall(r"^test accuracy on rain: ", said, flags=re.MULTILINE)) == 2
    keys = {key for key in _records(tmp_path / "out" / "results.jsonl")[0] if key.startswith("env")}
    measured = {"env0_out_acc", "env0_out_loss", "env2_in_acc", "env2_out_acc"}
    assert keys - {"environments"} == measured


def test_a_single_source_is_tested_on_all_others(tmp_path, capsys):
    write_own(tmp_path)

    assert _train(tmp_path, "--train_envs", "night", "--algorithm", "SWAD+BF") == 0
    assert re.search(r"^test accuracy on day: .*%, rain: .*\(step 3", capsys.readouterr().out, flags=re.MULTILINE)
    assert _train(tmp_path, "--train_envs", "night", "--algorithm", "MLDG", "--output_dir", "other") == 2
    assert "MLDG needs at least 2 training environments, got 1; hold out" in capsys.readouterr().err


def test_a_method_that_compares_environments_says_that_it_has_a_single_one(tmp_path, capsys):
    write_own(tmp_path)
    note = "CORAL compares training environments but has only night: it trains much like ERM"

    assert _train(tmp_path, "--train_envs", "night", "--algorithm", "CORAL") == 0
    assert capsys.readouterr().out.count(note) == 1
    assert note in (tmp_path / "out" / "log.txt").read_text()
    assert _train(tmp_path, "--test_envs", "night", "--algorithm", "CORAL", "--output_dir", str(tmp_path / "two")) == 0
    assert "compares training environments" not in capsys.readouterr().out


def test_a_sweep_of_ones_own_data_has_tables_without_the_data(tmp_path, capsys):
    write_own(tmp_path)
    folder = _sweep(tmp_path, "datasets: [Mine]\ntest_envs: [day, rain]\n")
    shutil.rmtree(tmp_path / "Mine")

    assert main(["tables", str(folder.path), "--selection", "training-domain"]) == 0
    table = capsys.readouterr().out
    assert re.search(r"test environment +day +rain +Average", table)
    assert "over the 2 of 3 environments that are held out" in table
    assert main(["status", str(folder.path)]) == 0
    assert re.search(r"all +4 +4", capsys.readouterr().out)
    assert main(["sweep", str(tmp_path / "mine.yaml")]) == 2
    assert "mine.yaml:1: datasets: unknown dataset 'Mine'" in capsys.readouterr().err


def test_a_sweep_by_source_has_a_table_for_each_and_is_validated_on_it_alone(tmp_path, capsys):
    write_own(tmp_path, n=10)
    folder = _sweep(tmp_path, "datasets: [Mine]\ntrain_envs: [day, [day, night]]\ntest_envs: [night, rain]\n")

    assert main(["tables", str(folder.path), "--selection", "training-domain", "--format", "csv"]) == 0
    cells = {
        (row["table"], row["row"], row["column"]): row["mean"]
        for row in csv.DictReader(capsys.readouterr().out.splitlines())
    }
    assert {table for table, _, _ in cells} == {"Mine from day", "Mine from day + night", "Averages"}
    for run in expand(load_sweep(tmp_path / "mine.yaml", tmp_path)):
        source = "day" if run.spec.train_envs == (0,) else "day + night"
        records = _records(folder.run(run.spec.id).records_file)
        best = max(records, key=lambda record: sum(record[f"env{env}_out_acc"] for env in run.spec.train_envs))
        for env in run.spec.test_envs:
            column = ("day", "night", "rain")[env]
            found = float(cells[f"Mine from {source}", run.label, column])
            assert found == pytest.approx(100 * best[f"env{env}_in_acc"])
    assert main(["tables", str(folder.path), "--selection", "training-domain"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("CORAL: much like ERM, as there is only one training environment") == 1
    assert main(["tables", str(folder.path), "--format", "domainbed"]) == 2
    assert "is a sweep with train_envs, for which DomainBed has no tables" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("train_envs: [dya]", r"mine.yaml:2: train_envs: unknown environment of Mine 'dya'; did you mean 'day'"),
        (
            "train_envs: [[day, night, rain]]",
            r"mine.yaml:2: train_envs: training on day, night, rain leaves no",
        ),
        ("test_envs: [day]\ntrain_envs: all", r"mine.yaml:3: train_envs: training on day leaves no environment"),
        ("train_envs: []", r"mine.yaml:2: train_envs must be a list of at least one item"),
        ("train_envs: [day, DAY]", r"mine.yaml:2: train_envs: day is given twice"),
        (
            "train_envs: [day, []]",
            r"mine.yaml:2: an item of train_envs must be an environment or a non-empty list, got",
        ),
        ("train_envs: all\npairs: true", r"mine.yaml:3: pairs cannot be combined with train_envs"),
        ("environments: {Mine: [a, b]}", r"mine.yaml:2: unknown key 'environments'"),
    ],
)
def test_invalid_training_environments_are_refused_with_their_line(keys, message, tmp_path):
    write_own(tmp_path, n=1)
    (tmp_path / "mine.yaml").write_text(f"datasets: [Mine]\n{keys}\n{SWEEP}")

    with pytest.raises(InputError, match=message):
        load_sweep(tmp_path / "mine.yaml", tmp_path)


def test_two_data_sets_of_one_name_share_no_table(tmp_path, capsys):
    folders = []
    for place, domains in (("one", ("day", "night")), ("two", ("day", "fog", "night"))):
        (tmp_path / place).mkdir()
        write_own(tmp_path / place, domains)
        folders.append(str(_sweep(tmp_path / place, "datasets: [Mine]\ntest_envs: [day]\n").path))

    assert main(["tables", *folders]) == 2
    assert "Mine has the environments day, night in one run and day, fog, night in another" in capsys.readouterr().err


@pytest.mark.parametrize("domains", [("day", "night", "rain"), ("1", "2", "3"), ("01", "010", "1"), ("-1", "-a", "no")])
def test_a_dry_run_prints_commands_that_name_the_same_runs(domains, tmp_path, capsys):
    write_own(tmp_path, domains, n=1)
    (tmp_path / "mine.yaml").write_text(f"datasets: [Mine]\n{SWEEP}")
    where = [
        "--data_dir",
        str(tmp_path),
        "--results_dir",
        str(tmp_path / "results"),
        "--launcher",
        "dry_run",
        "--verbose",
    ]
    assert main(["sweep", str(tmp_path / "mine.yaml"), *where, "--devices", "cpu"]) == 0

    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if line.startswith("python")]
    asked = [run_spec(parser("train").parse_args(command[3:])) for command in commands]
    assert asked == [run.spec for run in expand(load_sweep(tmp_path / "mine.yaml", tmp_path))]


def test_domains_with_numbers_as_names_are_trained_on_and_a_repeated_command_prints_the_result(tmp_path, capsys):
    write_own(tmp_path, ("1", "2", "3"))

    assert _train(tmp_path, "--test_envs", "2") == 0
    assert "trains on 1, 3; 20% held out for validation; tests on 2" in capsys.readouterr().out
    assert _records(tmp_path / "out" / "results.jsonl")[-1]["args"]["test_envs"] == [1]
    assert _train(tmp_path, "--test_envs", "2") == 0
    assert "already has this run, done" in capsys.readouterr().out
    assert _train(tmp_path, "--test_envs", "0") == 2
    assert "unknown environment of Mine '0' (1, 2, 3; a number is a name here)" in capsys.readouterr().err


def test_a_table_has_a_number_for_every_domain_called_by_a_number(tmp_path, capsys):
    domains = tuple(map(str, range(11)))
    write_own(tmp_path, domains, n=3)
    folder = _sweep(tmp_path, "datasets: [Mine]\ntest_envs: [2, 10]\n")

    assert main(["tables", str(folder.path), "--selection", "training-domain", "--format", "csv"]) == 0
    cells = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert {row["column"] for row in cells} == {"2", "10", "Average", "Worst", "In-domain"}
    assert all(row["mean"] for row in cells)

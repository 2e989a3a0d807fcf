"""What DomainBed's collect_results prints, as recorded by tools/bench_collect.py --record."""

import json
from pathlib import Path

import pytest
from domainbed_sweeps import KINDS, Kind, write_sweep

from dg_batchformer.cli.main import main

RECORDED = Path(__file__).parents[1] / "data" / "domainbed_tables"


@pytest.mark.parametrize("name", KINDS)
def test_domainbeds_output_is_printed_to_the_byte(name, tmp_path, capsys):
    write_sweep(tmp_path, KINDS[name], seed=0)

    for form, suffix in (("domainbed", "txt"), ("domainbed_latex", "tex")):
        assert main(["tables", str(tmp_path), "--format", form]) == 0
        assert capsys.readouterr().out == (RECORDED / f"{name}.{suffix}").read_text()


def test_a_selection_is_printed_alone_and_one_that_domainbed_lacks_is_refused(tmp_path, capsys):
    write_sweep(tmp_path, Kind(trials=1, draws=1), seed=0)

    assert main(["tables", str(tmp_path), "--format", "domainbed", "--selection", "oracle"]) == 0
    assert capsys.readouterr().out.count("model selection method: test-domain validation set (oracle)") == 4
    assert main(["tables", str(tmp_path), "--format", "domainbed", "--selection", "swad-iid"]) == 2
    assert "DomainBed has no selection method 'swad-iid'" in capsys.readouterr().err


def test_datasets_unknown_to_domainbed_are_left_out_with_a_note(tmp_path, capsys):
    write_sweep(tmp_path, Kind(datasets=("PACS", "Nowhere"), trials=1, draws=1), seed=0)

    assert main(["tables", str(tmp_path), "--format", "domainbed"]) == 0

    said = capsys.readouterr().err
    assert "Nowhere: unknown to DomainBed" in said
    assert "PACS" not in said.split(":")[1]


def test_auto_lr_joins_the_two_stages_of_a_run(tmp_path, capsys):
    args = {"dataset": "PACS", "algorithm": "ERM", "test_envs": [0], "trial_seed": 0, "hparams_seed": 0}
    held_out = {f"env{env}_out_acc": 0.5 for env in range(4)}
    stages = [
        {"step": 0, "args": {**args, "holdout_fraction": 0.2}, "env0_in_acc": 0.9, **held_out},
        {"step": 300, "args": {**args, "holdout_fraction": 0.0}, "fd_env0_in_acc": 0.6},
        {"step": 600, "args": {**args, "holdout_fraction": 0.0}, "fd_env0_in_acc": 0.7},
    ]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.jsonl").write_text("".join(json.dumps(stage) + "\n" for stage in stages))
    (tmp_path / "run" / "done").touch()

    for form, shown in (("domainbed", "70.0 +/- 0.0"), ("text", "70.0 (n=1)")):
        assert main(["tables", str(tmp_path), "--format", form, "--selection", "auto-lr"]) == 0
        assert shown in capsys.readouterr().out


def test_methods_unknown_to_domainbed_come_after_the_known_ones(tmp_path, capsys):
    for folder, algorithm in (("a", "MIRO"), ("b", "SAM"), ("c", "CORAL")):
        args = {"dataset": "PACS", "algorithm": algorithm, "test_envs": [0], "trial_seed": 0, "hparams_seed": 0}
        record = {"step": 0, "args": args, "env0_in_acc": 0.5, **{f"env{env}_out_acc": 0.5 for env in range(4)}}
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "results.jsonl").write_text(json.dumps(record) + "\n")
        (tmp_path / folder / "done").touch()

    assert main(["tables", str(tmp_path), "--format", "domainbed", "--selection", "training-domain"]) == 0

    table = capsys.readouterr().out.split("Dataset: PACS")[1].split("Averages")[0]
    assert table.index("CORAL") < table.index("MIRO") < table.index("SAM")

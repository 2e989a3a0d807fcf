"""Reading of ``sweep.json``, which is untrusted."""

import json

import pytest

from dg_batchformer.cli.main import main
from dg_batchformer.errors import InputError
from dg_batchformer.spec.manifest import manifest_content, read_sweep_manifest
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.sweep.expand import expand

SWEEP = SweepSpec("mine", ("PACS",), (Row("ERM", "ERM"), Row("2 layers", "ERM+BF", {"bf_layers": 2})), trials=1)


def test_a_manifest_is_read_back_as_written(tmp_path):
    runs = expand(SWEEP)
    folder = SweepFolder(tmp_path)
    folder.write(manifest_content(SWEEP, runs))

    declared = read_sweep_manifest(folder)

    assert (declared.name, declared.rows) == ("mine", ["ERM", "2 layers"])
    assert [(run.label, run.spec.id) for run in declared.runs] == [(run.label, run.spec.id) for run in runs]
    assert declared.runs[-1].name == "2 layers on PACS/sketch, trial 0"


def test_a_manifest_keeps_which_hparams_a_grid_varies(tmp_path):
    sweep = SweepSpec("mine", ("PACS",), (Row("ERM", "ERM", {"batch_size": 8}),), grid={"lr": (1, 2)}, trials=1)
    SweepFolder(tmp_path).write(manifest_content(sweep, expand(sweep)))

    assert [run.point for run in read_sweep_manifest(SweepFolder(tmp_path)).runs[:2]] == [{"lr": 1}, {"lr": 2}]


def _change(key, value):
    def changed(content):
        content["runs"][1]["spec"][key] = value
        return json.dumps(content)

    return changed


@pytest.mark.parametrize("verb", ["status", "tables"])
@pytest.mark.parametrize(
    "write",
    [
        lambda content: "\xff\x00",
        lambda content: "[" * 100_000,
        lambda content: "[]",
        lambda content: "null",
        lambda content: json.dumps({**content, "rows": [["ERM"], "2 layers"]}),
        lambda content: json.dumps({**content, "rows": ["ERM"]}),
        lambda content: json.dumps({**content, "runs": []}),
        lambda content: json.dumps({**content, "runs": 7}),
        lambda content: json.dumps({**content, "name": None}),
        lambda content: json.dumps({key: value for key, value in content.items() if key != "runs"}),
        _change("dataset", ["PACS"]),
        _change("dataset", "PASC"),
        _change("test_envs", 3),
        _change("hparams", []),
        _change("steps", float("inf")),
        _change("holdout_fraction", "1"),
        _change("of_a_newer_version", 1),
        lambda content: json.dumps({**content, "runs": [{**run, "varied": ["lr"]} for run in content["runs"]]}),
    ],
)
def test_a_file_that_is_not_a_manifest_is_one_sentence(tmp_path, capsys, verb, write):
    text = write(json.loads(json.dumps(manifest_content(SWEEP, expand(SWEEP)))))
    (tmp_path / "sweep.json").write_bytes(text.encode("latin-1"))

    with pytest.raises(InputError, match=r"sweep.json (cannot be read|is not a sweep manifest): ."):
        read_sweep_manifest(SweepFolder(tmp_path))
    assert main([verb, str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1

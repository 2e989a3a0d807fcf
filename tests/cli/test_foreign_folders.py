"""Reading folders of others never runs their code, whatever the folders contain."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from sweep_folders import write_sweep

from dg_batchformer.catalog import installed
from dg_batchformer.catalog.installed import KINDS
from dg_batchformer.cli.main import VERBS, main
from dg_batchformer.spec.sweep import Row, SweepSpec

ROOT = Path(__file__).parents[2]
PLANTED = "from pathlib import Path\nPath(__file__).with_name('ran').write_text('')\n"
ASKED = SweepSpec("foreign", ("Toy",), (Row("planted", "Planted+BF"),), "quick", 1, 2, ("A",), plugins=("planted",))


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """Work in the folder of somebody else: a finished sweep of a plug-in with kept models, and the plug-in."""
    folder = write_sweep(tmp_path / "sweep", ASKED, lambda run: 0.5, hparams={})
    for place in (tmp_path, folder.path, *folder.runs.iterdir()):
        (place / "planted.py").write_text(PLANTED)
    for path in folder.runs.iterdir():
        run = folder.run(path.name)
        [spec] = [one for one in _declared(folder) if one["id"] == path.name]
        run.spec_file.write_text(spec["text"])
        torch.save({"spec": spec["spec"], "predictor": {}, "init": "a"}, run.model_file)
        torch.save({"spec": spec["spec"]}, run.batchformer_file)
    facts = tmp_path / "planted-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "".join(f"[dg_batchformer.{kind}]\nPlanted = planted:X\n" for kind in KINDS)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])  # as ``python -m`` has it
    installed.entries.cache_clear()
    yield folder
    installed.entries.cache_clear()


def _end(command):
    """Run a command; a wrong option ends like an error."""
    with suppress(SystemExit):
        main(command.split())


def _declared(folder):
    runs = json.loads(folder.sweep_file.read_text())["runs"]
    return [{"id": run["id"], "spec": run["spec"], "text": json.dumps(run["spec"])} for run in runs]


COMMANDS = (
    "tables SWEEP", "tables SWEEP --selection all --format json", "tables SWEEP --format domainbed", "tables RUN",
    "status SWEEP", "status RUN", "watch SWEEP", "report SWEEP --output page.html",
    "report RUN --output page.html", "compare planted planted SWEEP", "cancel SWEEP", "export SWEEP --to csv",
    "export SWEEP --to parquet", "pack SWEEP", "predict RUN .", "explain RUN", "soup SWEEP", "data info Toy",
    "data verify PACS --data_dir .", "data cache PACS --data_dir .",
    *(f"list {kind}" for kind in KINDS), "list hparams Planted", "list algorithms Planted",
    "train --algorithm Planted --dataset Toy", "train --dataset Planted", "train --protocol Planted",
    "train --backbone Planted", "sweep other.yaml", "sweep other.yaml --launcher Planted",
    "sweep other.yaml --log Planted",
)  # fmt: skip


def test_every_verb_is_among_the_commands():
    assert {command.split()[0] for command in COMMANDS} == set(VERBS)


@pytest.mark.parametrize("verb", COMMANDS)
def test_no_command_imports_a_plugin_that_it_does_not_name(foreign, tmp_path, capsys, verb):
    """The folder names the plug-in, has it in every place, and has a distribution that announces it."""
    run = next(foreign.runs.iterdir())
    (tmp_path / "other.yaml").write_text("datasets: [Planted]\nalgorithms: [Planted]\nprotocol: Planted\n")

    _end(verb.replace("SWEEP", str(foreign.path)).replace("RUN", str(run)))

    assert not list(tmp_path.rglob("ran"))
    assert "planted" not in sys.modules


@pytest.mark.parametrize("verb", ["predict RUN .", "explain RUN", "soup SWEEP"])
def test_a_model_that_needs_a_plug_in_asks_for_it_by_name(foreign, capsys, verb):
    run = next(foreign.runs.iterdir())

    status = main(verb.replace("SWEEP", str(foreign.path)).replace("RUN", str(run)).split())

    assert status == 2
    assert "needs the plug-in planted, which would run its code; if you trust it, give --plugins planted" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("module", ["json", "argparse", "orjson", "tabulate", "numpy", "yaml"])
def test_modules_in_the_working_folder_are_not_imported(foreign, tmp_path, module):
    for place in (tmp_path, foreign.path):
        (place / f"{module}.py").write_text(PLANTED)

    command = [sys.executable, "-m", "dg_batchformer", "tables", "."]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=foreign.path, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("ran"))

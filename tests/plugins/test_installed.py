"""What installed packages announce by entry points: a made-up distribution on the path, made of the templates."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import make_algorithm, make_minibatches, resolved

from dg_batchformer.callbacks.load import find_callbacks
from dg_batchformer.catalog import installed
from dg_batchformer.cli.main import main
from dg_batchformer.errors import InputError
from dg_batchformer.hparams_registry import default_hparams
from dg_batchformer.networks.backbones import get_backbone
from dg_batchformer.registry import ALGORITHMS, WRAPPERS
from dg_batchformer.spec.names import canonical_name
from dg_batchformer.sweep.launchers.base import find_launcher

TEMPLATES = Path(__file__).parents[2] / "tools" / "templates"
ENTRY_POINTS = """
[dg_batchformer.algorithms]
MyAlgorithm = my_lab.algorithm:MyAlgorithm
Broken = my_lab.algorithm:Missing
Needy = my_lab.needy:Needy
[dg_batchformer.wrappers]
MyWrapper = my_lab.wrapper:MyWrapper
NoWrapper = my_lab.algorithm:MyAlgorithm
[dg_batchformer.datasets]
MyDataset = my_lab.dataset:MyDataset
[dg_batchformer.backbones]
flat = my_lab.backbone:FLAT
[dg_batchformer.protocols]
my-protocol = my_lab:protocol.yaml
[dg_batchformer.launchers]
MyLauncher = my_lab.launcher:MyLauncher
[dg_batchformer.callbacks]
MyCallback = my_lab.callback:MyCallback
"""


@pytest.fixture
def lab(plugin_folder, monkeypatch):
    """Install the distribution my_lab, and return its folder."""
    site = plugin_folder / "site"
    shutil.copytree(TEMPLATES, site / "my_lab", ignore=shutil.ignore_patterns("test_*", "__pycache__"))
    (site / "my_lab" / "__init__.py").write_text("")
    (site / "my_lab" / "needy.py").write_text("import nobody_has_this\n")
    backbone = site / "my_lab" / "backbone.py"
    backbone.write_text(f"{backbone.read_text()}FLAT = BACKBONES['my_backbone']\n")
    _distribution(site)
    monkeypatch.syspath_prepend(site)
    installed.entries.cache_clear()
    return site


def _distribution(site):
    facts = site / "my_lab-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: my_lab\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(ENTRY_POINTS)


def test_every_kind_is_found_by_name(lab):
    assert make_algorithm("SWAD+MyAlgorithm+BF").hparams["my_algorithm_weight"] == 0.1
    assert canonical_name("MyWrapper+ERM") == "MyWrapper"
    algorithm = make_algorithm("MyWrapper+CORAL", backbone="flat")
    assert torch.isfinite(algorithm.update(make_minibatches())["loss"])
    assert get_backbone("flat", (3, 32, 32)).about == "two convolutions, 32 features"
    assert default_hparams("ERM", "MyDataset", protocol="my-protocol")["backbone"] == "resnet18"
    assert find_launcher("MyLauncher").__name__ == "MyLauncher"
    assert find_callbacks(["MyCallback"])[0].__name__ == "MyCallback"


def test_names_are_known_without_importing_the_package(lab):
    assert canonical_name("MyWrapper+CORAL") == "CORAL+MyWrapper"
    with pytest.raises(InputError, match="did you mean 'MyAlgorithm'"):
        ALGORITHMS["MyAlgorithmm"]
    default_hparams("ERM", "Toy", protocol="my-protocol")  # a file, not code

    assert not [name for name in sys.modules if name.partition(".")[0] == "my_lab"]


@pytest.mark.parametrize("kind", installed.KINDS)
def test_lists_show_what_is_installed_and_why_it_cannot_be_imported(lab, kind, capsys):
    assert main(["list", kind]) == 0
    said = " ".join(capsys.readouterr().out.split())

    for name in installed.installed_names(kind):
        assert name in said
    if kind == "algorithms":
        assert "installed algorithm Broken cannot be imported: AttributeError" in said
        assert "installed algorithm Needy needs the module nobody_has_this, which is not installed" in said
    if kind == "wrappers":
        assert "installed wrapper NoWrapper: my_lab.algorithm:MyAlgorithm is not a class that extends" in said


def test_a_run_of_an_installed_dataset_keeps_its_environments_and_needs_no_plug_in_to_be_read(lab, monkeypatch):
    spec = resolved(dataset="MyDataset", protocol="my-protocol", algorithm="MyAlgorithm")
    assert (spec.environments, spec.steps, spec.plugins) == (("fog", "night", "rain"), 2501, ())
    asked = json.dumps(spec.as_dict())

    code = "import json, sys\nfrom dg_batchformer.spec.run import RunSpec\n"
    code += f"spec = RunSpec.from_dict(json.loads({asked!r}))\n"
    code += "assert spec.facts.names == ('fog', 'night', 'rain') and 'my_lab' not in sys.modules\n"
    code += "from dg_batchformer.plugins.load import load_plugins_of\nload_plugins_of(spec)\n"  # as a worker does
    code += "assert spec.facts.num_classes == 2 and 'my_lab' in sys.modules"
    monkeypatch.setenv("PYTHONPATH", f"{lab}:{Path(__file__).parents[2]}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_a_distribution_in_the_working_folder_is_not_installed(plugin_folder, monkeypatch):
    _distribution(plugin_folder)
    installed.entries.cache_clear()

    assert installed.installed_names("wrappers") == []
    assert "MyWrapper" not in WRAPPERS

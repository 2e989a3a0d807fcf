"""Extensions that are registered in a notebook or script."""

from pathlib import Path

import pytest
import torch

import dg_batchformer as dg
from dg_batchformer.callbacks.base import Callback
from dg_batchformer.errors import InputError
from dg_batchformer.networks.backbones import Backbone
from dg_batchformer.wrappers.base import Wrapper

LAB = """
import torch
from pathlib import Path
from torch import nn

from dg_batchformer.catalog.datasets import DatasetFacts
from dg_batchformer.datasets.base import Dataset, TensorEnvironment
from dg_batchformer.networks.backbones import Backbone
from dg_batchformer.networks.base import FeaturizerModule
from dg_batchformer.sweep.launchers.base import Launcher

WIDTH = 8

class Lab(Dataset):
    FACTS = DatasetFacts("Lab", "built in: vectors", ("D", "N"), ("day", "night"), shape=(4, 4, 3), num_classes=2,
                         checkpoint_freq=2, small=True)

    def __init__(self, root, test_envs, hparams):
        super().__init__(root, test_envs, hparams)
        self.classes = ["car", "tram"]
        images = torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        self.environments = [TensorEnvironment(name, images, torch.arange(20) % 2) for name in self.facts.names]

class LabNet(FeaturizerModule):
    n_outputs = WIDTH

    def __init__(self):
        super().__init__()
        self.layer = nn.LazyLinear(WIDTH)

    def stages(self):
        return {"layer": self.layer}

    def forward(self, x):
        return self.layer(x.flatten(1))

def build(shape, hparams):
    net = LabNet()
    net(torch.zeros(1, *shape))
    return net

class LabLauncher(Launcher):
    def launch(self, runs):
        print("queued", len(runs))
        return True

dg.register(Lab)
dg.register(LabLauncher)
dg.register(Backbone("one layer", build), "lab_net")
dg.register(Path("lab.yaml"), "lab-2030")
"""
PROTOCOL = """
about: one layer
source: this test
steps: 3
checkpoint_freq: 2
defaults: {backbone: lab_net, batch_size: 4}
"""


def _ran(code=LAB, name="cell.py"):
    """Run code as a notebook cell, in a module that cannot be imported, and train."""
    Path(name).write_text(code)
    exec(compile(code, str(Path(name).absolute()), "exec"), {"__name__": "__main__", "dg": dg})
    return dg.train("ERM+BF", dataset="Lab", test_envs="night", protocol="lab-2030")


def test_datasets_backbones_protocols_and_launchers_of_a_notebook_are_known_by_name(plugin_folder, capsys):
    (plugin_folder / "lab.yaml").write_text(PROTOCOL)
    question = {"datasets": ["Lab"], "algorithms": ["ERM", "ERM+BF"], "protocol": "lab-2030", "trials": 1}

    run = _ran()
    classes = run.model.classes
    same = _ran(f"# again\n{LAB}", "same.py")
    wider = _ran(LAB.replace("WIDTH = 8", "WIDTH = 9"), "wider.py")
    results = dg.sweep(question, name="mine")

    assert [plugin.rsplit(":", 1)[0] for plugin in run.spec.plugins] == [
        "session:Lab",
        "session:lab-2030",
        "session:lab_net",
    ]
    assert run.records["step"].tolist() == [0, 2]
    assert classes == ["car", "tram"]
    assert same.spec.id == run.spec.id
    assert wider.spec.id != run.spec.id
    assert set(results.runs()["state"]) == {"done"}
    for kind, name in {
        "datasets": "Lab",
        "backbones": "lab_net",
        "protocols": "lab-2030",
        "launchers": "LabLauncher",
    }.items():
        assert name in dg.list(kind)
    with pytest.raises(InputError, match="uses Lab and lab-2030 and lab_net of this notebook or script"):
        dg.sweep(question, name="other", launcher="slurm")
    dg.sweep({**question, "datasets": ["Toy"], "protocol": "quick", "steps": 3}, name="third", launcher="LabLauncher")
    assert "queued 8" in capsys.readouterr().out


def test_an_edited_protocol_of_a_notebook_trains_another_run(plugin_folder):
    (plugin_folder / "lab.yaml").write_text(PROTOCOL)
    run = _ran()
    (plugin_folder / "lab.yaml").write_text(PROTOCOL.replace("steps: 3", "steps: 5"))

    edited = _ran()

    assert edited.records["step"].tolist() == [0, 2, 4]
    assert edited.spec.id != run.spec.id


class Mine(Callback):
    """A callback."""


@pytest.mark.parametrize(
    ("given", "name", "sentence"),
    [
        (3, None, "3 cannot be registered; give a class that is an algorithm"),
        (torch.nn.Linear, None, "Linear cannot be registered; give a class"),
        (Mine, None, "a callback is not registered: train takes callbacks=.Mine.."),
        (Path("lab.yaml"), None, "needs a name"),
        (Wrapper, "mine", "registered under its own name, Wrapper"),
        (Path("nowhere.yaml"), "mine", "cannot read nowhere.yaml: No such file"),
        (Backbone("one layer", lambda shape, hparams: torch.nn.Flatten()), "mine", "the source of <lambda> is unknown"),
        (Path("lab.yaml"), "my lab:2030", "'my lab:2030' is not a name of letters"),
        (Backbone("one layer", _ran), "small_cnn", "'small_cnn', but that name is taken"),
    ],
)
def test_what_cannot_be_registered_is_refused_in_one_sentence(given, name, sentence, registrations):
    with pytest.raises(InputError, match=sentence):
        dg.register(given, name)

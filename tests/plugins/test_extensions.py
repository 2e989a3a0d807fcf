"""Wrappers, datasets and backbones of plug-ins."""

import json
import subprocess
import sys
import textwrap
import uuid

import pytest
import torch
from support import make_algorithm, make_minibatches

import dg_batchformer as dg
from dg_batchformer.algorithms import get_algorithm_class
from dg_batchformer.catalog import wrappers
from dg_batchformer.cli.main import main
from dg_batchformer.errors import InputError
from dg_batchformer.plugins import load
from dg_batchformer.registry import WRAPPERS
from dg_batchformer.wrappers.base import Wrapper

EXTENSIONS = """
import torch
from torch import nn

from dg_batchformer.catalog.datasets import DatasetFacts
from dg_batchformer.datasets.base import Dataset, TensorEnvironment
from dg_batchformer.hparams import HParam
from dg_batchformer.networks.backbones import Backbone
from dg_batchformer.networks.base import FeaturizerModule
from dg_batchformer.wrappers.averaging import MovingAverage
from dg_batchformer.wrappers.base import Wrapper


class Jitter(Wrapper):
    \"\"\"Add noise to the inputs.\"\"\"

    acts_on = "risk"

    @classmethod
    def settings(cls, dataset):
        return {"jitter_scale": HParam(0.1, about="standard deviation of the noise", low=0)}

    def update(self, minibatches, unlabeled=None):
        scale = self.hparams["jitter_scale"]
        return self.inner.update([(x + scale * torch.ones_like(x), y) for x, y in minibatches], unlabeled)


class Last(MovingAverage):
    \"\"\"An average that forgets all but the last.\"\"\"

    def memory(self):
        return 0.0


class Weather(Dataset):
    \"\"\"Random vectors in three kinds of weather.\"\"\"

    FACTS = DatasetFacts(
        "Weather", "built in: vectors", ("F", "N", "R"), ("fog", "night", "rain"), shape=(4,), num_classes=2,
        checkpoint_freq=2, small=True,
    )

    def __init__(self, root, test_envs, hparams):
        super().__init__(root, test_envs, hparams)
        generator = torch.Generator().manual_seed(0)
        self.classes = ["car", "tram"]
        self.environments = [
            TensorEnvironment(name, torch.randn(20, 4, generator=generator), torch.arange(20) % 2)
            for name in self.facts.names
        ]


class Flat(FeaturizerModule):
    def __init__(self, shape):
        super().__init__()
        self.layer, self.n_outputs = nn.Linear(shape[0] * shape[1] * shape[2], 8), 8

    def stages(self):
        return {"layer": self.layer}

    def forward(self, x):
        return self.layer(x.flatten(1))


BACKBONES = {"flat": Backbone("one linear layer", lambda shape, hparams: Flat(shape))}
"""
RUN = ["--protocol", "quick", "--steps", "4", "--checkpoint_freq", "2", "--device", "cpu", "--output_dir", "out"]


@pytest.fixture
def write(plugin_folder):
    """Return a function that writes a plug-in module and returns its name."""

    def write_module(text=EXTENSIONS):
        name = f"extension_{uuid.uuid4().hex}"
        (plugin_folder / f"{name}.py").write_text(textwrap.dedent(text))
        return name

    return write_module


def test_a_wrapper_composes_with_ours_in_any_order_and_its_hparams_are_declared(write):
    load.load_plugins([write()])

    algorithm = make_algorithm("BF+Jitter+CORAL+SWAD", jitter_scale=0.5)

    assert type(algorithm).__name__ == "BF+CORAL+Jitter+SWAD"
    assert algorithm.hparams["jitter_scale"] == 0.5
    assert torch.isfinite(algorithm.update(make_minibatches())["loss"])
    with pytest.raises(InputError, match="combines Last and SWAD, which both act on the weights"):
        get_algorithm_class("SWAD+Last+ERM")


def test_wrapper_dataset_and_backbone_train_by_name_and_are_listed_with_suggestions(write, capsys):
    name = write()

    assert main(["train", "--plugins", name, "--algorithm", "Last+Jitter+BF", "--dataset", "Weather", *RUN]) == 0
    assert main(["list", "wrappers", "--plugins", name]) == 0
    assert "Add noise to the inputs." in capsys.readouterr().out
    assert main(["list", "datasets", "Weather"]) == 0
    assert "night" in capsys.readouterr().out
    assert main(["list", "backbones", "flat"]) == 0
    assert main(["train", "--plugins", name, "--algorithm", "jitter+ERM+CORAL", "--dataset", "Weather", *RUN]) == 2
    assert "did you mean 'Jitter'?" in capsys.readouterr().err
    algorithm = make_algorithm("ERM", backbone="flat")
    assert algorithm.featurizer.n_outputs == 8


def test_results_are_read_without_the_plug_in(write, tmp_path, capsys):
    name = write()
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"datasets: [Weather]\nalgorithms: [ERM, Last+Jitter]\nprotocol: quick\ntrials: 1\ntest_envs: [fog]\n"
        f"plugins: [{name}]\nsteps: 3\nhparams: {{mlp_width: 16, batch_size: 8}}\n"
    )

    assert main(["sweep", str(file), "--devices", "cpu"]) == 0
    here = [json.loads(path.read_text()) for path in tmp_path.glob("results/mine/runs/*/spec.json")]
    tables = subprocess.run(
        [sys.executable, "-c", "import sys\nfrom dg_batchformer.cli.main import main\n"
         "codes = [main([verb, 'results/mine']) for verb in ('status', 'tables')]\n"
         f"sys.exit(any(codes) or {name!r} in sys.modules)"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip

    assert tables.returncode == 0, tables.stderr
    assert "Last+Jitter" in tables.stdout
    assert all(spec["environments"] == ["fog", "night", "rain"] for spec in here)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('acts_on = "risk"', 'acts_on = "gradients"', "wrapper Jitter has acts_on 'gradients'; set it to the stage"),
        ("class Jitter", "class CORAL", "has the wrapper CORAL, but there is an algorithm of that name"),
        ("class Jitter", "class SWAD", "has the wrapper SWAD, but dg_batchformer.wrappers.swad has one of that name"),
        ("FACTS =", "OTHER =", r"dataset Weather needs FACTS = DatasetFacts\('Weather', ...\)"),
        ('"Weather", "built', '"Wether", "built', "the FACTS of dataset Weather are those of Wether"),
        ('{"flat": Backbone', '{"tiny": Backbone', "has the backbone 'tiny', but that name is taken"),
        ('{"flat": Backbone("one linear layer", lambda shape, hparams: Flat(shape))}', "[Flat]", "must be a dict from"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(write, old, new, message):
    with pytest.raises(InputError, match=message):
        load.load_plugins([write(EXTENSIONS.replace(old, new))])


def test_a_wrapper_of_a_session_is_registered_and_part_of_the_run(write, tmp_path):
    @dg.register
    class Doubled(Wrapper):
        """Double the inputs."""

        acts_on = "risk"

        def update(self, minibatches, unlabeled=None):
            return self.inner.update([(2 * x, y) for x, y in minibatches], unlabeled)

    run = dg.train("Doubled+CORAL", dataset="Toy", protocol="quick", steps=2, output_dir=tmp_path / "run")

    assert [plugin.rsplit(":", 1)[0] for plugin in run.spec.plugins] == ["session:Doubled"]
    assert "Doubled" in dg.list("wrappers")


def test_our_wrappers_and_those_that_average_weights_are_known_without_importing_them():
    assert wrappers.wrapper_names() == [*WRAPPERS]
    assert set(wrappers.own_averaging_wrappers()) == {name for name in WRAPPERS if WRAPPERS[name].acts_on == "weights"}

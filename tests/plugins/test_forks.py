"""Forks of DomainBed as plug-ins, in made-up checkouts of both dialects."""

import json
import shutil
import sys

import pytest
import torch
from support import make_minibatches, quick_spec, resolved, run_quickly
from torch.testing import assert_close

from dg_batchformer.algorithms import get_algorithm_class
from dg_batchformer.catalog.datasets import dataset_facts
from dg_batchformer.cli.main import main
from dg_batchformer.errors import InputError
from dg_batchformer.hparams_registry import default_hparams, random_hparams
from dg_batchformer.networks.batchformer import batchformers
from dg_batchformer.plugins import load
from dg_batchformer.registry import ALGORITHMS
from dg_batchformer.spec.forks import parse_fork
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.training.stop import Interrupted

NETWORKS = """
import math
from torch import nn
class Flat(nn.Module):
    def __init__(self, input_shape):
        super().__init__()
        self.n_outputs = 8
        self.linear = nn.Linear(math.prod(input_shape), 8)
    def forward(self, x):
        return self.linear(x.flatten(1))
def Featurizer(input_shape, hparams):
    return Flat(input_shape)
"""
# A package without __init__.py, a registry, an optimizer of its own, and imports inside functions.
SWAD = {
    "config.yaml": "swad: True\nswad_kwargs: {n_converge: 3}\nld: 0.5\nturns: 4\n",
    "domainbed/networks.py": NETWORKS,
    "domainbed/lib/misc.py": "WHO = 'swad'\n",
    "domainbed/optimizers.py": """
import torch
def get_optimizer(name, parameters, lr):
    return {"adam": torch.optim.Adam}[name](parameters, lr=lr)
""",
    "domainbed/hparams_registry.py": """
import numpy as np
def default_hparams(algorithm, dataset):
    return {"lr": 1e-3, "batch_size": 8, "optimizer": "adam", "freeze_bn": True, "turns": 2, "layers": [1, 2]}
def random_hparams(algorithm, dataset, seed):
    rng = np.random.RandomState(seed)
    return {**default_hparams(algorithm, dataset), "lr": 10 ** rng.uniform(-4, -2), "turns": rng.choice([1, 2, 3])}
""",
    "domainbed/algorithms/__init__.py": """
from .algorithms import *
def get_algorithm_class(name):
    return globals()[name]
""",
    "domainbed/algorithms/algorithms.py": '''
import copy
import torch
from torch import nn
from torch.nn import functional as F
from domainbed import networks
from domainbed.optimizers import get_optimizer
class Algorithm(nn.Module):
    transforms = {}
    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__()
        self.hparams = hparams
    def update(self, x, y, **kwargs):
        raise NotImplementedError
    def predict(self, x):
        raise NotImplementedError
    def new_optimizer(self, parameters):
        return get_optimizer(self.hparams["optimizer"], parameters, lr=self.hparams["lr"])
class ERM(Algorithm):
    """Minimize the empirical risk."""
    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.featurizer = networks.Featurizer(input_shape, hparams)
        self.network = nn.Sequential(self.featurizer, nn.Linear(8, num_classes))
        self.optimizer = self.new_optimizer(self.network.parameters())
    def update(self, x, y, **kwargs):
        loss = F.cross_entropy(self.predict(torch.cat(x)), torch.cat(y))
        self.optimizer.zero_grad(); loss.backward(); self.optimizer.step()
        return {"loss": loss.item()}
    def predict(self, x):
        return self.network(x)
class Asks(ERM):
    def update(self, x, y, **kwargs):
        from domainbed.lib import misc
        self.seen = [misc.WHO, [len(rows) for rows in x], kwargs["step"], self.hparams.ld, self.hparams["turns"]]
        return super().update(x, y)
class Copies(ERM):
    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.before = None
    def update(self, x, y, **kwargs):
        last = self.network if self.before is None else self.before
        with torch.no_grad():
            target = last(torch.cat(x)).softmax(1)
        logits = self.predict(torch.cat(x))
        loss = F.cross_entropy(logits, target) + F.cross_entropy(logits, torch.cat(y))
        if kwargs["step"] == self.hparams["turns"]:
            parts = (self.featurizer, self.network[1])
            self.optimizer = self.new_optimizer([{"params": part.parameters()} for part in parts])
        torch.autograd.grad(loss, list(self.network.parameters()), retain_graph=True)  # fails for unused ones
        self.before = copy.deepcopy(self.network)
        self.before_optimizer = self.new_optimizer(self.before.parameters())
        self.parts = [self.network, nn.ModuleList([self.featurizer])]
        self.optimizer.zero_grad(); loss.backward(); self.optimizer.step()
        return {"loss": loss.item()}
class Sorts(ERM):
    def update(self, x, y, **kwargs):
        order = torch.cat(y).argsort()
        return super().update([torch.cat(x)[order]], [torch.cat(y)[order]])
class Undeclared(ERM):
    def predict(self, x):
        return super().predict(x) * self.hparams["scale"]
class Views(ERM):
    transforms = {"x2": None}
class Other(ERM):
    def update(self, batches, labels):
        return {}
class Perturbed(ERM):
    def update_perturbed(self, x, y, **kwargs):
        return {"loss": 7.0}
''',
    "domainbed/trainer.py": "def train():\n    step_vals = algorithm.update_perturbed(**inputs)\n",
}
DOMAINBED = {
    "domainbed/__init__.py": "",
    "domainbed/networks.py": NETWORKS,
    "domainbed/lib/__init__.py": "",
    "domainbed/lib/misc.py": "WHO = 'domainbed'\n",
    "domainbed/hparams_registry.py": SWAD["domainbed/hparams_registry.py"],
    "domainbed/algorithms.py": """
import torch
from torch import nn
from torch.nn import functional as F
from domainbed import networks
ALGORITHMS = ["Asks"]
class Asks(nn.Module):
    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__()
        self.featurizer = networks.Featurizer(input_shape, hparams)
        self.network = nn.Sequential(self.featurizer, nn.Linear(8, num_classes))
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=hparams["lr"])
    def update(self, minibatches, unlabeled=None):
        from domainbed.lib import misc
        self.seen = misc.WHO
        x, y = (torch.cat([batch[i] for batch in minibatches]) for i in (0, 1))
        loss = F.cross_entropy(self.predict(x), y)
        self.optimizer.zero_grad(); loss.backward(); self.optimizer.step()
        return {"loss": loss.item()}
    def predict(self, x):
        return self.network(x)
class Unlisted(Asks):
    pass
""",
}


@pytest.fixture
def fork(plugin_folder):
    """Return a function that writes a checkout and returns its plug-in name."""

    def write(files=SWAD, name="mine"):
        for path, text in files.items():
            file = plugin_folder / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return f"fork:{plugin_folder / name}"

    return write


def _build(name, **hparams):
    torch.manual_seed(0)
    facts = dataset_facts("Toy")
    return get_algorithm_class(name)(facts.shape, facts.num_classes, 3, {**default_hparams(name, "Toy"), **hparams})


def _batches():
    return make_minibatches(dataset="Toy")


def _train(plugin, algorithm, *more):
    command = [
        "train",
        "--dataset",
        "Toy",
        "--protocol",
        "quick",
        "--steps",
        "3",
        "--device",
        "cpu",
        "--set",
        "batch_size=8",
    ]
    return main([*command, "--plugins", plugin, "--algorithm", algorithm, "--output_dir", "out", *more])


def test_a_class_of_swads_dialect_gets_lists_of_tensors_the_step_and_the_hparams_of_its_config(fork):
    load.load_plugins([fork()])
    algorithm = _build("mine/Asks")

    algorithm.begin_update(5, 10)
    algorithm.update(_batches())

    assert algorithm.foreign.seen == ["swad", [6, 6, 6], 5, 0.5, 4]
    assert isinstance(algorithm.foreign.optimizer, torch.optim.Adam)


def test_two_checkouts_with_packages_of_one_name_live_side_by_side(fork, monkeypatch):
    monkeypatch.setitem(sys.modules, "domainbed", "the package of the process")
    load.load_plugins([fork(), fork(DOMAINBED, "other")])
    swads, domainbeds = _build("mine/Asks"), _build("other/Asks")

    for algorithm in (swads, domainbeds, swads):
        algorithm.update(_batches())

    assert (swads.foreign.seen[0], domainbeds.foreign.seen) == ("swad", "domainbed")
    assert sys.modules["domainbed"] == "the package of the process"
    assert "domainbed.lib.misc" not in sys.modules
    assert "other/Unlisted" not in ALGORITHMS


@pytest.mark.parametrize("name", ["mine/ERM", "other/Asks"])
def test_batchformer_around_a_fork_trains_its_encoder_with_the_cross_entropy_of_both_streams(fork, name):
    load.load_plugins([fork(), fork(DOMAINBED, "other")])
    plain, paired = _build(name), _build(f"{name}+BF", bf_layers=0)
    before = plain.update(_batches())

    assert paired.update(_batches()) == pytest.approx(before)  # without layers, twins equal plain rows
    paired = _build(f"{name}+BF")
    [encoder] = batchformers(paired)
    weights = [parameter.detach().clone() for parameter in encoder.parameters()]
    paired.update(_batches())
    assert not any(map(torch.equal, encoder.parameters(), weights))


def test_names_are_listed_and_suggested(fork, capsys):
    plugin = fork()

    assert main(["list", "algorithms", "mine/*", "--plugins", plugin]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["mine/ERM"] == "Minimize the empirical risk."
    assert _train(plugin, "SWAD+mine/ERMM") == 2
    assert "unknown algorithm 'mine/ERMM'; did you mean 'mine/ERM'" in capsys.readouterr().err


def test_hparams_are_those_of_the_registry_and_the_config(fork):
    load.load_plugins([fork()])
    defaults, drawn = default_hparams("SWAD+mine/ERM+BF", "Toy"), random_hparams("mine/ERM", "Toy", 5)

    assert (defaults["lr"], defaults["turns"], defaults["freeze_bn"]) == (1e-3, 2, False)
    assert default_hparams("mine/Asks", "Toy")["turns"] == 4  # of config.yaml, as the class reads it
    assert drawn["lr"] != 1e-3
    assert type(drawn["turns"]) is int
    assert not {"swad", "layers"} & defaults.keys()


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        ("mine/Sorts+BF", "sorts, shuffles or changes rows before its featurizer"),
        ("mine/Undeclared", "reads the hparam 'scale', which neither the fork's registry nor its config.yaml has"),
        ("mine/Views", "mine/Views needs more views of every image (x2)"),
        (
            "mine/Other",
            "has update(self, batches, labels), which is neither DomainBed's update(minibatches, unlabeled)",
        ),
        ("mine/Perturbed", "the fork's own loop calls update_perturbed instead of update; set hparam update_method"),
    ],
)
def test_what_would_train_wrongly_is_refused_with_the_reason(fork, algorithm, message, capsys):
    assert _train(fork(), algorithm) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_hparams_that_the_forks_script_sets_can_be_given(fork):
    assert _train(fork(), "mine/Undeclared", "--set", "scale=0.5") == 0


def test_another_update_method_can_be_chosen_for_some_steps(fork):
    load.load_plugins([fork()])
    algorithm = _build("mine/Perturbed", update_method="update_perturbed:1-1")

    losses = []
    for step in range(3):
        algorithm.begin_update(step, 3)
        losses.append(algorithm.update(_batches())["loss"])

    assert [loss == 7.0 for loss in losses] == [False, True, False]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "domainbed/networks.py",
            "import nobody_has_this\n",
            "fork mine needs the module nobody_has_this, which is not",
        ),
        ("domainbed/networks.py", "1 / 0\n", "fork mine cannot be imported: ZeroDivisionError: division by zero"),
        ("domainbed/hparams_registry.py", "", "has no default_hparams and random_hparams"),
        ("domainbed/algorithms/__init__.py", "", "defines no algorithm, a class with update and predict"),
        ("config.yaml", "a: [\n", "config.yaml cannot be read"),
    ],
)
def test_a_fork_that_cannot_be_used_is_one_sentence(fork, file, text, message, capsys):
    assert _train(fork({**SWAD, file: text}), "mine/ERM") == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_run_is_identified_by_the_code_of_a_fork_not_by_its_place(fork, tmp_path):
    plugin = fork()
    spec = resolved(algorithm="mine/ERM", plugins=[plugin])
    shutil.copytree(tmp_path / "mine", tmp_path / "elsewhere" / "mine")
    moved = resolved(algorithm="mine/ERM", plugins=[f"fork:{tmp_path}/elsewhere/mine"])
    (tmp_path / "mine" / "domainbed" / "lib" / "misc.py").write_text("WHO = 'edited'\n")
    edited = resolved(algorithm="mine/ERM", plugins=[plugin])

    assert moved.id == spec.id != edited.id
    with pytest.raises(InputError, match=r"the code of the fork .* is not that of the run"):
        load.load_plugins(spec.plugins)
    load.load_plugins(moved.plugins)
    with pytest.raises(InputError, match="another version of a fork called mine is loaded"):
        load.load_plugins(edited.plugins)
    shutil.rmtree(tmp_path / "mine")
    assert RunSpec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec  # needs no checkout


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        ("fork:nowhere", "is not a folder; clone the fork"),
        ("fork:.", "has no package with the modules algorithms, hparams_registry, networks"),
        ("fork:", "names no folder; write fork:PATH"),
        ("fork:a+b", "rename the folder"),
    ],
)
def test_a_path_that_is_no_fork_is_one_sentence(fork, plugin, message, capsys):
    fork({"x.py": ""})
    assert _train(plugin, "ERM") == 2
    assert message in capsys.readouterr().err


def test_an_interrupted_run_resumes_exactly_with_what_only_updates_create(fork, tmp_path):
    spec = quick_spec(algorithm="SWAD+mine/Copies+BF", plugins=(fork(),))
    asked = iter([False] * 6 + [True])
    with pytest.raises(Interrupted):
        run_quickly(spec, tmp_path / "cut", stop=lambda: next(asked))

    run_quickly(spec, tmp_path / "cut")
    run_quickly(spec, tmp_path / "whole")

    cut, whole = (torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("cut", "whole"))
    assert_close(cut["predictor"], whole["predictor"], rtol=0, atol=0)


def test_workers_of_a_sweep_import_its_forks_and_no_verb_that_reads_does(fork, tmp_path, capsys, monkeypatch):
    plugin = fork()
    text = "datasets: [Toy]\nalgorithms: [mine/ERM+BF]\nprotocol: quick\ntrials: 1\ntest_envs: [A]\nsteps: 3\n"
    (tmp_path / "mine.yaml").write_text(f"{text}plugins: ['fork:mine']\nhparams: {{batch_size: 8}}\n")

    assert main(["sweep", "mine.yaml", "--launcher", "dry_run"]) == 0
    assert f"--plugins {parse_fork(plugin)} " in capsys.readouterr().out
    assert main(["sweep", "mine.yaml", "--devices", "cpu", "--keep", "final"]) == 0
    [run] = (tmp_path / "results" / "mine" / "runs").iterdir()
    assert (run / "done").exists()

    monkeypatch.setattr(load, "_loaded", set())  # as in another process
    (tmp_path / "mine" / "domainbed" / "networks.py").write_text("open('imported', 'w')\n")
    for verb in ("status", "tables", "report"):
        assert main([verb, "results/mine"]) == 0
    assert main(["predict", str(run), "image.png"]) == 2
    assert "needs the plug-in fork:" in (said := capsys.readouterr().err)
    assert "which would run its code" in said
    assert not (tmp_path / "imported").exists()

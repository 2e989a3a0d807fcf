"""A small made-up checkout of DomainBed: its algorithms here, and our wrappers there."""

import importlib
import sys

import pytest
import torch
from support import make_minibatches

from dg_batchformer.algorithms import get_algorithm_class
from dg_batchformer.cli.main import main
from dg_batchformer.domainbed import install
from dg_batchformer.errors import InputError
from dg_batchformer.hparams_registry import default_hparams, random_hparams
from dg_batchformer.networks.batchformer import batchformers
from dg_batchformer.plugins import load

FILES = {
    "__init__.py": "",
    "networks.py": """
from torch import nn
class Flat(nn.Module):
    def __init__(self, input_shape):
        super().__init__()
        self.n_outputs = 8
        self.linear = nn.LazyLinear(8)
    def forward(self, x):
        return self.linear(x.flatten(1))
def Featurizer(input_shape, hparams):
    flat = Flat(input_shape)
    flat.linear = nn.Linear(int(__import__("math").prod(input_shape)), 8)
    return flat
""",
    "algorithms.py": """
import torch
from torch import nn
from torch.nn import functional as F
from domainbed import networks
ALGORITHMS = ["ERM", "Sorts"]
def get_algorithm_class(name):
    if name not in globals():
        raise NotImplementedError("Algorithm not found: {}".format(name))
    return globals()[name]
class Algorithm(nn.Module):
    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__()
        self.hparams = hparams
class ERM(Algorithm):
    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.featurizer = networks.Featurizer(input_shape, hparams)
        self.network = nn.Sequential(self.featurizer, nn.Linear(8, num_classes))
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=hparams["lr"])
    def update(self, minibatches, unlabeled=None):
        x, y = (torch.cat([batch[i] for batch in minibatches]) for i in (0, 1))
        loss = F.cross_entropy(self.predict(x), y)
        self.optimizer.zero_grad(); loss.backward(); self.optimizer.step()
        return {"loss": loss.item()}
    def predict(self, x):
        return self.network(x)
class Sorts(ERM):
    def update(self, minibatches, unlabeled=None):
        x, y = (torch.cat([batch[i] for batch in minibatches]) for i in (0, 1))
        return super().update([(x[y.argsort()], y.sort()[0])])
""",
    "hparams_registry.py": """
import numpy as np
def default_hparams(algorithm, dataset):
    return {"lr": 1e-3, "batch_size": 8, "class_balanced": False, "resnet18": False, "turns": 2}
def random_hparams(algorithm, dataset, seed):
    rng = np.random.RandomState(seed)
    return {**default_hparams(algorithm, dataset), "lr": 10 ** rng.uniform(-4, -2), "turns": rng.choice([1, 2, 3])}
""",
}


@pytest.fixture
def checkout(registrations, tmp_path, monkeypatch):
    """Put a small DomainBed on the path; remove it afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "domainbed"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "domainbed").mkdir()
    for name, text in FILES.items():
        (tmp_path / "domainbed" / name).write_text(text)
    yield tmp_path / "domainbed"
    for name in [name for name in sys.modules if name.split(".")[0] == "domainbed"]:
        del sys.modules[name]


def _train(tmp_path, algorithm):
    command = ["train", "--plugins", "domainbed", "--algorithm", algorithm, "--dataset", "Debug28", "--steps", "3"]
    return main([*command, "--device", "cpu", "--output_dir", str(tmp_path / "out")])


def _trains_its_encoder(algorithm):
    parameters = [parameter for encoder in batchformers(algorithm) for parameter in encoder.parameters()]
    before = [parameter.detach().clone() for parameter in parameters]
    algorithm.update(make_minibatches(dataset="Debug28"))
    return len(parameters) == 12 and not any(map(torch.equal, parameters, before))


def test_classes_of_a_checkout_train_here_with_and_without_batchformer(checkout, tmp_path):
    assert _train(tmp_path / "plain", "domainbed/ERM") == 0
    assert _train(tmp_path / "swad", "SWAD+domainbed/ERM+BF") == 0
    hparams = default_hparams("domainbed/ERM+BF", "Debug28")
    assert _trains_its_encoder(get_algorithm_class("domainbed/ERM+BF")((3, 28, 28), 2, 3, hparams))


def test_hparams_are_those_of_the_checkouts_registry_in_pythons_types(checkout):
    load.load_plugins(["domainbed"])
    registry = importlib.import_module("domainbed.hparams_registry")

    drawn = random_hparams("domainbed/ERM", "Debug28", 5)
    for name, value in registry.random_hparams("ERM", "Debug28", 5).items():
        assert drawn[name] == value
        assert type(drawn[name]) in (bool, int, float)
    assert default_hparams("domainbed/ERM", "Debug28")["backbone"] == "auto"


def test_batchformer_cannot_act_inside_its_networks(checkout, tmp_path, capsys):
    assert _train(tmp_path, "domainbed/ERM+BFv2") == 2
    assert "has none; use BF, which works on pooled features" in capsys.readouterr().err


def test_methods_that_batchformer_cannot_pair_there_are_refused_with_the_reason(checkout, tmp_path, capsys):
    assert _train(tmp_path, "domainbed/Sorts+BF") == 2
    assert "sorts, shuffles or changes rows before its featurizer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("networks.py", "import timmm\n", "plug-in domainbed needs the module timmm, which is not installed"),
        ("algorithms.py", "ALGORITHMS = None\n", "lists no ALGORITHMS; take facebookresearch/DomainBed"),
    ],
)
def test_a_checkout_that_cannot_be_used_is_one_sentence(checkout, tmp_path, file, text, message, capsys):
    (checkout / file).write_text(text)

    assert _train(tmp_path, "domainbed/ERM") == 2
    assert message in capsys.readouterr().err


def test_a_checkout_gets_the_wrappers_that_its_loop_supports(checkout):
    domainbed = importlib.import_module("domainbed")
    for _ in range(2):
        install(domainbed)
    algorithms, registry = domainbed.algorithms, domainbed.hparams_registry

    assert algorithms.ALGORITHMS[:2] == ["ERM", "Sorts"]
    assert algorithms.ALGORITHMS.count("ERM+BF") == 1
    assert not any("SWAD" in name or "IIDMax" in name for name in algorithms.ALGORITHMS)
    assert algorithms.get_algorithm_class("ERM") is algorithms.ERM
    assert "bf_heads" not in registry.default_hparams("ERM", "Debug28")
    for hparams in (registry.default_hparams("ERM+BF", "PACS"), registry.random_hparams("BF+ERM", "PACS", 3)):
        assert hparams["bf_heads"] == 4
        assert _trains_its_encoder(algorithms.get_algorithm_class("ERM+BF")((3, 28, 28), 2, 3, hparams))
    with pytest.raises(
        InputError, match=r"SWAD cannot run in DomainBed's loop, which passes it no validation loss .* SWAD\+domain"
    ):
        algorithms.get_algorithm_class("SWAD+ERM")
    with pytest.raises(NotImplementedError, match="Algorithm not found"):
        algorithms.get_algorithm_class("Nobody+BF")


def test_a_moving_average_predicts_there_with_the_mean_of_its_iterates(checkout):
    install(importlib.import_module("domainbed"))
    algorithms = importlib.import_module("domainbed.algorithms")
    registry = importlib.import_module("domainbed.hparams_registry")
    hparams = {**registry.default_hparams("ERM+SMA", "Debug28"), "sma_burn_in": 0}
    algorithm = algorithms.get_algorithm_class("ERM+SMA")((3, 28, 28), 2, 2, hparams)
    iterates = []
    for _ in range(3):
        algorithm.update(make_minibatches(num_domains=2, dataset="Debug28"))
        iterates.append([weight.detach().clone() for weight in algorithm.predictor.parameters()])
    x = torch.rand(4, 3, 28, 28)

    predicted = algorithm.predict(x)

    assert all(torch.equal(*pair) for pair in zip(algorithm.predictor.parameters(), iterates[-1], strict=True))
    with torch.no_grad():
        for weight, *found in zip(algorithm.predictor.parameters(), *iterates, strict=True):
            weight.copy_(torch.stack(found).mean(0))
        assert torch.allclose(algorithm.predictor(x), predicted, atol=1e-6)

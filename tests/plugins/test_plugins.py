"""Algorithms of other people as plug-ins, unchanged."""

import json
import re
import textwrap
import uuid

import pytest
import torch
from support import make_algorithm, make_minibatches, quick_spec, resolved, run_quickly
from torch.testing import assert_close

from dg_batchformer.cli.main import main
from dg_batchformer.errors import InputError
from dg_batchformer.networks.batchformer import batchformers
from dg_batchformer.plugins import load
from dg_batchformer.registry import ALGORITHMS
from dg_batchformer.spec.names import split_name
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.spec.sweep_file import load_sweep
from dg_batchformer.sweep.expand import expand
from dg_batchformer.training.stop import Interrupted

# DomainBed's style; only the networks are ours.
UPSTREAM = """
import torch
from torch import nn
from torch.nn import functional as F
from dg_batchformer import networks

HPARAMS = {"my_weight": 1.0}

class Algorithm(torch.nn.Module):
    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super(Algorithm, self).__init__()
        self.hparams = hparams

    def update(self, minibatches, unlabeled=None):
        raise NotImplementedError

    def predict(self, x):
        raise NotImplementedError

class MyAlgo(Algorithm):
    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.featurizer = networks.Featurizer(input_shape, self.hparams)
        self.classifier = nn.Linear(self.featurizer.n_outputs, num_classes)
        self.network = nn.Sequential(self.featurizer, self.classifier)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=self.hparams["lr"])

    def update(self, minibatches, unlabeled=None):
        all_x = torch.cat([x for x, y in minibatches])
        all_y = torch.cat([y for x, y in minibatches])
        loss = self.hparams["my_weight"] * F.cross_entropy(self.predict(all_x), all_y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.item()}

    def predict(self, x):
        return self.network(x)
"""
SMALL = '{"mlp_width": 16, "batch_size": 8}'


@pytest.fixture
def write(plugin_folder):
    """Return a function that writes a plug-in module and returns its name."""

    def write_module(text=UPSTREAM, more=""):
        name = f"plugin_{uuid.uuid4().hex}"
        (plugin_folder / f"{name}.py").write_text(textwrap.dedent(text) + textwrap.dedent(more))
        return name

    return write_module


def _train(*more):
    command = ["train", "--dataset", "Toy", "--protocol", "quick", "--steps", "5", "--checkpoint_freq", "2"]
    return main([*command, "--hparams", SMALL, "--device", "cpu", "--output_dir", "out", *more])


def test_a_class_of_domainbeds_signature_trains_as_it_is_and_is_part_of_the_run(write, capsys, tmp_path):
    name = write()

    assert _train("--algorithm", "SWAD+MyAlgo+BF", "--plugins", name) == 0
    assert "SWAD+MyAlgo+BF on Toy" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "spec.json").read_text())["plugins"] == [name]
    assert _train("--algorithm", "MyAlgo", "--plugins", name) == 2
    assert "holds another run" in capsys.readouterr().err


def test_an_interrupted_run_resumes_exactly(write, tmp_path):
    spec = quick_spec(algorithm="SWAD+MyAlgo+BF", plugins=(write(),))
    asked = iter([False] * 6 + [True])
    with pytest.raises(Interrupted):
        run_quickly(spec, tmp_path / "cut", stop=lambda: next(asked))

    run_quickly(spec, tmp_path / "cut")
    run_quickly(spec, tmp_path / "whole")

    cut, whole = (torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("cut", "whole"))
    assert_close(cut["predictor"], whole["predictor"], rtol=0, atol=0)


def test_batchformer_around_a_pasted_class_is_cross_entropy_over_both_streams_and_trains_the_encoder(write):
    load.load_plugins([write()])
    algorithm, ours = make_algorithm("MyAlgo+BF"), make_algorithm("ERM+BF")
    ours.inner.network.load_state_dict(algorithm.inner.foreign.network.state_dict())
    [encoder] = batchformers(algorithm)
    before = [parameter.detach().clone() for parameter in encoder.parameters()]
    losses = []
    for one in (algorithm, ours):
        torch.manual_seed(0)
        losses.append(float(one.update(make_minibatches())["loss"]))

    assert losses[0] == pytest.approx(losses[1])
    assert not any(map(torch.equal, encoder.parameters(), before))


# A method of ours: a penalty on the features of an adapter behind the featurizer.
ADAPTED = """
from torch import nn
from dg_batchformer.algorithms.base import descend
from dg_batchformer.algorithms.erm import ERM

class Adapted(ERM):
    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__(input_shape, num_classes, num_domains, hparams)
        width = self.featurizer.n_outputs
        self.featurizer = nn.Sequential(self.featurizer, nn.Linear(width, width, bias=False))
        self.network = nn.Sequential(self.featurizer, self.classifier)
        self.optimizer = self.new_optimizer(self.network)

    def update(self, minibatches, unlabeled=None):
        risk, plain, labels = self.risk_and_features(minibatches)
        descend(self.optimizer, 0 * risk + plain.square().mean())
        return {"loss": risk.detach()}
"""


def test_a_penalty_trains_an_adapter_behind_a_frozen_featurizer(write, tmp_path):
    load.load_plugins([write(ADAPTED)])
    torch.save(make_algorithm("ERM").featurizer.state_dict(), tmp_path / "weights.pth")
    algorithm = make_algorithm("Adapted", freeze="featurizer", weights=str(tmp_path / "weights.pth"))
    adapter = algorithm.featurizer[1]
    before = adapter.weight.detach().clone()

    algorithm.update(make_minibatches())

    assert not torch.equal(adapter.weight, before)


def test_a_plug_in_that_leaves_both_streams_to_our_helpers_may_weigh_and_smooth_them(write):
    load.load_plugins([write(ADAPTED)])

    assert make_algorithm("Adapted+BF", bf_loss_weight=0.3, label_smoothing=0.1).update(make_minibatches())


@pytest.mark.parametrize(
    ("more", "hparams", "message"),
    [
        ("", {"bf_loss_weight": 0.3}, "MyAlgo does not tell plain rows from twins"),
        ("", {"bf_lr_scale": 2.0}, "encoder into one optimizer group"),
        ("# logits[::2]", {"batch_size": 9}, "into different halves; give an even batch_size"),
    ],
)
def test_updates_that_pairing_would_break_are_refused_with_the_reason(write, more, hparams, message):
    load.load_plugins([write(UPSTREAM.replace("return {", f"{more}\n        return {{"))])

    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        make_algorithm("MyAlgo+BF", **hparams)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("all_x = all_x[all_y.argsort()]", "sorts, shuffles or changes rows before its featurizer"),
        ("all_x, all_y = all_x[:3], all_y[:3]", "cannot pair 3 rows"),
        (
            "self.clone = networks.Featurizer(all_x.shape[1:], self.hparams)",
            "MyAlgo builds a featurizer in update",
        ),
    ],
)
def test_an_update_that_cannot_be_paired_is_refused_with_the_reason(write, line, message):
    load.load_plugins([write(UPSTREAM.replace("loss = self", f"{line}\n        loss = self"))])

    make_algorithm("MyAlgo").update(make_minibatches())
    with pytest.raises(InputError, match=message):
        make_algorithm("MyAlgo+BF").update(make_minibatches())


def test_a_class_derived_from_our_base_keeps_its_declarations(write):
    ours = """
    from dg_batchformer.algorithms.sd import SD
    from dg_batchformer.hparams import HParam

    class MySD(SD):
        @classmethod
        def search_space(cls, dataset):
            return {**super().search_space(dataset), "mine": HParam(2)}
    """
    load.load_plugins([write(ours)])

    algorithm = make_algorithm("MySD+BF", bf_loss_weight=0.3, mine=3)
    assert algorithm.hparams["mine"] == 3
    assert "penalty" in algorithm.update(make_minibatches())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (UPSTREAM.replace("HPARAMS", "OTHERS"), "MyAlgo reads the undeclared hparam 'my_weight'; declare it"),
        (UPSTREAM.replace("MyAlgo", "CORAL"), "has the algorithm CORAL, but dg_batchformer.algorithms.coral has one"),
        ("import nobody_has_this\n", "needs the module nobody_has_this, which is not installed"),
        ("1 / 0\n", r"cannot be imported: ZeroDivisionError: division by zero (.*\.py, line 1)"),
        ("def (\n", r"cannot be imported: SyntaxError: .*\.py, line 1"),
        ("x = 1\n", "has no algorithm: it defines no torch.nn.Module with update, predict"),
        (
            UPSTREAM.replace(
                "class MyAlgo(Algorithm):\n    def __init__(self, input_shape, ",
                "class MyAlgo(Algorithm):\n    def __init__(self, ",
            ),
            "has no algorithm: .*; MyAlgo has another __init__ than __init__",
        ),
        (UPSTREAM.replace("MyAlgo", "SWAD"), "cannot be called SWAD, the name of a wrapper; rename the class"),
        (
            "HPARAMS = {'my_weight': None}\n" + UPSTREAM.replace("HPARAMS = {", "x = {"),
            "hparam my_weight must be a single value",
        ),
        ("HPARAMS = []\n" + UPSTREAM.replace("HPARAMS = {", "x = {"), "HPARAMS must be a dict from names to defaults"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_one_sentence(write, text, message, capsys):
    algorithm = "CORAL" if "CORAL" in message else "MyAlgo"

    assert _train("--algorithm", algorithm, "--plugins", write(text)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    with pytest.raises(InputError, match=message.replace("(.*", r"\(.*").replace("1)", r"1\)")):
        raise InputError(said)


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        (
            'return {"loss": loss.item()}',
            "pass",
            "MyAlgo.update returns None; it must return a dict of names to numbers",
        ),
        ('return {"loss": loss.item()}', "return loss.item()", "MyAlgo.update returns 1."),
        ('return {"loss": loss.item()}', 'return {"loss": None}', "MyAlgo.update returns None as 'loss'"),
        ('return {"loss": loss.item()}', 'return {"loss": "low"}', "MyAlgo.update returns 'low' as 'loss'"),
        ('return {"loss": loss.item()}', 'return {"z": all_x}', r"MyAlgo.update returns a tensor \(24, \d+\) as 'z'"),
        (
            "return self.network(x)",
            "self.network(x)",
            r"MyAlgo.predict returns None; it must return logits \(\d+, 3\)",
        ),
        ("return self.network(x)", "return x[:1]", r"MyAlgo.predict returns a tensor \(1, \d+\); it must"),
    ],
)
def test_methods_with_wrong_return_values_are_named_with_what_they_must_return(write, line, instead, message, capsys):
    text = UPSTREAM.replace("F.cross_entropy(self.predict(all_x)", "F.cross_entropy(self.network(all_x)")
    name = write(text.replace(line, instead))

    for algorithm in ("MyAlgo", "SWAD+MyAlgo+BF"):
        assert _train("--algorithm", algorithm, "--plugins", name, "--output_dir", algorithm) == 2
        said = capsys.readouterr().err
        assert re.search(message.replace("24", "24|48") if "BF" in algorithm else message, said), said
        assert said.count("\n") == 1


def test_an_error_in_a_plugin_is_one_sentence_that_names_the_file_with_its_traceback(write, capsys, tmp_path):
    name = write(UPSTREAM.replace("loss.backward()", "loss.backwards()"))

    assert _train("--algorithm", "MyAlgo", "--plugins", name) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: AttributeError: 'Tensor' object has no attribute 'backwards'")
    assert said.endswith("its traceback is in out/error.txt\n")
    assert "loss.backwards()" in (tmp_path / "out" / "error.txt").read_text()


def test_hparams_may_be_declared_on_the_class(write):
    text = UPSTREAM.replace("HPARAMS =", "OTHERS =").replace(
        "class MyAlgo(Algorithm):", "class MyAlgo(Algorithm):\n    HPARAMS = {'my_weight': 2.0}\n"
    )
    load.load_plugins([write(text)])

    assert make_algorithm("MyAlgo").hparams["my_weight"] == 2.0
    assert make_algorithm("MyAlgo", my_weight=3).hparams["my_weight"] == 3.0


def test_a_class_in_two_plugins_is_registered_once(write):
    first = write()
    second = write(f"from {first} import MyAlgo\nMyAlgo.__module__ = __name__\n", more="HPARAMS = {'my_weight': 1.0}")

    load.load_plugins([first, second])
    assert "MyAlgo" in ALGORITHMS


@pytest.mark.parametrize(
    ("name", "message"),
    [("nobody_has_this", "there is no module nobody_has_this; run from"), ("my_module.py", "is not a module name")],
)
def test_a_missing_module_is_one_sentence(name, message, capsys):
    assert _train("--plugins", name) == 2
    assert message in capsys.readouterr().err


def test_a_sweep_names_its_plugins_and_its_workers_import_them(write, tmp_path, capsys):
    name = write()
    file = tmp_path / "mine.yaml"
    text = f"datasets: [Toy]\nalgorithms: [MyAlgo+BF]\nprotocol: quick\ntrials: 1\ntest_envs: [A]\nplugins: [{name}]\n"
    file.write_text(f"{text}steps: 3\nhparams: {SMALL}\n")
    [run] = expand(load_sweep(file))

    assert main(["sweep", str(file), "--launcher", "dry_run"]) == 0
    assert f"--plugins {name} " in capsys.readouterr().out
    assert main(["sweep", str(file), "--devices", "cpu"]) == 0
    assert (tmp_path / "results" / "mine" / "runs" / run.spec.id / "done").exists()

    (tmp_path / f"{name}.py").write_text("raise SystemExit('status and tables import no plug-in')")
    for verb in ("status", "tables"):
        assert main([verb, "results/mine"]) == 0
    assert "MyAlgo+BF" in capsys.readouterr().out


def test_plugins_are_part_of_the_identity_of_a_run_and_their_order_is_not():
    assert resolved(plugins=()).id == resolved().id
    assert resolved(plugins=("b", "a")).id == resolved(plugins=["a", "b", "a"]).id != resolved().id
    assert RunSpec.from_dict(json.loads(json.dumps(resolved(plugins=("a",)).as_dict()))) == resolved(plugins=("a",))
    assert split_name("SWAD+domainbed/CORAL") == ("domainbed/CORAL", ("SWAD",))

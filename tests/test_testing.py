"""``python -m dg_batchformer.testing``: the contracts over a plug-in."""

import textwrap
import uuid

import pytest

from dg_batchformer import testing

MODULE = """
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.wrappers.base import Wrapper


class Mine(ERM):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.updates = 0

    def update(self, minibatches, unlabeled=None):
        self.updates += 1
        return super().update(minibatches, unlabeled)


class Halved(Wrapper):
    acts_on = "risk"

    def update(self, minibatches, unlabeled=None):
        return self.inner.update([(x / 2, y) for x, y in minibatches], unlabeled)
"""


@pytest.fixture
def check(plugin_folder):
    """Return a function that checks a module of this source, and returns the outcomes by name."""

    def checked(text):
        name = f"plugin_{uuid.uuid4().hex}"
        (plugin_folder / f"{name}.py").write_text(textwrap.dedent(text))
        return {outcome.name: outcome for outcome in testing.check_module(name)}

    return checked


def test_algorithms_and_wrappers_are_checked_alone_and_composed(check):
    outcomes = check(MODULE)

    assert {outcome.status for outcome in outcomes.values()} == {"ok"}, outcomes
    assert {"Mine", "SWAD+Mine+BF", "Halved+ERM", "Halved+CORAL+BF", "Halved+CORAL+SWAD"} <= set(outcomes)


@pytest.mark.parametrize(
    ("old", "new", "name", "message"),
    [
        ("return super().update(minibatches, unlabeled)", "return {'loss': 0.0}", "Mine", "change no weight"),
        ("return super().update(minibatches, unlabeled)", "return {'loss': 1e999}", "Mine", "returns inf as loss"),
        (
            "        self.updates += 1\n",
            "        import itertools, torch\n"
            "        self.__class__.calls = getattr(self.__class__, 'calls', 0) + 1\n"
            "        minibatches = [(x + self.__class__.calls, y) for x, y in minibatches]\n",
            "Mine",
            "a run that is resumed from a checkpoint differs",
        ),
        (
            "    def update(self, minibatches, unlabeled=None):\n        self",
            "    def predict(self, x):\n        return self.network(x - x.mean())\n\n"
            "    def update(self, minibatches, unlabeled=None):\n        self",
            "Mine",
            "predictions depend on the rest of the batch",
        ),
        ("x / 2", "x.missing", "Halved+ERM", "AttributeError: 'Tensor' object has no attribute 'missing'"),
    ],
)
def test_a_contract_that_is_broken_is_named(check, old, new, name, message):
    outcome = check(MODULE.replace(old, new))[name]

    assert outcome.status == "FAILED"
    assert message in outcome.about


def test_the_command_exits_with_1_for_a_failure_and_2_for_a_missing_module(monkeypatch, capsys):
    outcomes = [testing.Outcome("ok", "Mine", "trains"), testing.Outcome("FAILED", "Mine+BF", "no")]
    monkeypatch.setattr(testing, "check_module", lambda module, data_dir: iter(outcomes))
    assert testing.main(["my_module"]) == 1
    assert capsys.readouterr().out == "ok      Mine: trains\nFAILED  Mine+BF: no\n"
    monkeypatch.undo()
    assert testing.main(["nobody_has_this"]) == 2
    assert "there is no module nobody_has_this" in capsys.readouterr().err

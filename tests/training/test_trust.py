"""Untrusted checkpoints: only state that the algorithm itself would save is restored."""

import copy
import random
import sys
from collections import deque
from contextlib import suppress
from itertools import product

import pytest
import torch
from support import Silence, make_algorithm, make_minibatches, quick_spec, run_quickly
from torch import nn

from dg_batchformer.errors import InputError
from dg_batchformer.storage.folders import RunFolder
from dg_batchformer.training import checkpoint
from dg_batchformer.training.encoding import KIND
from dg_batchformer.training.stop import Interrupted
from dg_batchformer.training.trust import Refused, refuse_foreign

CODE = {KIND: "object", "value": {"__globals__": {KIND: "dict", "value": [["os", "changed"]]}}}
STRANGE = [
    None, -1, 2**70, float("nan"), "__class__", b"bytes", [], {}, set(), (1,), torch.ones(2, 3), CODE, deque(),
    "x" * 999, torch.empty(0), torch.ones(()).bool(), nn.Parameter(torch.ones(1)), torch.float32,
]  # fmt: skip
FOREIGN_NAMES = [
    "update", "predict", "forward", "network.forward", "__class__", "__dict__", "__init__", "__globals__", "_modules",
    "_parameters", "_forward_hooks", "training", "network", "featurizer", "classifier", "predictor", "search_space",
    "new_optimizer", "register_buffer", "no_such_name", "_private",
]  # fmt: skip
FOREIGN_VALUES = [
    1,
    "text",
    None,
    torch.ones(2),
    CODE,
    {KIND: "dict", "value": [["a", 1]]},
    {KIND: "stateful", "value": 1},
]


def _algorithm():
    return make_algorithm("SWAD+CORAL+BF", dataset="Toy")


def _state():
    return copy.deepcopy(checkpoint.capture(_algorithm()))


def _inner(state):
    return state["attributes"]["inner.inner"]


@pytest.mark.parametrize("name", FOREIGN_NAMES)
def test_a_name_that_the_algorithm_would_not_save_is_refused(name):
    algorithm = _algorithm()
    captured = checkpoint.capture(algorithm)
    for path, value in product(("", "inner", "inner.inner", "inner.inner.featurizer"), FOREIGN_VALUES):
        attributes = {**captured["attributes"], path: {**captured["attributes"].get(path, {}), name: value}}

        with pytest.raises(Refused, match=name):
            refuse_foreign(algorithm, {**captured, "attributes": attributes}, captured)


@pytest.mark.parametrize("path", ["__class__", "inner.update", "inner.update.__globals__", "inner.__dict__", 3])
def test_a_path_that_is_not_a_module_is_refused(path):
    state = _state()
    state["attributes"][path] = {"sys": 1}

    with pytest.raises(Refused, match="has no module"):
        checkpoint.restore(_algorithm(), state)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer", 3),
        ("optimizer", torch.ones(2)),
        ("optimizer", {KIND: "object", "value": {"step": 1}}),
        ("optimizer", {KIND: "stateful", "value": {KIND: "dict", "value": [["step", 1]]}}),
        ("optimizer", {KIND: "stateful", "value": {KIND: "generator", "value": 1}}),
        ("hparams", 3),
        ("hparams", {KIND: "dict", "value": [["backbone", "another"]]}),
        ("hparams", {KIND: "list", "value": [], "maxlen": None}),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused(name, value):
    state = _state()
    assert name in _inner(state)
    _inner(state)[name] = value

    with pytest.raises(Refused, match=name):
        checkpoint.restore(_algorithm(), state)


def test_texts_of_hparams_stay_those_of_the_run():
    state = _state()
    pairs = _inner(state)["hparams"]["value"]
    pairs[[key for key, _ in pairs].index("backbone")][1] = "timm/another"

    with pytest.raises(Refused, match="hparams are not those of the run"):
        checkpoint.restore(_algorithm(), state)


@pytest.mark.parametrize("change", ["missing", "added", "shape", "number", "sparse"])
def test_tensors_of_other_names_or_shapes_are_refused(change):
    state = _state()
    tensors = state["modules"]
    name = next(iter(tensors))
    if change == "missing":
        del tensors[name]
    elif change == "added":
        name = "extra"
        tensors[name] = torch.ones(1)
    elif change == "shape":
        tensors[name] = torch.ones(3, *tensors[name].shape[1:])
    else:
        tensors[name] = 3 if change == "number" else tensors[name].to_sparse()

    with pytest.raises(Refused, match=name):
        checkpoint.restore(_algorithm(), state)


def test_a_refused_state_changes_nothing():
    algorithm = _algorithm()
    before = copy.deepcopy(checkpoint.capture(algorithm))
    other = make_algorithm("SWAD+CORAL+BF", dataset="Toy", seed=1)
    other.update(make_minibatches(dataset="Toy"))
    state = checkpoint.capture(other)
    state["attributes"][""]["updates"] = {KIND: "object", "value": {}}

    with pytest.raises(Refused, match="updates"):
        checkpoint.restore(algorithm, state)

    after = checkpoint.capture(algorithm)
    assert all(torch.equal(value, after["modules"][name]) for name, value in before["modules"].items())
    assert str(after["attributes"]) == str(before["attributes"])


@pytest.mark.parametrize("seed", range(40))
def test_a_corrupted_state_is_accepted_or_refused_in_one_sentence(seed):
    dice, algorithm, state = random.Random(seed), _algorithm(), _state()
    modules, paths, search = set(sys.modules), list(sys.path), vars(type(algorithm)).copy()
    for _ in range(dice.randrange(1, 4)):
        _spoil(state, dice, STRANGE)
    with suppress(Refused):  # and nothing else
        checkpoint.restore(algorithm, state)

    assert (set(sys.modules), sys.path, vars(type(algorithm))) == (modules, paths, search)
    assert callable(algorithm.update)


def _spoil(part, dice, strange):
    """Put an unexpected value into a random place of a state."""
    while True:
        keys = list(part) if isinstance(part, dict) else range(len(part))
        if not keys:
            return
        key = dice.choice(keys)
        if isinstance(part[key], dict | list) and dice.random() < 0.85:
            part = part[key]
        elif isinstance(part, dict) and dice.random() < 0.3:
            part[dice.choice(["update", "__class__", KIND, "value", 3, key])] = dice.choice(strange)
            return
        else:
            part[key] = dice.choice(strange)
            return


class Later(nn.Module):
    """Sets an attribute in training, and has a class default."""

    finished = False

    def __init__(self):
        super().__init__()
        self.memory = torch.empty(0)
        self.queue = deque(maxlen=2)

    def update(self):
        self.seen, self.finished, self.memory = 3, True, torch.ones(2, 2)
        self.queue.append(torch.ones(1))


def test_attributes_that_the_algorithm_sets_in_training_are_restored():
    one, other = Later(), Later()
    one.update()

    checkpoint.restore(other, checkpoint.capture(one))

    assert (other.seen, other.finished, other.memory.shape, len(other.queue)) == (3, True, (2, 2), 1)


@pytest.mark.parametrize("value", ["text", {KIND: "list", "value": [], "maxlen": None}], ids=str)
def test_a_class_default_keeps_its_type(value):
    with pytest.raises(Refused, match="finished"):
        checkpoint.restore(Later(), {"modules": {}, "attributes": {"": {"finished": value}}})


def _interrupted(path):
    asked = iter([False] * 5 + [True])
    with pytest.raises(Interrupted):
        run_quickly(quick_spec(), path, stop=lambda: next(asked))
    return torch.load(RunFolder(path).checkpoint_file, weights_only=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threads", 10**9),
        ("threads", True),
        ("step", -1),
        ("step", 10**6),
        ("records_bytes", -5),
        ("seconds", "long"),
        ("means", {"update": 1}),
        ("means", {"sums": {}, "counts": {}, "updates": 0, "seconds": 0.0, "clear": 1}),
        ("execution", {"precision": "fp32", "data_path": "exact", "compile": "maybe"}),
        ("execution", {"precision": "fp32"}),
        ("algorithm", {"modules": {}, "attributes": {"update": {"__globals__": 1}}}),
    ],
    ids=str,
)
def test_a_run_names_a_checkpoint_that_it_cannot_have_saved(name, value, tmp_path):
    content = _interrupted(tmp_path)
    content["state"][name] = value
    torch.save(content, RunFolder(tmp_path).checkpoint_file)

    with pytest.raises(
        InputError, match=r"checkpoint\.pt was not saved by this run: .*; delete it to restart"
    ) as raised:
        run_quickly(quick_spec(), tmp_path)

    assert "\n" not in str(raised.value)
    RunFolder(tmp_path).checkpoint_file.unlink()
    watcher = Silence()
    run_quickly(quick_spec(), tmp_path, watcher=watcher)
    assert watcher.starts == [0]

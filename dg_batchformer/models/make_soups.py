"""Make soups of a group of kept models: average, validate, evaluate, and write each as a run of its own.

A soup's folder has the files of a run (spec.json is a copy of its first member's) and ``soup.json``: ``label`` of its
row, ``kind``, ``members`` (ids of the averaged runs) and ``offered`` (number of candidates). ``tables`` reads it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from dg_batchformer.algorithms import Algorithm
from dg_batchformer.catalog.wrappers import returns_average
from dg_batchformer.datasets import Dataset
from dg_batchformer.models.load import KeptModel, load_model, open_trained, read_content, rebuilding
from dg_batchformer.models.members import Group
from dg_batchformer.models.precision import Precision, compute_as_runs
from dg_batchformer.models.soup import Soup, State, greedy_soup, uniform_soup
from dg_batchformer.networks.batch_norm import has_live_batch_norm, reestimate_batch_norm
from dg_batchformer.spec.run_folder import read_spec
from dg_batchformer.storage.digests import mark_done
from dg_batchformer.storage.folders import RunFolder, SweepFolder, write_json
from dg_batchformer.storage.folders import State as RunState
from dg_batchformer.training.compute_mode import Execution, data_path
from dg_batchformer.training.data_path import open_images
from dg_batchformer.training.evaluate import Evaluation, build_evaluator
from dg_batchformer.training.export import keep_model, write_predictions
from dg_batchformer.training.loaders import Loader
from dg_batchformer.training.records import RecordWriter
from dg_batchformer.training.run_log import Watcher
from dg_batchformer.training.sampling import Sampler, split_environments, training_inputs

KINDS = ("uniform", "greedy")


class MadeSoup(NamedTuple):
    """A soup that was written.

    Args:
        members, offered: number of models averaged, and of candidates.
        best_single: validation accuracy of the best candidate. evaluation: of the soup.
        precision: of all evaluations.

    """

    kind: str
    members: int
    offered: int
    best_single: float
    evaluation: Evaluation
    precision: Precision


class Setting:
    """The shared model, data and evaluator of a group, which its members' weights are loaded into."""

    def __init__(
        self, model: KeptModel, precision: Precision, dataset: Dataset, loader: Loader, device: torch.device
    ) -> None:
        self.model, self.dataset, self.loader, self.device = model, dataset, loader, device
        self.precision = precision
        self.splits = split_environments(model.spec, dataset)
        self.evaluator = build_evaluator(model.spec, model.hparams, loader, self.splits, device)
        self.sampler = Sampler(model.spec, model.hparams, dataset, self.splits)

    def with_weights(self, state: State, *, averaged: bool) -> Algorithm:
        """Load weights into the model; if they are averaged, re-estimate BatchNorm statistics on training data."""
        algorithm = self.model.algorithm
        algorithm.predictor.load_state_dict(state)
        algorithm.train()
        if averaged and has_live_batch_norm(algorithm.predictor):
            inputs = training_inputs(self.sampler, self.loader, self.model.spec, self.device)
            reestimate_batch_norm(algorithm.predictor, inputs)
        return algorithm

    def validate(self, state: State, *, averaged: bool) -> float:
        """Return the validation accuracy, in [0, 1], of a set of weights."""
        return self.evaluator.validate(self.with_weights(state, averaged=averaged), self.model.spec.steps).accuracy

    def records(self, folder: RunFolder) -> RecordWriter:
        """Return a writer for the records of a soup, which include the compute mode."""
        writer = RecordWriter(folder, self.model.spec, self.model.hparams, self.dataset, self.splits, self.device)
        execution = Execution(self.precision.used, data_path(self.model.spec, self.dataset), "off")
        writer.constant.update(execution._asdict())
        return writer


def make_soups(
    sweep: SweepFolder,
    group: Group,
    runs: Sequence[RunFolder],
    kinds: Sequence[str],
    *,
    data_dir: Path | None,
    device: torch.device,
    watcher: Watcher,
) -> Iterator[MadeSoup]:
    """Make and write one soup per kind from runs with the same initial weights; yield each as it is written.

    Raises InputError if the data is missing or a model cannot be read.
    """

    def load(place: int) -> State:
        spec = read_spec(runs[place])
        content = read_content(runs[place].model_file, spec)
        with rebuilding(runs[place], spec):
            return content["predictor"]

    def validate_alone(place: int) -> float:
        with rebuilding(runs[place], setting.model.spec):  # the first time that these weights are loaded
            return setting.validate(load(place), averaged=False)

    with _setting(runs, data_dir, device, watcher) as setting:
        accuracies = [validate_alone(place) for place in range(len(runs))]
        for kind in kinds:
            if kind == "uniform":
                soup = uniform_soup(len(runs), load)
            else:
                soup = greedy_soup(accuracies, load, partial(setting.validate, averaged=True))
            evaluation = _write(sweep, group, kind, soup, runs, setting)
            yield MadeSoup(kind, len(soup.members), len(runs), max(accuracies), evaluation, setting.precision)


@contextmanager
def _setting(
    runs: Sequence[RunFolder], data_dir: Path | None, device: torch.device, watcher: Watcher
) -> Iterator[Setting]:
    model = load_model(runs[0], device)
    precision = compute_as_runs(model, runs, device)
    dataset = open_trained(model.spec, model.classes, data_dir, model.hparams)
    with open_images(model.spec, model.hparams, dataset, device, watcher) as loader:
        yield Setting(model, precision, dataset, loader, device)


def _write(
    sweep: SweepFolder, group: Group, kind: str, soup: Soup, runs: Sequence[RunFolder], setting: Setting
) -> Evaluation:
    """Write a soup's folder, replacing an earlier one; ``done`` is written last."""
    label, model = f"{group.label} soup-{kind}", setting.model
    spec = model.spec
    name = hashlib.sha256(f"{label}\t{group.name}".encode()).hexdigest()[:16]
    folder = RunFolder(sweep.soups / name)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.done_file.unlink(missing_ok=True)
    algorithm = setting.with_weights(soup.state, averaged=len(soup.members) > 1)
    evaluation = setting.evaluator(algorithm, spec.steps)
    writer = setting.records(folder)
    writer.cut(0)
    # Selection reads only the final records of averaging wrappers.
    final = {"final": True} if returns_average(spec.algorithm) else {}
    writer.append(spec.steps, {"soup_members": len(soup.members), **final}, evaluation)
    write_predictions(folder.predictions_file, algorithm, setting.evaluator, spec.steps, setting.dataset)
    members = [runs[place].path.name for place in soup.members]
    write_json(folder.soup_file, {"label": label, "kind": kind, "members": members, "offered": len(runs)})
    write_json(folder.spec_file, spec.as_dict())
    keep_model(folder, algorithm, spec, model.hparams, setting.dataset, model.init)
    mark_done(folder, {"id": name, "outcome": RunState.DONE.value, "seconds": 0.0})
    return evaluation

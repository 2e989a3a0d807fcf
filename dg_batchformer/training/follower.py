"""A run that follows a trajectory: its folder, its records, its model and, if it averages weights, its average."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from dg_batchformer.algorithms import Algorithm, get_algorithm_class
from dg_batchformer.callbacks.base import Callback, RunInfo
from dg_batchformer.callbacks.group import CallbackGroup
from dg_batchformer.callbacks.load import find_callbacks
from dg_batchformer.datasets import Dataset
from dg_batchformer.errors import CannotResume, InputError
from dg_batchformer.hparams import DeclaredHparams
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.plugins.load import load_plugins_of
from dg_batchformer.results.race import Standing, standing_at
from dg_batchformer.spec.names import split_name
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.spec.race import Bracket
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.spec.run_folder import refuse_other_run
from dg_batchformer.spec.trajectories import averages
from dg_batchformer.storage.digests import mark_done
from dg_batchformer.storage.folders import RunFolder, State, write_json
from dg_batchformer.training import checkpoint
from dg_batchformer.training.compute_mode import saved_execution
from dg_batchformer.training.evaluate import Evaluation, Evaluator
from dg_batchformer.training.export import keep_model, write_predictions
from dg_batchformer.training.lines import Lines, outcome, place_text
from dg_batchformer.training.records import RecordWriter
from dg_batchformer.training.run_log import Watcher, followed_to_the_end, journal, log, logging_only, say, tell
from dg_batchformer.training.sampling import Splits
from dg_batchformer.training.trust import Refused
from dg_batchformer.wrappers.averaging import WeightAveraging


@dataclass(frozen=True)
class RunToTrain:
    """A run to train, and who follows it.

    Args:
        spec: of the run.
        folder: of the run.
        watcher: gets the events of the run.
        callbacks: follow the run, beside those that the options name.
        row: the name of the run's row in tables; by default its algorithm.
        launch: the options for the command that resumes the run, stored in its folder; None for runs of a sweep.
        bracket: the runs that it races against; None lets it train to its end.

    """

    spec: RunSpec
    folder: RunFolder
    watcher: Watcher
    callbacks: Sequence[Callback] = ()
    row: str = ""
    launch: Mapping[str, Any] | None = None
    bracket: Bracket | None = None


@dataclass(frozen=True)
class Model:
    """What all followers of a trajectory share: the algorithm that trains, and what it is evaluated on.

    Args:
        algorithm: the algorithm, without an average.
        begins_from: identity of the initial weights, or '' if no run keeps its model.
        splits: of all training and test environments.
        loader_conditions: entries of every record that describe the training images.
        constant: further entries of every record.

    """

    algorithm: Algorithm
    begins_from: str
    dataset: Dataset
    splits: Splits
    evaluator: Evaluator
    loader_conditions: Mapping[str, Any]
    constant: Mapping[str, Any]


def build_algorithm(spec: RunSpec, hparams: dict[str, Any], dataset: Dataset, *inner: Algorithm) -> Algorithm:
    """Build the algorithm of a run, or its average around the algorithm ``inner`` that trains."""
    declared = DeclaredHparams(hparams, split_name(spec.algorithm)[0])
    algorithm_class = get_algorithm_class(spec.algorithm)
    return algorithm_class(dataset.input_shape, dataset.num_classes, len(spec.train_envs), declared, *inner)


class Follower:
    """The state of a run while it is open, from the lock on its folder to its end.

    Attributes:
        start: first update that the run follows; its checkpoint has the earlier ones.
        seconds: device time, where updates count in equal parts for all runs that follow them.
        seconds_alone: device time that the run would have needed without the others.
        average: of the weights of the algorithm that trains; None if the run does not average.
        algorithm: of the run: the one that trains, or the average around it.

    """

    def __init__(self, asked: RunToTrain, options: RunOptions, device: torch.device) -> None:
        self.asked, self.options, self.device = asked, options, device
        self.spec, self.folder, self.watcher = asked.spec, asked.folder, asked.watcher
        self.contexts = ExitStack()
        self.is_open = True
        self.start = 0
        self.best_validation = -1.0
        self.seconds = self.seconds_alone = 0.0

    def open(self) -> State | None:
        """Take the lock and resolve the hparams; return the state if training has finished before.

        Raises InputError if the run cannot be trained, and Busy if another process trains it.
        """
        self.lock = self.contexts.enter_context(self.folder.lock())
        refuse_other_run(self.folder, self.spec)
        state = self.folder.state(locked=True)
        if state.is_final:
            return state
        self.folder.error_file.unlink(missing_ok=True)
        self.folder.race_file.unlink(missing_ok=True)
        self.contexts.enter_context(journal(self.folder, self.device))
        load_plugins_of(self.spec)
        self.hparams = resolve_hparams(self.spec)
        named = [callback() for callback in find_callbacks(self.options.log, self.spec.plugins)]
        self.callbacks = CallbackGroup([*named, *self.asked.callbacks], partial(tell, self.watcher))
        self.callbacks_end = self.contexts.enter_context(followed_to_the_end(self.callbacks))
        return None

    def close(self, error: BaseException | None = None) -> Exception | None:
        """Release the run; log an error that ended it, and return it as users should read it."""
        self.is_open = False
        self.leave()
        try:
            with logging_only(self.folder):
                self.contexts.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
        except Exception as translated:
            return translated
        return error if isinstance(error, Exception) else None

    def join(self, model: Model) -> None:
        """Build what the run needs beside the shared model; it owns its folder from now on."""
        self.model = model
        self.average = self._build_average() if averages(self.spec) else None
        self.algorithm = model.algorithm if self.average is None else self.average
        self.writer = RecordWriter(self.folder, self.spec, self.hparams, model.dataset, model.splits, self.device)
        self.writer.constant.update({**model.constant, **model.loader_conditions})
        write_json(self.folder.spec_file, self.spec.as_dict())
        if self.asked.launch is not None:
            write_json(self.folder.launch_file, self.asked.launch)

    def leave(self) -> None:
        """Free the memory of a trajectory that has ended, or that another one replaces."""
        for name in ("model", "algorithm", "average"):
            vars(self).pop(name, None)

    def _build_average(self) -> WeightAveraging:
        average = build_algorithm(self.spec, self.hparams, self.model.dataset, self.model.algorithm)
        assert isinstance(average, WeightAveraging)
        return average.to(self.device)

    def begin(self) -> None:
        """Tell callbacks and the log that the run begins or resumes."""
        row = self.asked.row or self.spec.method
        info = self._info(row)
        self.lines = Lines(self.spec, row)
        with logging_only(self.folder):
            asked = self.spec.as_dict()
            log.info("%s from step %d, hparams %s", json.dumps(asked), self.start, json.dumps(self.hparams))
            self.watcher.begin(info)
            self.callbacks.begin(info)
            for line in self.lines.begin(self.start, self.folder):
                say(self.watcher, line)

    def _info(self, row: str) -> RunInfo:
        """Return what callbacks learn of the run."""
        spec, asked = self.spec, self.spec.as_dict()
        del asked["hparams"]  # those in use are more
        return RunInfo(
            id=spec.id,
            row=row,
            dataset=spec.dataset,
            test_envs="+".join(spec.facts.names[env] for env in spec.test_envs),
            trial_seed=spec.trial_seed,
            hparams_seed=spec.hparams_seed,
            steps=spec.steps,
            start=self.start,
            config={**asked, **{f"hparams.{name}": value for name, value in self.hparams.items()}},
            folder=self.folder.path,
        )

    def step(self, step: int, seconds: float, share: float) -> None:
        """Follow an update that took so many seconds, of which the run bears a share."""
        self.seconds += seconds * share
        self.seconds_alone += seconds
        self.watcher.step(step)
        self.callbacks.step(step)

    def record(self, step: int, metrics: dict[str, Any], evaluation: Evaluation) -> None:
        """Write the record of an evaluation of the algorithm; keep its weights if they are the best."""
        self._record(self.algorithm, step, metrics, evaluation)

    def _record(self, model: Algorithm, step: int, metrics: dict[str, Any], evaluation: Evaluation) -> None:
        self.lock.check()
        values = self.writer.append(step, metrics, evaluation)
        validation = evaluation.validation(self.spec.train_envs).accuracy
        tested = fmean(evaluation.accuracy[env, "in"] for env in self.spec.test_envs)
        followed = {**values, "validation_accuracy": validation, "test_accuracy": tested}
        with logging_only(self.folder):
            self.watcher.record(followed)
            self.callbacks.record(followed)
            say(self.watcher, self.lines.record(values))
        if self.options.keep == "best" and (validation > self.best_validation or "final" in metrics):
            self.best_validation = validation
            self._keep_model(model)

    def finalize(self, inputs: Iterable[Tensor]) -> None:
        """Evaluate and keep the model that the run returns.

        Args:
            inputs: of training batches, to re-estimate BatchNorm statistics.

        """
        model, evaluator = self.algorithm.finalize(inputs), self.model.evaluator
        if model.summary:
            evaluation = evaluator(model, self.spec.steps)
            self._record(model, self.spec.steps, {**model.summary, "final": True}, evaluation)
        if self.options.keep == "final":
            self._keep_model(model)
        if self.options.predictions:
            evaluated_at = self.spec.steps if model.summary else self.spec.steps - 1
            write_predictions(self.folder.predictions_file, model, evaluator, evaluated_at, self.model.dataset)

    def mark(self, state: State) -> None:
        """Mark the run as done or diverged, and say how it ended."""
        self.lock.check()
        mark_done(self.folder, {"id": self.spec.id, "outcome": state.value, **self._took()})
        with logging_only(self.folder):
            log.info("%s after %.1f s", state, self.seconds)  # log only after done is written
            self.folder.checkpoint_file.unlink(missing_ok=True)
            for line in outcome(self.spec, self.folder):
                say(self.watcher, line)
            self.callbacks_end(state)

    def place(self, step: int) -> Standing | None:
        """Return its place in its race after an evaluation; None if it has none at this step."""
        bracket = self.asked.bracket
        if bracket is None or step not in bracket.race.rungs:
            return None
        place = standing_at(step, self.spec, self.folder, bracket)
        with logging_only(self.folder):
            log.info("race: %s: %s", place_text(place._asdict()), "continues" if place.continues else "stops")
        return place

    def leave_race(self, place: Standing) -> None:
        """Mark the run as out of its race."""
        self.lock.check()
        spared = self.seconds / (place.step + 1) * (self.spec.steps - place.step - 1)
        write_json(self.folder.race_file, {**place._asdict(), **self._took(), "seconds_spared": round(spared, 3)})
        with logging_only(self.folder):
            self.callbacks_end(State.OUTRACED)

    def _took(self) -> dict[str, float]:
        """Return the device time, as the folder keeps it."""
        took = {"seconds": round(self.seconds, 3)}
        if self.seconds_alone != self.seconds:
            took["seconds_alone"] = round(self.seconds_alone, 3)
        return took

    def _keep_model(self, model: Algorithm) -> None:
        keep_model(self.folder, model, self.spec, self.hparams, self.model.dataset, self.model.begins_from)

    def save(self, step: int, shared: Mapping[str, Any]) -> None:
        """Write a checkpoint, from which the run also resumes without the others.

        Args:
            step: the next update.
            shared: entries that are equal for all runs of the trajectory.

        """
        self.lock.check()
        state = {
            **shared,
            "step": step,
            "keep": self.options.keep,
            "records_bytes": self.writer.size(),
            "best_validation": self.best_validation,
            "seconds": self.seconds,
            "seconds_alone": self.seconds_alone,
            "algorithm": checkpoint.capture(self.algorithm),
        }
        checkpoint.save(self.folder.checkpoint_file, state)

    def saved_state(self, means: Mapping[str, Any]) -> dict[str, Any] | None:
        """Read the checkpoint; return None, with a note, if it is unreadable or records are missing.

        Args:
            means: state of the metrics of a new run.

        Raises InputError if the checkpoint is not of this run, and CannotResume if the run was begun with other data,
        other weights or another ``--keep``.

        """
        if not self.folder.checkpoint_file.exists():
            return None
        with logging_only(self.folder), self._refused_with_file():
            try:
                state = checkpoint.load(self.folder.checkpoint_file, self.device)
            except checkpoint.Unreadable as error:
                tell(self.watcher, f"{error}; the run restarts")
                return None
            checkpoint.refuse_unsaved(state, dict(means), self.spec.steps)
            if self.writer.size() < state["records_bytes"]:
                tell(self.watcher, f"{self.writer.file} lacks records from before the checkpoint; the run restarts")
                return None
            self._refuse_other_state(state)
            saved_execution(state["execution"])
            return state

    def resume(self, state: dict[str, Any] | None) -> None:
        """Continue from a state of ``saved_state``, or from the beginning; raise InputError for a foreign state.

        Loads the average, but not the algorithm that trains, which is shared.
        """
        if state is None:
            for file in (self.folder.checkpoint_file, *self.folder.kept_files):
                file.unlink(missing_ok=True)
            self.writer.cut(0)
            self.start, self.best_validation = 0, -1.0  # after an OOM, the run may have been further
            return
        with self._refused_with_file():
            if self.average is not None:
                checkpoint.restore_attributes(self.average, state["algorithm"])
        self.start = state["step"]
        self.writer.cut(state["records_bytes"])
        self.best_validation, self.seconds = state["best_validation"], state["seconds"]
        self.seconds_alone = state.get("seconds_alone", self.seconds)

    def restore_algorithm(self, state: dict[str, Any]) -> None:
        """Load the algorithm that trains, besides the average, from a state of ``saved_state``."""
        with self._refused_with_file():
            self.algorithm.materialize(state["step"])
            checkpoint.restore(self.algorithm, state["algorithm"])

    @contextmanager
    def _refused_with_file(self) -> Iterator[None]:
        try:
            yield
        except Refused as error:
            raise InputError(
                f"{self.folder.checkpoint_file} was not saved by this run: {error}; delete it to restart the run"
            ) from error

    def _refuse_other_state(self, state: dict[str, Any]) -> None:
        """Raise CannotResume if the checkpoint is of other data, other weights, or another ``--keep``."""
        restart = f"delete {self.folder.checkpoint_file} to restart"
        begun, now = state["dataset_fingerprint"], self.writer.constant["dataset_fingerprint"]
        if begun != now:
            raise CannotResume(
                f"{self.folder.path} was started on data with fingerprint {begun[:12]}, but this is {now[:12]}; "
                f"restore it, or {restart}"
            )
        identity = self.model.dataset.identity()
        if state.get("arrangement", identity.arrangement) != identity.arrangement:
            raise CannotResume(
                f"{self.folder.path} was started on the same images under other names, whose order decides the splits; "
                f"rename them back, or {restart}"
            )
        if state.get("conditions", {}) != self.model.loader_conditions:
            raise CannotResume(
                f"{self.folder.path} was started on training images that an earlier version shrank further; {restart}"
            )
        for name, digest in state.get("weight_files", {}).items():
            if digest != self.writer.constant.get("weight_files", {}).get(name):
                raise CannotResume(
                    f"{self.folder.path} was started with another content of the {name} file "
                    f"{self.hparams[name]}; restore it, or {restart}"
                )
        if state["keep"] != self.options.keep:
            raise CannotResume(
                f"{self.folder.path} was started with --keep {state['keep']}, not {self.options.keep}; restore it, or "
                f"{restart}"
            )

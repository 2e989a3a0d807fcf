"""Train one run, from its spec to its folder: set up, resume, train, finalize, keep the model."""

import gc
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from dg_batchformer.algorithms import Algorithm, get_algorithm_class
from dg_batchformer.algorithms.base import TrainingSet
from dg_batchformer.callbacks.base import Callback, RunInfo
from dg_batchformer.callbacks.group import CallbackGroup
from dg_batchformer.callbacks.load import find_callbacks
from dg_batchformer.datasets import Dataset, open_dataset
from dg_batchformer.datasets.residence import RESIDENCE
from dg_batchformer.errors import InputError
from dg_batchformer.hparams import DeclaredHparams
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.optim.groups import describe_groups, group_lines
from dg_batchformer.plugins.load import load_plugins
from dg_batchformer.seeds import seed_hash
from dg_batchformer.spec.names import split_name
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.spec.run_folder import refuse_other_run
from dg_batchformer.storage.digests import mark_done
from dg_batchformer.storage.folders import RunFolder, State, write_json
from dg_batchformer.storage.lock import Lock
from dg_batchformer.training import checkpoint
from dg_batchformer.training.compute_mode import Execution, Work, apply, gave_up_compiling, saved_execution, settle
from dg_batchformer.training.data_path import open_loader, read_features
from dg_batchformer.training.evaluate import Evaluation, Evaluator
from dg_batchformer.training.export import keep_model, write_predictions
from dg_batchformer.training.faults import is_out_of_memory
from dg_batchformer.training.initialization import Initial
from dg_batchformer.training.lines import Lines, outcome
from dg_batchformer.training.loaders import Loader
from dg_batchformer.training.loop import Ending, Means, seed_everything, train
from dg_batchformer.training.records import RecordWriter
from dg_batchformer.training.run_log import Watcher, followed_to_the_end, journal, log, say, tell
from dg_batchformer.training.sampling import Sampler, Splits, evaluated_splits, split_environments
from dg_batchformer.training.stop import Interrupted
from dg_batchformer.training.thinning import count_classes
from dg_batchformer.training.trust import Refused

_BATCH_NORM_BATCHES = 500  # as in SWAD's release


def train_run(
    spec: RunSpec,
    folder: RunFolder,
    options: RunOptions,
    *,
    device: torch.device,
    watcher: Watcher,
    stop: Callable[[], bool],
    callbacks: Sequence[Callback] = (),
    row: str = "",
    launch: Mapping[str, Any] | None = None,
    in_sweep: bool = False,
) -> State:
    """Train a run to its end, resuming from a checkpoint if there is one; return DONE or DIVERGED.

    Args:
        spec: of the run.
        folder: of the run.
        options: how to run it.
        device: to train on.
        watcher: gets the events of the run.
        stop: called after every step; true saves a checkpoint and stops.
        callbacks: follow the run, beside those that the options name.
        row: the name of the run's row in tables; by default its algorithm.
        launch: the options for the command that resumes the run, stored in its folder; None for runs of a sweep.
        in_sweep: whether this process trains further runs, which reuse what it compiles.

    Raises InputError if the run cannot be trained, Busy if another process trains it or took it over, and Interrupted
    if stopped. Errors after the lock is taken, except the last two, are written to ``error.txt`` in the folder.

    """
    with folder.lock() as lock:
        refuse_other_run(folder, spec)
        if folder.state(locked=True).is_final:
            return folder.state(locked=True)
        folder.error_file.unlink(missing_ok=True)
        with journal(folder, device):
            load_plugins(spec.plugins)
            hparams = resolve_hparams(spec)
            dataset = open_dataset(spec, options.data_dir, hparams)
            for sentence in dataset.notes:  # before the pixel cache is built, which can take hours
                tell(watcher, sentence)
            named = [callback() for callback in find_callbacks(options.log, spec.plugins)]
            followers = CallbackGroup([*named, *callbacks], partial(tell, watcher))

            def begin() -> State:
                with open_loader(spec, hparams, dataset, device, watcher, stop) as loader:
                    run = _Run(
                        spec, folder, options, lock, hparams, dataset, loader, device, watcher, followers, in_sweep
                    )
                    write_json(folder.spec_file, spec.as_dict())  # the run could be built, so it owns the folder now
                    if launch is not None:
                        write_json(folder.launch_file, launch)
                    return run.train(stop, row or spec.algorithm)

            with followed_to_the_end(followers) as ended:
                ended(state := _retried_without_planes(begin, device, watcher))
            return state


def _retried_without_planes(begin: Callable[[], State], device: torch.device, watcher: Watcher) -> State:
    """Train a run; after an OOM, release the pixel cache on the GPU and retry once, from the checkpoint."""
    try:
        return begin()
    except Exception as error:
        if not (is_out_of_memory(error) and RESIDENCE.give_up()):
            raise
    tell(watcher, f"{device} ran out of memory; the pixel cache is removed from it, and the run resumes")
    gc.collect()
    return begin()


def build_evaluator(
    spec: RunSpec, hparams: dict[str, Any], loader: Loader, splits: Splits, device: torch.device
) -> Evaluator:
    """Build the evaluator of a run, with augmented validation images if its hparams ask for that."""
    augments = hparams.get("data_augmentation", False) and hparams.get("val_augment", False)
    augmented = [(env, part) for env, part in splits if env in spec.train_envs] if augments else []
    return Evaluator(spec, loader, evaluated_splits(spec, splits), device, augmented)


def training_inputs(sampler: Sampler, loader: Loader, spec: RunSpec, device: torch.device) -> Iterator[Tensor]:
    """Yield inputs x of training batches after the last step, to re-estimate BatchNorm statistics."""
    batches = sampler.minibatches(loader, spec.steps, device)
    for _ in range(min(_BATCH_NORM_BATCHES, spec.steps)):
        yield torch.cat([x for x, _ in next(batches)])


class _Run:
    """The state of a run while it trains."""

    def __init__(
        self,
        spec: RunSpec,
        folder: RunFolder,
        options: RunOptions,
        lock: Lock,
        hparams: dict[str, Any],
        dataset: Dataset,
        loader: Loader,
        device: torch.device,
        watcher: Watcher,
        callbacks: Callback,
        in_sweep: bool,
    ) -> None:
        self.spec, self.folder, self.options, self.lock, self.callbacks = spec, folder, options, lock, callbacks
        self.hparams, self.dataset, self.loader, self.device, self.watcher = hparams, dataset, loader, device, watcher
        self.splits = splits = split_environments(spec, dataset)
        self.sampler = Sampler(spec, hparams, dataset, splits)
        self.evaluator = build_evaluator(spec, hparams, loader, splits, device)
        self.writer = RecordWriter(folder, spec, hparams, dataset, splits, device)
        seed_everything(seed_hash(spec.seed, "initialisation"))
        algorithm_class = get_algorithm_class(spec.algorithm)
        self.algorithm: Algorithm = algorithm_class(
            dataset.input_shape,
            dataset.num_classes,
            len(spec.train_envs),
            DeclaredHparams(hparams, split_name(spec.algorithm)[0]),
        ).to(device)
        counts = count_classes(dataset, splits, spec.train_envs)
        self.algorithm.prepare(TrainingSet(torch.tensor(list(counts.values())), spec.steps))
        if spec.data_path == "features":
            read_features(self.algorithm)
        self.notes = self.sampler.notes()
        if algorithm_class.has_nothing_to_compare(len(spec.train_envs)):
            lone = self.writer.constant["lone_environment"] = spec.environment_names(spec.train_envs)
            self.notes.append(
                f"{spec.algorithm} compares training environments but has only {lone}: it trains much like ERM"
            )
        fingerprint = self.writer.constant["dataset_fingerprint"]
        self.writer.constant.update(loader.conditions)
        self.writer.constant["parameter_groups"] = describe_groups(self.algorithm)
        self.initial = Initial(self.algorithm, spec, hparams, dataset, fingerprint)
        self.begins_from = "" if options.keep == "none" else self.initial.identity()  # only stored in kept models
        per_step = hparams["batch_size"] * len(spec.train_envs)
        work = Work(per_step, sum(map(len, self.evaluator.splits.values())), in_sweep)
        self._use(settle(spec, dataset, device, work))
        self.means = Means()
        self.best_validation = -1.0
        self.seconds = 0.0  # training time before this start
        self.save_seconds = options.save_seconds  # interval of checkpoints

    def _use(self, execution: Execution) -> None:
        self.execution = execution
        self.writer.constant.update(execution._asdict())
        images_per_step = self.hparams["batch_size"] * len(self.spec.train_envs)
        apply(execution, self.algorithm, self.device, images_per_step)

    def train(self, stop: Callable[[], bool], row: str) -> State:
        """Train to the end, from the checkpoint or from step 0."""
        self.lines = lines = Lines(self.spec, row)
        start = self._resume()
        if start == 0:
            self.initial.apply(self.loader, self.splits, self.device)
        del self.initial  # it may contain a second model
        log.info("%s from step %d, hparams %s", json.dumps(self.spec.as_dict()), start, json.dumps(self.hparams))
        for line in group_lines(self.writer.constant["parameter_groups"]):
            log.info("%s", line)
        info = self._info(row, start)
        self.watcher.begin(info)
        self.callbacks.begin(info)
        for line in lines.begin(start, self.folder):
            say(self.watcher, line)
        for sentence in self.notes:
            tell(self.watcher, sentence)
        began = saved = time.monotonic()

        def after_step(step: int) -> bool:
            nonlocal saved
            self.watcher.step(step)
            self.callbacks.step(step)
            stopping = stop()
            since = time.monotonic()
            if stopping or since - saved >= self.save_seconds:
                self._save(step + 1, self.seconds + since - began)
                saved = time.monotonic()
                self.save_seconds = self.options.save_interval(saved - since)
            return stopping

        ending = train(
            self.algorithm,
            self.sampler.minibatches(self.loader, start, self.device),
            self.evaluator,
            self.spec,
            start=start,
            means=self.means,
            record=partial(self._record, self.algorithm),
            after_step=after_step,
        )
        if ending is Ending.INTERRUPTED:
            raise Interrupted(f"{self.folder.path} is saved; rerun the command to resume")
        if ending is Ending.COMPLETE:
            self._finalize()
        return self._end(ending, self.seconds + time.monotonic() - began)

    def _info(self, row: str, start: int) -> RunInfo:
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
            start=start,
            config={**asked, **{f"hparams.{name}": value for name, value in self.hparams.items()}},
            folder=self.folder.path,
        )

    def _record(self, model: Algorithm, step: int, metrics: dict[str, Any], evaluation: Evaluation) -> None:
        self.lock.check()
        if gave_up_compiling(self.execution, self.algorithm):
            tell(self.watcher, "compilation failed, or too many shapes needed one; the run continues uncompiled")
            self._use(self.execution._replace(compile="off"))
        values = self.writer.append(step, metrics, evaluation)
        validation = evaluation.validation(self.spec.train_envs).accuracy
        tested = fmean(evaluation.accuracy[env, "in"] for env in self.spec.test_envs)
        followed = {**values, "validation_accuracy": validation, "test_accuracy": tested}
        self.watcher.record(followed)
        self.callbacks.record(followed)
        say(self.watcher, self.lines.record(values))
        if self.options.keep == "best" and (validation > self.best_validation or "final" in metrics):
            self.best_validation = validation
            self._keep_model(model)

    def _finalize(self) -> None:
        seed_everything(seed_hash(self.spec.seed, "finalize"))
        model = self.algorithm.finalize(training_inputs(self.sampler, self.loader, self.spec, self.device))
        if model.summary:
            evaluation = self.evaluator(model, self.spec.steps)
            self._record(model, self.spec.steps, {**model.summary, "final": True}, evaluation)
        if self.options.keep == "final":
            self._keep_model(model)
        if self.options.predictions:
            evaluated_at = self.spec.steps if model.summary else self.spec.steps - 1
            write_predictions(self.folder.predictions_file, model, self.evaluator, evaluated_at, self.dataset)

    def _end(self, ending: Ending, seconds: float) -> State:
        self.lock.check()
        state = State.DIVERGED if ending is Ending.DIVERGED else State.DONE
        mark_done(self.folder, {"id": self.spec.id, "outcome": state.value, "seconds": round(seconds, 3)})
        log.info("%s after %.1f s", state, seconds)  # log only after done is written
        self.folder.checkpoint_file.unlink(missing_ok=True)
        for line in outcome(self.spec, self.folder):
            say(self.watcher, line)
        return state

    def _keep_model(self, model: Algorithm) -> None:
        keep_model(self.folder, model, self.spec, self.hparams, self.dataset, self.begins_from)

    def _save(self, step: int, seconds: float) -> None:
        self.lock.check()
        state = {
            "step": step,
            "dataset_fingerprint": self.writer.constant["dataset_fingerprint"],
            "conditions": self.loader.conditions,
            "keep": self.options.keep,
            "execution": self.execution._asdict(),
            "records_bytes": self.writer.size(),
            "threads": torch.get_num_threads(),
            "means": self.means.state_dict(),
            "best_validation": self.best_validation,
            "seconds": seconds,
            "algorithm": checkpoint.capture(self.algorithm),
        }
        checkpoint.save(self.folder.checkpoint_file, state)

    def _resume(self) -> int:
        """Load the checkpoint, if there is one; return the step to continue from."""
        try:
            state = self._saved_state()
            if state is None:
                self.folder.checkpoint_file.unlink(missing_ok=True)
                self.writer.cut(0)
                return 0
            self._refuse_other_state(state)
            execution = saved_execution(state["execution"])  # as resolved at the start of the run
            self._use(execution)
            self.algorithm.materialize(state["step"])
            checkpoint.restore(self.algorithm, state["algorithm"])
        except Refused as error:
            raise InputError(
                f"{self.folder.checkpoint_file} was not saved by this run: {error}; delete it to restart the run"
            ) from error
        self._use(execution)  # restore also loaded the settings of the saving device
        if state["threads"] != torch.get_num_threads():  # rounding depends on it
            torch.set_num_threads(state["threads"])
            tell(self.watcher, f"this run started with {state['threads']} CPU threads, and continues with as many")
        self.writer.cut(state["records_bytes"])
        self.means.load_state_dict(state["means"])
        self.best_validation, self.seconds = state["best_validation"], state["seconds"]
        return state["step"]

    def _saved_state(self) -> dict[str, Any] | None:
        """Read the checkpoint; return None, with a note, if it is unreadable or records are missing."""
        if not self.folder.checkpoint_file.exists():
            return None
        try:
            state = checkpoint.load(self.folder.checkpoint_file, self.device)
        except checkpoint.Unreadable as error:
            tell(self.watcher, f"{error}; the run restarts")
            return None
        checkpoint.refuse_unsaved(state, self.means.state_dict(), self.spec.steps)
        if self.writer.size() < state["records_bytes"]:
            tell(self.watcher, f"{self.writer.file} lacks records from before the checkpoint; the run restarts")
            return None
        return state

    def _refuse_other_state(self, state: dict[str, Any]) -> None:
        """Raise InputError if the checkpoint has other data, or another ``--keep``."""
        begun, now = state["dataset_fingerprint"], self.writer.constant["dataset_fingerprint"]
        way_out = f"restore it, or delete {self.folder.checkpoint_file} to restart"
        if begun != now:
            raise InputError(
                f"{self.folder.path} was started on data with fingerprint {begun[:12]}, but this is {now[:12]}; "
                f"{way_out}"
            )
        if state.get("conditions", {}) != self.loader.conditions:
            raise InputError(
                f"{self.folder.path} was started on training images that an earlier version shrank further; delete "
                f"{self.folder.checkpoint_file} to restart"
            )
        if state["keep"] != self.options.keep:
            raise InputError(
                f"{self.folder.path} was started with --keep {state['keep']}, not {self.options.keep}; {way_out}"
            )

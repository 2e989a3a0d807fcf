"""A trajectory: one training, and the runs that follow it."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from dg_batchformer.algorithms import Algorithm
from dg_batchformer.algorithms.base import TrainingSet
from dg_batchformer.datasets import Dataset
from dg_batchformer.optim.groups import describe_groups, group_lines
from dg_batchformer.results.race import Standing
from dg_batchformer.seeds import seed_hash
from dg_batchformer.spec.names import split_name
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.folders import State
from dg_batchformer.training import checkpoint
from dg_batchformer.training.cached import CachedLoader
from dg_batchformer.training.compute_mode import Execution, Work, apply, gave_up_compiling, saved_execution, settle
from dg_batchformer.training.data_path import read_features
from dg_batchformer.training.evaluate import Evaluation, build_evaluator
from dg_batchformer.training.faults import is_out_of_memory
from dg_batchformer.training.follower import Follower, Model, build_algorithm
from dg_batchformer.training.initialization import Initial, weight_files
from dg_batchformer.training.lines import about_frozen
from dg_batchformer.training.loaders import Loader
from dg_batchformer.training.loop import Ending, Means, seed_everything, train
from dg_batchformer.training.run_log import Watcher, log, tell
from dg_batchformer.training.sampling import Sampler, Splits, split_environments, training_inputs
from dg_batchformer.training.saving_pace import SavingPace
from dg_batchformer.training.stop import Interrupted
from dg_batchformer.training.thinning import count_classes
from dg_batchformer.wrappers.averaging import WeightAveraging

Ended = Callable[[Follower, State | Exception], None]


class Trajectory:
    """Trains one algorithm, and lets runs follow it.

    Runs resume at different steps if some were added later, or if a kill came between their checkpoints. Training then
    restarts at the first of these steps, and a run follows from its own step on: equal updates lead to equal states.

    Args:
        spec: of the run without averaging, see ``base_run``.
        hparams: of this run.
        followers: open runs, at least one.
        ended: called when a run has ended, with its state or the error that ended it.
        in_sweep: whether this process trains further runs, which reuse what it compiles.
        may_compile: whether it may compile at all; false if that has failed.

    """

    def __init__(
        self,
        spec: RunSpec,
        hparams: dict[str, Any],
        followers: Sequence[Follower],
        dataset: Dataset,
        loader: Loader,
        device: torch.device,
        ended: Ended,
        in_sweep: bool,
        may_compile: bool = True,
    ) -> None:
        self.spec, self.hparams, self.loader, self.device, self.ended = spec, hparams, loader, device, ended
        self.followers, self.may_compile = list(followers), may_compile
        self.options = followers[0].options
        splits = split_environments(spec, dataset)
        self.sampler = Sampler(spec, hparams, dataset, splits)
        self.evaluator = build_evaluator(spec, hparams, loader, splits, device)
        self.algorithm = self._build(dataset, splits)
        self.notes = self.sampler.notes()
        constant: dict[str, Any] = {}
        if self.algorithm.has_nothing_to_compare(len(spec.train_envs)):
            lone = constant["lone_environment"] = spec.environment_names(spec.train_envs)
            asked = followers[0].spec.method
            self.notes.append(f"{asked} compares training environments but has only {lone}: it trains much like ERM")
        if self.algorithm.has_nothing_to_shape(hparams):
            constant["has_nothing_to_shape"] = True
            if not in_sweep:  # sweeps say it once, before their runs
                self.notes.append(about_frozen([split_name(spec.algorithm)[0]]))
        self.groups = constant["parameter_groups"] = describe_groups(self.algorithm)
        self.identity = dataset.identity()
        self.weight_files = weight_files(hparams, dataset.input_shape)
        if self.weight_files:
            constant["weight_files"] = self.weight_files
        self.initial = Initial(self.algorithm, spec, hparams, dataset, self.identity.fingerprint)
        begins_from = "" if self.options.keep == "none" else self.initial.identity()  # only stored in kept models
        model = Model(self.algorithm, begins_from, dataset, splits, self.evaluator, loader.conditions, constant)
        for follower in followers:
            follower.join(model)
        self.splits = splits
        self.images_per_step = hparams["batch_size"] * len(spec.train_envs)
        work = Work(self.images_per_step, sum(map(len, self.evaluator.splits.values())), in_sweep)
        self.use(settle(spec, dataset, device, work))
        self.means = Means()

    @property
    def watcher(self) -> Watcher:
        """The watcher of what concerns all runs."""
        return self.followers[0].watcher

    def _build(self, dataset: Dataset, splits: Splits) -> Algorithm:
        """Build the algorithm, as at the start of a run."""
        spec = self.spec
        seed_everything(seed_hash(spec.seed, "initialisation"))
        algorithm = build_algorithm(spec, self.hparams, dataset).to(self.device)
        counts = count_classes(dataset, splits, spec.train_envs)
        algorithm.prepare(TrainingSet(torch.tensor(list(counts.values())), spec.steps))
        if spec.data_path == "features":
            read_features(algorithm)
        return algorithm

    def use(self, execution: Execution) -> None:
        """Set the compute mode, and record it."""
        if not self.may_compile:
            execution = execution._replace(compile="off")
        self.execution = execution
        for follower in self.followers:
            follower.writer.constant.update(execution._asdict())
        apply(execution, self.algorithm, self.device, self.images_per_step)
        if isinstance(self.loader, CachedLoader):
            self.loader.compiles = self._compiles_augmentation

    @property
    def _compiles_augmentation(self) -> bool:
        return self.execution.compile == "on" and self.device.type != "cpu"

    def train(self, stop: Callable[[], bool]) -> list[Follower]:
        """Train to the end; return the runs that need a training of their own, because they began in another mode."""
        set_aside = self._resume()
        if not self.followers:
            return set_aside
        start = min(follower.start for follower in self.followers)
        if start == 0:
            self.initial.apply(self.loader, self.splits, self.device)
        del self.initial  # it may contain a second model
        for follower in self.followers:
            follower.begin()
        for line in group_lines(self.groups):
            log.info("%s", line)
        for sentence in self.notes:
            tell(self.watcher, sentence)
        self.clock, self.pace = time.monotonic(), SavingPace(self.options, self._checkpoint_bytes)
        ending = train(
            self.algorithm,
            self.sampler.minibatches(self.loader, start, self.device),
            self.evaluator,
            self.spec,
            start=start,
            means=self.means,
            averages=self._averages,
            record=self._record,
            after_step=lambda step: self._after_step(step, stop),
        )
        if ending is Ending.INTERRUPTED:
            folders = ", ".join(str(follower.folder.path) for follower in self.followers)
            are = "are" if len(self.followers) > 1 else "is"
            raise Interrupted(f"{folders} {are} saved; rerun the command to resume")
        for follower in [*self.followers]:
            self._end(follower, ending)
        return set_aside

    def following(self, step: int) -> list[Follower]:
        """Return the runs that follow a step."""
        return [follower for follower in self.followers if follower.start <= step]

    def _averages(self, step: int) -> list[WeightAveraging]:
        return [follower.average for follower in self.following(step) if follower.average is not None]

    def _record(self, step: int, metrics: dict[str, float], evaluation: Evaluation) -> None:
        gave_up = isinstance(self.loader, CachedLoader) and self.loader.compiles != self._compiles_augmentation
        if gave_up or gave_up_compiling(self.execution, self.algorithm):
            tell(self.watcher, "compilation failed, or too many shapes needed one; the run continues uncompiled")
            self.use(self.execution._replace(compile="off"))
        for follower in self.following(step):
            follower.record(step, metrics, evaluation)

    def _after_step(self, step: int, stop: Callable[[], bool]) -> Ending | None:
        """Let runs follow a step, end those that need no more of them, and save the others now and then."""
        following, began, self.clock = self.following(step), self.clock, time.monotonic()
        for follower in following:
            follower.step(step, self.clock - began, 1 / len(following))
        for follower in following:
            if follower.average is not None and follower.average.finished:
                self._end(follower, Ending.COMPLETE)
            elif (place := follower.place(step)) is not None and not place.continues:
                self._stop(follower, place)
        if not self.followers:
            return Ending.COMPLETE
        stopping = stop()
        if stopping or self.pace.due():
            with self.pace.saving():
                self._save(step + 1)
        return Ending.INTERRUPTED if stopping else None

    def _end(self, follower: Follower, ending: Ending) -> None:
        """End a run; an error in its own model ends only this run."""
        began = time.monotonic()
        self.followers.remove(follower)
        try:
            if ending is Ending.COMPLETE:
                self._finalize(follower)
            took = time.monotonic() - began
            follower.seconds += took
            follower.seconds_alone += took
            state = State.DIVERGED if ending is Ending.DIVERGED else State.DONE
            follower.mark(state)
        except Exception as error:
            if is_out_of_memory(error):  # all may resume with more memory
                raise
            self.ended(follower, follower.close(error) or error)
        else:
            follower.close()
            self.ended(follower, state)
        self.clock = time.monotonic()

    def _stop(self, follower: Follower, place: Standing) -> None:
        """End a run that its race stops, with a checkpoint to continue from."""
        self.followers.remove(follower)
        try:
            follower.leave_race(place)  # first: from a checkpoint behind the rung, a run would pass it
            follower.save(place.step + 1, self._shared_state())
        except Exception as error:
            self.ended(follower, follower.close(error) or error)
        else:
            follower.close()
            self.ended(follower, State.OUTRACED)

    def _finalize(self, follower: Follower) -> None:
        """Let a run evaluate and keep its model, which changes nothing for the runs that are left."""
        with checkpoint.unchanged(self.algorithm) if self.followers else nullcontext():
            seed_everything(seed_hash(self.spec.seed, "finalize"))
            follower.finalize(training_inputs(self.sampler, self.loader, self.spec, self.device))

    def _save(self, step: int) -> None:
        """Save every run that follows the last step; the checkpoints of others are of later steps."""
        shared = self._shared_state()
        for follower in self.following(step - 1):
            follower.save(step, shared)

    def _checkpoint_bytes(self) -> int:
        """Return about how many bytes saving all runs would write."""
        return sum(checkpoint.tensor_bytes(checkpoint.capture(follower.algorithm)) for follower in self.followers)

    def _shared_state(self) -> dict[str, Any]:
        """Return the entries of a checkpoint that all runs share."""
        return {
            "dataset_fingerprint": self.identity.fingerprint,
            "arrangement": self.identity.arrangement,
            "weight_files": self.weight_files,
            "conditions": self.loader.conditions,
            "execution": self.execution._asdict(),
            "threads": torch.get_num_threads(),
            "means": self.means.state_dict(),
        }

    def _resume(self) -> list[Follower]:
        """Load checkpoints; return the runs whose checkpoint is of another compute mode or number of threads.

        The first run decides on the mode.
        """
        set_aside: list[Follower] = []
        first: tuple[Follower, dict[str, Any]] | None = None  # the run that resumes at the smallest step
        mode: tuple[Execution, int] | None = None
        for follower in [*self.followers]:
            try:
                state = follower.saved_state(self.means.state_dict())
                its = self.execution, torch.get_num_threads()
                if state is not None:
                    its = saved_execution(state["execution"]), state["threads"]  # as resolved at its start
                if mode not in (None, its):
                    self.followers.remove(follower)
                    set_aside.append(follower)
                    continue
                follower.resume(state)
            except Exception as error:
                self.followers.remove(follower)
                self.ended(follower, follower.close(error) or error)
                continue
            mode = its
            if state is not None and (first is None or follower.start < first[0].start):
                first = follower, state
        if mode is not None:
            self._restore(*mode, first)
        return set_aside

    def _restore(self, execution: Execution, threads: int, first: tuple[Follower, dict[str, Any]] | None) -> None:
        """Set the mode, and load the algorithm of the run that resumes first, unless another one begins."""
        if threads != torch.get_num_threads():  # rounding depends on it
            torch.set_num_threads(threads)
            tell(self.watcher, f"this run started with {threads} CPU threads, and continues with as many")
        self.use(execution)
        if first is not None and all(follower.start > 0 for follower in self.followers):
            follower, state = first
            follower.restore_algorithm(state)
            self.use(execution)  # restore also loaded the settings of the saving device
            self.means.load_state_dict(state["means"])

"""Train runs, from their specs to their folders: one alone, or several that follow one trajectory."""

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from dg_batchformer.callbacks.base import Callback
from dg_batchformer.datasets import open_dataset
from dg_batchformer.datasets.residence import RESIDENCE
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.networks.compilation import compile_errors
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.spec.trajectories import base_run
from dg_batchformer.storage.folders import RunFolder, State
from dg_batchformer.training.data_path import open_loader
from dg_batchformer.training.faults import is_out_of_memory
from dg_batchformer.training.follower import Follower, RunToTrain
from dg_batchformer.training.run_log import Watcher, tell
from dg_batchformer.training.trajectory import Ended, Trajectory

Stop = Callable[[], bool]


def train_run(
    spec: RunSpec,
    folder: RunFolder,
    options: RunOptions,
    *,
    device: torch.device,
    watcher: Watcher,
    stop: Stop,
    callbacks: Sequence[Callback] = (),
    row: str = "",
    launch: Mapping[str, Any] | None = None,
    in_sweep: bool = False,
) -> State:
    """Train a run to its end, resuming from a checkpoint if there is one; return DONE or DIVERGED.

    Args:
        spec, folder, watcher, callbacks, row, launch: of the run, see ``RunToTrain``.
        options: how to run it.
        device: to train on.
        stop: called after every step; true saves a checkpoint and stops.
        in_sweep: whether this process trains further runs, which reuse what it compiles.

    Raises InputError if the run cannot be trained, Busy if another process trains it or took it over, and Interrupted
    if stopped. Errors after the lock is taken, except the last two, are written to ``error.txt`` in the folder.

    """
    ends: list[State | Exception] = []
    asked = RunToTrain(spec, folder, watcher, callbacks, row, launch)
    train_together([asked], options, device=device, stop=stop, ended=lambda _, how: ends.append(how), in_sweep=in_sweep)
    [how] = ends
    if isinstance(how, Exception):
        raise how
    return how


def train_together(
    runs: Sequence[RunToTrain],
    options: RunOptions,
    *,
    device: torch.device,
    stop: Stop,
    ended: Callable[[RunToTrain, State | Exception], None],
    in_sweep: bool = True,
) -> None:
    """Train runs with the same trajectory (see ``base_run``) together, each as if it trained alone.

    Args:
        runs: with equal ``base_run``.
        options: how to run them.
        device: to train on.
        stop: called after every step; true saves checkpoints and stops.
        ended: called for every run, with its state or with the exception that ``train_run`` would raise.
        in_sweep: whether this process trains further runs, which reuse what it compiles.

    """
    followers: list[Follower] = []
    try:
        for run in runs:
            follower = Follower(run, options, device)
            followers.append(follower)
            _open(follower, ended)
        _train([follower for follower in followers if follower.is_open], options, device, stop, ended, in_sweep)
    except BaseException as error:
        for follower in followers:
            if follower.is_open:
                how = follower.close(error)
                if how is not None:
                    ended(follower.asked, how)
        if not isinstance(error, Exception):
            raise


def _open(follower: Follower, ended: Callable[[RunToTrain, State | Exception], None]) -> None:
    """Open a run; if that is impossible, or the run is finished, report its end."""
    try:
        state = follower.open()
    except Exception as error:
        ended(follower.asked, follower.close(error) or error)
        return
    if state is not None:
        follower.close()
        ended(follower.asked, state)


def _train(
    followers: Sequence[Follower],
    options: RunOptions,
    device: torch.device,
    stop: Stop,
    ended: Callable[[RunToTrain, State | Exception], None],
    in_sweep: bool,
) -> None:
    """Train open runs with equal ``base_run``."""
    if not followers:
        return
    spec, watcher = base_run(followers[0].spec), followers[0].watcher
    hparams = resolve_hparams(spec)
    dataset = open_dataset(spec, options.data_dir, hparams)
    for sentence in dataset.notes:  # before the pixel cache is built, which can take hours
        tell(watcher, sentence)
    report: Ended = lambda follower, how: ended(follower.asked, how)  # noqa: E731

    threads = torch.get_num_threads()

    def begin(*, may_compile: bool = True) -> list[Follower]:
        try:
            with open_loader(spec, hparams, dataset, device, watcher, stop) as loader:
                left = [follower for follower in waiting if follower.is_open]
                trajectory = Trajectory(spec, hparams, left, dataset, loader, device, report, in_sweep, may_compile)
                return trajectory.train(stop)
        finally:
            torch.set_num_threads(threads)  # a run that resumes may have changed it
            for follower in followers:
                follower.leave()

    waiting = list(followers)
    while waiting:
        waiting = _retried(begin, device, watcher)


def _retried(begin: Callable[..., list[Follower]], device: torch.device, watcher: Watcher) -> list[Follower]:
    """Train runs; retry once, from the checkpoints, without what failed.

    After an OOM, the pixel cache on the GPU is released. If a backward pass cannot be compiled, nothing is compiled.
    """
    try:
        return begin()
    except Exception as error:
        may_compile = is_out_of_memory(error)
        if may_compile and RESIDENCE.give_up():
            tell(watcher, f"{device} ran out of memory; the pixel cache is removed from it, and the run resumes")
        elif not may_compile and isinstance(error, compile_errors()):
            tell(watcher, "compilation of the backward pass failed; the run resumes uncompiled")
        else:
            raise
    gc.collect()
    return begin(may_compile=may_compile)

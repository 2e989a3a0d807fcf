"""Kill a training at any of its moments."""

import os
import stat

from support import Silence

from dg_batchformer.training.evaluate import Evaluator
from dg_batchformer.training.follower import Follower


class Killed(BaseException):
    """Stands for SIGKILL."""


class Killer(Silence):
    """Counts the moments of a run, and kills it at one of them if asked to.

    Moments are: every update, before and after every evaluation, every record, and inside every file that is
    written (records, checkpoint, model, done), when it is not yet in its place.

    Args:
        at: number of moments before the kill; None: never.
        saves_every: number of steps between checkpoints.

    """

    def __init__(self, monkeypatch, *, at=None, saves_every=1):
        super().__init__()
        self.at, self.moments = at, 0
        evaluate, save = Evaluator.outputs, Follower.save

        def evaluate_between(evaluator, *arguments):
            self.moment()
            yield from evaluate(evaluator, *arguments)
            self.moment()

        def save_seldom(follower, step, shared):
            if step % saves_every == 0:
                save(follower, step, shared)

        monkeypatch.setattr(Evaluator, "outputs", evaluate_between)
        monkeypatch.setattr(Follower, "save", save_seldom)
        monkeypatch.setattr(os, "fsync", self.sync)

    def sync(self, descriptor):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):  # folders are synced after files are in place
            self.moment()

    def moment(self):
        if self.moments == self.at:
            raise Killed
        self.moments += 1

    def step(self, step):
        self.moment()

    def record(self, values):
        super().record(values)
        self.moment()

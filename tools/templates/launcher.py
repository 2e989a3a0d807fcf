"""MyLauncher: train runs by a command of your own, such as the one that submits a job."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dg_batchformer.spec.manifest import SweepRun
from dg_batchformer.sweep.launchers.base import Launcher
from dg_batchformer.sweep.launchers.dry_run import commands

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # the programs of this Python first


class MyLauncher(Launcher):
    """Run the train command of every run in a shell; put the command of your scheduler before it."""

    def launch(self, runs: Sequence[SweepRun]) -> bool:
        for line in commands(self.folder, runs, self.options, self.threads):
            subprocess.run(line, shell=True, env={**os.environ, "PATH": PATH})
        return True

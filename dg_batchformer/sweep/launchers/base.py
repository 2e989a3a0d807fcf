"""The launcher interface, and launchers by name that plug-ins and installed packages add to ours."""

from collections.abc import Collection, Sequence
from typing import Protocol

from dg_batchformer.catalog.installed import installed_names, load_installed
from dg_batchformer.errors import InputError, unknown
from dg_batchformer.spec.manifest import SweepRun
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.storage.folders import SweepFolder

OURS = {
    "local": "trains on this machine, with a worker process for each device",
    "slurm": "submits job arrays to SLURM and returns",
    "dry_run": "prints the missing runs, their cost and commands",
}
LAUNCHERS: dict[str, type["Launcher"]] = {}


class Report(Protocol):
    """Receives the events of a launch."""

    def begin(self, run: SweepRun, start: int) -> None:
        """A run starts or resumes at step ``start``."""

    def progress(self, run: SweepRun, done: int) -> None:
        """A run has done ``done`` updates."""

    def ended(self, run: SweepRun, how: str, sentence: str) -> None:
        """A run ended: done, diverged, failed, interrupted, stopped by a failing disk or GPU, busy or not resumed."""

    def note(self, run: SweepRun, sentence: str) -> None:
        """A message for the user."""


class Launcher:
    """Base class of launchers, which train the missing runs of a sweep; override ``launch``.

    All state is in the folders of runs, which workers lock, so a launcher keeps none of its own.

    Args:
        folder: of the sweep.
        devices: of workers on this machine, such as ``["cpu", "cpu"]`` or ``["cuda:0", "cuda:1"]``.
        options: of all runs.
        report: receives events.
        threads: CPU threads per worker; None divides the cores evenly.
        share: whether runs of one trajectory are trained together.

    """

    def __init__(
        self,
        folder: SweepFolder,
        devices: Sequence[str],
        options: RunOptions,
        report: Report,
        *,
        threads: int | None = None,
        share: bool = True,
    ) -> None:
        self.folder, self.devices, self.options, self.report = folder, devices, options, report
        self.threads, self.share = threads, share

    def launch(self, runs: Sequence[SweepRun]) -> bool:
        """Train runs, or queue them elsewhere; return false if interrupted. A failing run does not stop the others."""
        raise NotImplementedError


def launcher_names() -> list[str]:
    """Return the names of all launchers, ours first."""
    return list(dict.fromkeys([*OURS, *LAUNCHERS, *installed_names("launchers")]))


def find_launcher(name: str) -> type[Launcher]:
    """Return the launcher of a plug-in or an installed package; raise InputError for an unknown name."""
    if name not in LAUNCHERS and not load_installed("launchers", name):
        raise unknown("launcher", name, launcher_names())
    return LAUNCHERS[name]


def add_launcher(name: str, launcher: type[Launcher], source: str, *, replaced: Collection[str] = ()) -> None:
    """Make a launcher known by a name; raise InputError if the name is taken.

    Args:
        name: of the launcher.
        launcher: its class.
        source: where it is from, for messages.
        replaced: names that may be taken.

    """
    if name in OURS or (LAUNCHERS.get(name, launcher) is not launcher and name not in replaced):
        raise InputError(f"{source} has the launcher {name!r}, but that name is taken; rename it")
    LAUNCHERS[name] = launcher

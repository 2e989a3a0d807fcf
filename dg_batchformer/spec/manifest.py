"""The sweep manifest ``sweep.json``: all rows and runs of a sweep, so that status and tables need not scan folders."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.runtime.garbage import no_collection
from dg_batchformer.spec.launch import DEFAULT_RESULTS, Launch
from dg_batchformer.spec.race import Bracket, Race, brackets
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.spec.search import Search
from dg_batchformer.spec.sweep import SweepSpec
from dg_batchformer.storage.folders import RunFolder, State, SweepFolder
from dg_batchformer.text.command import command
from dg_batchformer.text.printable import one_line
from dg_batchformer.text.spelling import one_form


class SweepRun(NamedTuple):
    """A run of a sweep.

    Args:
        label: of its row.
        spec: its settings.
        varied: names of the hparams whose values the grid of its row lists, or that a search chose; their values are
            among the hparams of ``spec``.
        searches: whether it is a run of a search, not of its winner.
        winner: id of the run with whose hparams it repeats, '' if no search chose its hparams.
        bracket: the runs that it races against, if it does; derived from the other runs of the sweep.

    """

    label: str
    spec: RunSpec
    varied: tuple[str, ...] = ()
    searches: bool = False
    winner: str = ""
    bracket: Bracket | None = None

    def state(self, folder: RunFolder) -> State:
        """Return its state in its folder; a run that an earlier race stopped is interrupted, if it races no more."""
        state = folder.state()
        return State.INTERRUPTED if state is State.OUTRACED and self.bracket is None else state

    @property
    def point(self) -> dict[str, Any]:
        """Its grid point: the values of the varied hparams."""
        return {name: self.spec.hparams[name] for name in self.varied}

    @property
    def name(self) -> str:
        """Readable name of the run."""
        draw = f", draw {self.spec.hparams_seed}" if self.spec.hparams_seed else ""
        return f"{self.label} on {self.place}{draw}" + "".join(f", {name} {of}" for name, of in self.point.items())

    @property
    def cell(self) -> tuple[object, ...]:
        """Row, dataset, imbalance and environments, for which a search chooses one winner."""
        spec = self.spec
        return self.label, spec.dataset, str(spec.imbalance or ""), spec.train_envs, spec.test_envs

    @property
    def where(self) -> str:
        """Dataset, environments and imbalance."""
        spec = self.spec
        trained_on = f" from {spec.environment_names(spec.train_envs)}" if spec.leaves_some_out else ""
        thinned = f", {spec.imbalance}" if spec.imbalance is not None else ""
        return f"{spec.dataset}/{spec.environment_names(spec.test_envs)}{trained_on}{thinned}"

    @property
    def place(self) -> str:
        """Dataset, environments, imbalance and trial, which all draws of a row share."""
        return f"{self.where}, trial {self.spec.trial_seed}"


@dataclass(frozen=True)
class SweepManifest:
    """A sweep as of its last start: rows in table order, runs in order.

    Args:
        folder: of the sweep.
        by_train_envs: whether the sweep file has ``train_envs``.
        launch: command of the last start; None if an earlier version started it.
        search: the search for hparams, if the sweep has one.

    """

    name: str
    rows: Sequence[str]
    runs: Sequence[SweepRun]
    folder: Path
    by_train_envs: bool = False
    launch: Launch | None = None
    search: Search | None = None

    def command(self, *, retry: Sequence[State] = ()) -> str:
        """Return the command that trains the remaining runs, and with ``retry`` also failed or damaged ones."""
        launch = self.launch or self._usual_launch()
        here = Path(os.path.normpath(self.folder.absolute()))
        results = self.folder.parent if self.folder.name == here.name else Path(os.path.relpath(here.parent))
        where = None if results == DEFAULT_RESULTS else results
        continues = command(
            "sweep", launch.file, **launch.options, results_dir=where, retry=[str(state) for state in retry]
        )
        if here.name == self.name or (results / self.name).exists():
            return continues
        return f"{shlex.join(['mv', str(results / here.name), str(results / self.name)])} && {continues}"

    def _usual_launch(self) -> Launch:
        on_disk = any(run.spec.facts.folder for run in self.runs)
        return Launch(Path("sweeps", f"{self.name}.yaml"), {"data_dir": "DATA"} if on_disk else {})


def racing(runs: Sequence[SweepRun], race: Race | None) -> list[SweepRun]:
    """Let runs race against those with equal row, dataset, environments and trial; None lets none race."""
    if race is None:
        return list(runs)
    found = brackets(race, (((run.cell, run.spec.trial_seed), run.spec.id) for run in runs))
    return [run._replace(bracket=found.get(run.spec.id)) for run in runs]


def manifest_content(
    sweep: SweepSpec, runs: Sequence[SweepRun], launch: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the content of ``sweep.json``.

    Args:
        sweep: the sweep file.
        runs: all runs, expanded.
        launch: from ``Launch.kept``.

    """
    return {
        **({"launch": launch} if launch else {}),
        "name": sweep.name,
        "declared": asdict(sweep),
        "rows": [row.label for row in sweep.algorithms],
        "runs": run_entries(runs),
    }


def awaits_winners(search: Search | None, runs: Sequence[SweepRun]) -> bool:
    """Return whether the runs of a sweep are those of its search alone, whose winners are still to be chosen."""
    return search is not None and all(run.searches for run in runs)


def run_entries(runs: Sequence[SweepRun]) -> list[dict[str, Any]]:
    """Return the entries of runs in ``sweep.json``; fields that equal their default are left out."""
    entries = []
    for run in runs:
        entry: dict[str, Any] = {"id": run.spec.id, "label": run.label, "spec": run.spec.as_dict()}
        entry |= {"varied": list(run.varied)} if run.varied else {}
        entry |= {"searches": True} if run.searches else {}
        entry |= {"winner": run.winner} if run.winner else {}
        entries.append(entry)
    return entries


@no_collection()
def read_sweep_manifest(folder: SweepFolder) -> SweepManifest:
    """Read ``sweep.json``; raise InputError if it is missing or malformed."""
    content = folder.read()
    try:
        rows = [one_form(_text(label)) for label in content["rows"]]
        runs = [_run(run) for run in content["runs"]]
        name = _text(content["name"])
        declared = content.get("declared", {})
        by_train_envs = declared.get("train_envs") is not None
        search = None if declared.get("search") is None else Search.from_dict(declared["search"])
        race = None if declared.get("race") is None else Race.from_dict(declared["race"])
        launch = Launch.read(content.get("launch"), folder.path)
    except KeyError as error:
        raise InputError(f"{folder.sweep_file} is not a sweep manifest: it lacks {error}") from None
    except MALFORMED as error:
        raise InputError(f"{folder.sweep_file} is not a sweep manifest: {error}") from None
    strange = sorted({run.label for run in runs} - set(rows))
    if strange or not runs:
        what = f"its runs name rows that it lacks: {', '.join(strange)}" if strange else "it has no runs"
        raise InputError(f"{folder.sweep_file} is not a sweep manifest: {what}")
    return SweepManifest(name, rows, racing(runs, race), folder.path, by_train_envs, launch, search)


def _run(content: dict[str, Any]) -> SweepRun:
    spec = RunSpec.from_dict(content["spec"])
    varied = tuple(_text(name) for name in content.get("varied", ()))
    if strange := set(varied) - set(spec.hparams):
        raise ValueError(f"a run varies {min(strange)}, which is not among its hparams")
    searches, winner = content.get("searches", False), content.get("winner", "")
    return SweepRun(one_form(_text(content["label"])), spec, varied, searches is True, _text(winner))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} stands where a text is expected")
    return one_line(value)

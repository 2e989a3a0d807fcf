"""The Python API: train, sweep, and load results and models in a notebook or script.

Import it as ``import dg_batchformer as dg``. Only ``train``, ``sweep``, ``register`` and ``load_model`` import PyTorch.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import nan
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from dg_batchformer.catalog.custom import find_dataset
from dg_batchformer.catalog.installed import KINDS
from dg_batchformer.cli.common import import_plugins
from dg_batchformer.errors import InputError, unknown
from dg_batchformer.results.arrange import Arrangement
from dg_batchformer.results.collect import collect, refuse_mixed
from dg_batchformer.results.collection import Collection
from dg_batchformer.results.frames import records_frame, runs_frame
from dg_batchformer.results.our_sweep import read_run
from dg_batchformer.results.selection import METHODS
from dg_batchformer.results.winners import read_winners
from dg_batchformer.spec.launch import DEFAULT_RESULTS
from dg_batchformer.spec.names import module_names
from dg_batchformer.spec.options import RunOptions, check_threads
from dg_batchformer.spec.protocols import DEFAULT_PROTOCOL
from dg_batchformer.spec.run import RunRequest, RunSpec
from dg_batchformer.spec.run_folder import default_folder, refuse_other_run
from dg_batchformer.storage.folders import KEEP, RunFolder, SweepFolder, refuse_misplaced

if TYPE_CHECKING:
    import pandas as pd

    from dg_batchformer.callbacks.base import Callback
    from dg_batchformer.models.module import TrainedModel
    from dg_batchformer.report.plots import Plots
    from dg_batchformer.tables.frame import TableFrame

T = TypeVar("T")
Environments: TypeAlias = str | int | Sequence[str | int]

_KINDS = (*KINDS, "selections")


@dataclass(frozen=True)
class Verdict:
    """Whether row ``other`` improves on row ``baseline``, in percentage points of test accuracy.

    Args:
        sentence: the verdict in words.
        verdict: ``better``, ``worse``, ``open`` (the interval contains 0), ``equal`` (both bounds of the interval
            round to 0.0), or the reason for no verdict.
        mean: ``other`` minus ``baseline``, averaged over environments and then over datasets; None without pairs.
        interval: 95 % interval of the mean; None with fewer than two environments or two trials.
        p_value: p-value of the signed-rank test; None with fewer than six environments.
        warnings: claims that need more runs, and pairs that were left out.

    """

    baseline: str
    other: str
    sentence: str = field(repr=False)
    verdict: str
    mean: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    warnings: Sequence[str] = field(repr=False)


class Results:
    """Results of sweeps and runs; notebooks show the default table.

    Args:
        collection: the runs, from ``results.collect.collect``.

    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection

    @property
    def rows(self) -> list[str]:
        """The names of the rows, in table order."""
        return [*self.collection.rows]

    @property
    def notes(self) -> list[str]:
        """Notes on what could not be read or was left out, one sentence each."""
        return [*self.collection.skipped]

    def records(self) -> "pd.DataFrame":
        """Return one line per evaluation of every run; for the columns see ``results.frames.records_frame``.

        >>> import dg_batchformer as dg
        >>> records = dg.load_results("results/toy").records()
        >>> records[["row", "test_envs", "step", "test_accuracy"]].head(2).round(3)
           row test_envs  step  test_accuracy
        0  ERM         A     0          0.542
        1  ERM         A    20          0.917
        """
        return records_frame(self.collection)

    def runs(self) -> "pd.DataFrame":
        """Return one line per run: its settings, state, folder and hyper-parameters.

        >>> import dg_batchformer as dg
        >>> dg.load_results("results/toy").runs()["state"].value_counts().to_dict()
        {'done': 32}
        """
        return runs_frame(self.collection)

    def table(self, selection: str = "training-domain", *, columns: Sequence[str] = ()) -> "TableFrame":
        """Return the table of a selection method, one line per cell; notebooks show it as a formatted table.

        ``columns`` are the environments, datasets and averages to show, in this order; by default all.

        Columns: ``selection``, ``table``, ``row``, ``column``, ``mean`` and ``standard_error`` in percent over ``n``
        trials, and differences between rows. Raises InputError for an unknown selection method or column.

        >>> import dg_batchformer as dg
        >>> cells = dg.load_results("results/toy").table("training-domain")
        >>> cells[cells["column"] == "Average"].set_index("row")["mean"].round(1).to_dict()
        {'ERM': 78.1, 'ERM+BF': 75.9, 'SWAD': 79.2, 'SWAD and BF': 78.8}
        """
        from dg_batchformer.tables.columns import with_columns
        from dg_batchformer.tables.frame import section_frame
        from dg_batchformer.tables.table import build_sections

        sections = build_sections(self.collection, [_method(selection)])
        [section] = with_columns(sections, _several(columns)) if columns else sections
        return section_frame(section)

    def compare(self, baseline: str, other: str, *, selection: str = "training-domain") -> Verdict:
        """Print whether row ``other`` improves on row ``baseline``, and return the numbers.

        Raises InputError for an unknown row or selection method.

        >>> import dg_batchformer as dg
        >>> verdict = dg.load_results("results/toy").compare("ERM", "ERM+BF")
        These runs do not show whether ERM+BF improves on ERM: the difference is -2.2 points ...
        >>> verdict.verdict, round(verdict.mean, 1)
        ('open', -2.2)
        """
        from dg_batchformer.stats.comparison import compare_rows
        from dg_batchformer.stats.verdict import sentence, warnings

        [found] = compare_rows(self.collection, baseline, [other], [_method(selection)])
        said = sentence(found)
        print(said)
        interval = None if found.interval is None else (found.interval[0], found.interval[1])
        return Verdict(
            baseline, other, said, found.verdict.value, found.mean, interval, found.signed_rank.plain, warnings(found)
        )

    @property
    def plot(self) -> "Plots":
        """Figures of the results as matplotlib Figures: ``curves``, ``gain``, ``selection``, ``accuracy`` and others.

        >>> import dg_batchformer as dg
        >>> figure = dg.load_results("results/toy").plot.gain("ERM+BF", over="ERM")
        >>> figure.axes[0].get_title(loc="left")
        'Average'
        """
        from dg_batchformer.report.plots import Plots

        return Plots(self.collection)

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def __repr__(self) -> str:
        runs, rows = len(self.collection.runs), ", ".join(self.rows)
        return f"Results({self.collection.name}: {runs} runs, rows {rows})"


class TrainedRun:
    """A finished run.

    Args:
        spec: specification of the run.
        folder: folder of the run.
        name: name of its algorithm, as it was given.

    """

    def __init__(self, spec: RunSpec, folder: Path, name: str) -> None:
        self.spec, self.folder, self.name = spec, folder, name

    @cached_property
    def results(self) -> Results:
        """The results of the run."""
        run = read_run(self.spec, RunFolder(self.folder))
        return Results(Collection(self.folder.name, [run.label], [run]))

    @property
    def records(self) -> "pd.DataFrame":
        """One line per evaluation, see ``Results.records``."""
        return self.results.records()

    @cached_property
    def accuracy(self) -> float:
        """Test accuracy in [0, 1] with training-domain selection, averaged over test environments.

        NaN if the run diverged before its first evaluation.
        """
        [run] = self.results.collection.runs
        scores = [
            METHODS["training-domain"].select([run], env, len(self.spec.facts.names)) for env in self.spec.test_envs
        ]
        return fmean(nan if score is None else score.test for score in scores)

    @cached_property
    def model(self) -> "TrainedModel":
        """The trained model, see ``load_model``."""
        return load_model(self.folder)

    def __repr__(self) -> str:
        tests = self.spec.environment_names(self.spec.test_envs)
        return f"TrainedRun({self.name} on {self.spec.dataset}, {tests}: {self.accuracy:.1%})"


def train(
    algorithm: str | type = "ERM",
    *,
    dataset: str = "Shapes",
    data_dir: str | Path | None = None,
    test_envs: Environments | None = None,
    train_envs: Environments | None = None,
    protocol: str = DEFAULT_PROTOCOL,
    hparams: Mapping[str, Any] | None = None,
    trial_seed: int = 0,
    hparams_seed: int = 0,
    seed: int | None = None,
    steps: int | None = None,
    checkpoint_freq: int | None = None,
    holdout_fraction: float = 0.2,
    evaluate: str = "needed",
    precision: str = "auto",
    data_path: str | None = None,
    compile: str = "auto",  # noqa: A002  # the name of the field
    plugins: Sequence[str] = (),
    imbalance: str | None = None,
    output_dir: str | Path | None = None,
    keep: str = "final",
    predictions: bool = False,
    log: Sequence[str] = (),
    callbacks: "Callback | Sequence[Callback]" = (),
    device: str = "auto",
    threads: int | None = None,
) -> TrainedRun:
    """Train one run, resume it, or return it if it is already trained.

    Ctrl-C saves the run and raises KeyboardInterrupt; the same call resumes it.

    Args:
        algorithm: a composed name such as ``SWAD+CORAL+BF``, or a class with ``update`` and ``predict``, see
            ``register``.
        dataset: a name in ``dg.list("datasets")``, or of your own folder or manifest in ``data_dir``.
        data_dir: folder of all datasets, such as ``DIR/PACS/sketch/dog/``.
        test_envs: environments to test on, by name or index; by default all not in ``train_envs``, or the first.
        train_envs: environments to train on; by default all others.
        protocol: preset of backbone, steps and hyper-parameters, a name in ``dg.list("protocols")``.
        hparams: hyper-parameters to set.
        trial_seed: number of the repetition, which chooses splits and random draws.
        hparams_seed: number of the random draw of hyper-parameters; 0 uses the defaults.
        seed: seed of initial weights, data order and augmentation; by default derived from the run, as in DomainBed.
        steps: number of updates; by default the protocol's.
        checkpoint_freq: number of updates between evaluations; by default the protocol's.
        holdout_fraction: share of every environment that is held out for validation, in (0, 1).
        evaluate: ``needed``, or ``all`` to also evaluate the training images.
        precision: ``fp32``, ``tf32``, ``bf16`` or ``auto``.
        data_path: ``exact``, ``cached`` or ``features``; by default the protocol's.
        compile: compile evaluation, and on a GPU also training and augmentation: ``off``, ``on``, or ``auto``, where it
            is expected to pay off.
        plugins: modules that define more algorithms, or ``fork:PATH`` for a fork of DomainBed.
        imbalance: subsampling of the training images, such as ``long_tail:50``; by default none.
        output_dir: folder of the run; by default below ``results/train``, named after the run.
        keep: the weights to keep: ``none``, ``final`` or ``best``.
        predictions: save the predictions for every evaluated image.
        log: names of callbacks: ``tensorboard``, ``wandb``, ``mlflow``, or those of packages and plug-ins.
        callbacks: instances of ``callbacks.base.Callback`` that follow the run.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        threads: number of CPU threads; by default PyTorch's.

    Raises InputError if the run cannot be trained, with the reason.

    >>> import dg_batchformer as dg
    >>> run = dg.train("ERM+BF", dataset="Toy", protocol="quick", steps=20, checkpoint_freq=10)
    ERM+BF on Toy (quick): trains on ...
    >>> run.records["step"].tolist()
    [0, 10, 19]
    >>> 0 <= run.accuracy <= 1
    True
    >>> run.model.classes[:2]
    ['0', '1']

    """
    name, plugins = _named(algorithm), _several(plugins)
    import_plugins(plugins)
    callbacks = _checked_callbacks(callbacks)
    found = find_dataset(dataset, None if data_dir is None else Path(data_dir))
    request = RunRequest(
        dataset=found.dataset,
        algorithm=name,
        test_envs=_environments(test_envs),
        train_envs=_environments(train_envs),
        environments=found.environments,
        trial_seed=trial_seed,
        hparams_seed=hparams_seed,
        seed=seed,
        hparams=dict(hparams or {}),
        steps=steps,
        checkpoint_freq=checkpoint_freq,
        holdout_fraction=holdout_fraction,
        protocol=protocol,
        evaluate=evaluate,
        precision=precision,
        data_path=data_path,
        compile=compile,
        plugins=plugins,
        imbalance=imbalance,
    )
    spec = _with_session(request.resolve())
    folder = default_folder(spec, name) if output_dir is None else RunFolder(Path(output_dir))
    options = RunOptions(None if data_dir is None else Path(data_dir), keep, predictions, _several(log))
    _train(spec, folder, name, options, callbacks=callbacks, device=device, threads=threads)
    return TrainedRun(spec, folder.path, name)


def _train(
    spec: RunSpec,
    folder: RunFolder,
    name: str,
    options: RunOptions,
    *,
    callbacks: Sequence["Callback"],
    device: str,
    threads: int | None,
) -> None:
    """Train a run to its end in this process, or print its result if it is already trained."""
    import torch

    from dg_batchformer.training.foreground import prepare, train_on_console
    from dg_batchformer.training.lines import outcome
    from dg_batchformer.training.stop import Interrupted, stopping_on_interrupt

    refuse_misplaced(folder, spec.id)
    refuse_other_run(folder, spec)
    if folder.state().is_final:
        print("\n".join(outcome(spec, folder)))
        return
    threads_before = torch.get_num_threads()
    on = prepare(spec, options, device, threads)
    try:
        with stopping_on_interrupt() as stop:
            train_on_console(spec, folder, options, device=on, stop=stop, callbacks=callbacks, row=name)
    except Interrupted:
        raise KeyboardInterrupt(f"{folder.path} is saved; the same call resumes it") from None
    finally:
        torch.set_num_threads(threads_before)


def sweep(
    asked: str | Path | Mapping[str, Any],
    *,
    name: str | None = None,
    question: str = "",
    data_dir: str | Path | None = None,
    results_dir: str | Path = DEFAULT_RESULTS,
    devices: str | Sequence[str] = "auto",
    launcher: str = "local",
    slurm: Sequence[str] = (),
    keep: str = "none",
    predictions: bool = False,
    log: Sequence[str] = (),
    retry: Sequence[str] = (),
    threads: int | None = None,
) -> Results:
    """Train the missing runs of a sweep, and return its results.

    Ctrl-C saves all runs and raises KeyboardInterrupt; the same call resumes them. Failed runs are left out of the
    results, whose ``notes`` count them. Results of a search that has no winners yet are those of its own runs.

    Args:
        asked: path of a sweep file, or its content as a dict, which is written to ``RESULTS_DIR/NAME/NAME.yaml``.
        name: name of a sweep that is given as a dict.
        question: the question that a sweep given as a dict answers; its report shows it.
        data_dir: folder of all datasets.
        results_dir: folder of all results.
        devices: devices, one worker process each, such as ``cpu,cpu`` or ``["cuda:0", "cuda:1"]``.
        launcher: ``local``, ``slurm``, which submits the runs and returns, or one of a plug-in.
        slurm: SLURM settings, such as ``["partition=gpu", "gpus=1"]``.
        keep: the weights that every run keeps: ``none``, ``final`` or ``best``.
        predictions: save the predictions of every run.
        log: names of callbacks that follow every run: ``tensorboard``, ``wandb``, ``mlflow`` ...
        retry: states of runs to train again: ``failed``, ``damaged``.
        threads: number of CPU threads of each worker.

    Raises InputError if a run cannot be trained, with the reason. Classes of this session are trained in this process,
    one run after another, and cannot be trained on SLURM.

    >>> import dg_batchformer as dg
    >>> question = {"datasets": ["Toy"], "algorithms": ["ERM", "ERM+BF"], "protocol": "quick", "steps": 3, "trials": 1}
    >>> results = dg.sweep(question, name="mine", devices="cpu")
    mine: 8 runs...
    >>> results.rows
    ['ERM', 'ERM+BF']

    """
    from dg_batchformer.cli.common import INTERRUPTED
    from dg_batchformer.cli.main import parser
    from dg_batchformer.cli.sweep import RETRIED, read, start
    from dg_batchformer.sweep.expand import expand
    from dg_batchformer.sweep.from_dict import sweep_file

    if launcher == "dry_run":
        raise InputError("a dry run prints commands; for it, use the command: sweep FILE --launcher dry_run")
    if keep not in KEEP:
        raise unknown("value of keep:", keep, KEEP)
    for state in _several(retry):
        if state not in RETRIED:
            raise unknown("state to retry:", state, RETRIED)
    check_threads(threads)
    given = {
        "data_dir": None if data_dir is None else Path(data_dir),
        "results_dir": Path(results_dir),
        "devices": ",".join(_several(devices)),
        "launcher": launcher,
        "slurm": list(_several(slurm)),
        "keep": keep,
        "predictions": predictions,
        "log": list(_several(log)),
        "retry": list(_several(retry)),
        "threads": threads,
    }
    with sweep_file(asked, name, question, Path(results_dir)) as file:
        options = parser("sweep").parse_args(["sweep", str(file)])
        vars(options).update(given)
        declared = read(file, options.data_dir)
        runs = [run._replace(spec=_with_session(run.spec)) for run in expand(declared)]
        if start(options, declared, runs) == INTERRUPTED:
            raise KeyboardInterrupt("all runs are saved; the same call resumes them")
    folder = SweepFolder(options.results_dir / declared.name)
    is_searching = declared.search is not None and not read_winners(folder)
    return load_results(folder.path, search=is_searching)


def _with_session(spec: RunSpec) -> RunSpec:
    """Add what was registered in this session to the plug-ins of a run that uses it."""
    if "dg_batchformer.plugins.session" not in sys.modules:  # nothing was registered
        return spec
    from dg_batchformer.hparams_registry import resolve_hparams
    from dg_batchformer.plugins import session

    used = session.plugins_of(spec, str(resolve_hparams(spec).get("backbone")))
    return replace(spec, plugins=module_names([*spec.plugins, *used]))


def register(extension: T, name: str | None = None) -> T:
    """Make an extension of this notebook or script known by its name, and return it.

    Its source is part of the identity of the runs that use it, so an edited one is trained anew. Such runs are trained
    in this process; for SLURM, move the extension to a module and name that in ``plugins``.

    Args:
        extension: one of

            * an algorithm, a ``torch.nn.Module`` with DomainBed's interface:
              ``__init__(input_shape, num_classes, num_domains, hparams)``, ``update`` and ``predict``. Wrappers compose
              with it, such as ``SWAD+MyAlgorithm+BF``;
            * a subclass of ``wrappers.base.Wrapper``, ``datasets.base.Dataset`` or ``sweep.launchers.base.Launcher``;
            * a ``networks.backbones.Backbone``, which becomes a value of the hyper-parameter ``backbone``;
            * the ``pathlib.Path`` of a protocol, a YAML file.
        name: of a backbone or protocol; classes have their own.

    Raises InputError if it is none of these, cannot be used, or has the name of another one. Callbacks are passed to
    ``train`` instead.

    >>> import dg_batchformer as dg
    >>> from dg_batchformer.algorithms import get_algorithm_class
    >>> @dg.register
    ... class Halved(get_algorithm_class("ERM")):
    ...     def update(self, minibatches, unlabeled=None):
    ...         return super().update([(x / 2, y) for x, y in minibatches], unlabeled)
    >>> "Halved" in dg.list("algorithms")
    True

    """
    from dg_batchformer.plugins import session
    from dg_batchformer.plugins.load import load_plugins

    load_plugins([session.register(extension, name)])
    return extension


def load_model(folder: str | Path, *, device: str = "cpu", plugins: Sequence[str] = ()) -> "TrainedModel":
    """Load the model that a run kept, a ``torch.nn.Module`` from images to logits.

    Its ``transform`` preprocesses a Pillow image as in the evaluation of the run; ``classes`` are the names of the
    logits.

    Args:
        folder: folder of a run trained with ``keep="final"`` or ``"best"``.
        device: device of the model, such as ``cuda``.
        plugins: modules that the run was trained with; modules that a folder names are not imported by themselves.

    Raises InputError if there is no model or it cannot be rebuilt.

    >>> import dg_batchformer as dg
    >>> run = dg.train("ERM", dataset="Shapes", protocol="quick", steps=2)
    ERM on Shapes ...
    >>> model = dg.load_model(run.folder)
    >>> from PIL import Image
    >>> x = model.transform(Image.new("RGB", (64, 64)))
    >>> model(x[None]).shape[1] == len(model.classes)
    True

    """
    from dg_batchformer.models.load import load_model as load_kept
    from dg_batchformer.models.module import TrainedModel
    from dg_batchformer.training.device import parse_device

    import_plugins(plugins)
    return TrainedModel(load_kept(RunFolder(Path(folder)), parse_device(device)))


def _named(algorithm: str | type) -> str:
    """Return the name of an algorithm; register it first if it is a class."""
    return algorithm if isinstance(algorithm, str) else register(algorithm).__name__


def _several(given: Sequence[str]) -> tuple[str, ...]:
    """Return a tuple of strings; a single string counts as one."""
    return (given,) if isinstance(given, str) else tuple(given)


def _checked_callbacks(given: "Callback | Sequence[Callback]") -> Sequence["Callback"]:
    """Return callbacks, of which a single one may be given; raise InputError for something else."""
    if not given:
        return ()
    from dg_batchformer.callbacks.base import Callback

    callbacks: Sequence[Any] = given if isinstance(given, list | tuple) else (given,)
    for callback in callbacks:
        if not isinstance(callback, Callback):
            make = f"pass an instance, {callback.__name__}()" if isinstance(callback, type) else "extend that class"
            raise InputError(f"callbacks holds {callback!r:.60}, not an instance of callbacks.base.Callback; {make}")
    return callbacks


def _environments(given: Environments | None) -> Sequence[str | int] | None:
    """Return one or several environments as a sequence."""
    return (given,) if isinstance(given, str | int) else given


def load_results(
    *folders: str | Path,
    unfinished: bool = False,
    mix: bool = False,
    search: bool = False,
    rows: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    order: Sequence[str] = (),
    grid_points: bool = False,
) -> Results:
    """Load the results of sweeps and runs, of this package or DomainBed; several folders are pooled.

    Args:
        folders: sweep folders, run folders, or output folders of DomainBed sweeps.
        unfinished: also count unfinished runs, with their records so far.
        mix: pool runs in one cell even if they were trained under different conditions.
        search: of sweeps with a search, load the runs of the search instead of those of its winners.
        rows: names of the rows to keep, in this order; by default all.
        rename: new names of rows, by ``ROW``, or by ``SWEEP:ROW`` for the row of one sweep.
        order: names of rows that come first, in this order.
        grid_points: make every grid point a row, instead of choosing among them.

    Raises InputError for a folder without results, for an unknown row, and for different conditions within a cell
    without ``mix``.

    >>> import dg_batchformer as dg
    >>> dg.load_results("results/toy")
    Results(toy: 32 runs, rows ERM, ERM+BF, SWAD, SWAD and BF)
    >>> dg.load_results("results/toy", rows=["Ours", "ERM"], rename={"ERM+BF": "Ours"}).rows
    ['Ours', 'ERM']

    """
    if not folders or not all(isinstance(folder, str | Path) for folder in folders):
        raise InputError("load_results takes folders one by one, such as load_results('results/a', 'results/b')")
    arrangement = Arrangement(grid_points, rename or {}, _several(rows), _several(order))
    collection = collect(
        [Path(folder) for folder in folders], unfinished=unfinished, search=search, arrangement=arrangement
    )
    if not mix:
        refuse_mixed(collection)
    return Results(collection)


def list_names(kind: str) -> list[str]:
    """Return all names of a kind.

    Args:
        kind: ``algorithms``, ``wrappers``, ``datasets``, ``backbones``, ``protocols``, ``launchers``, ``callbacks`` or
            ``selections``.

    Raises InputError for another kind. The command ``list KIND NAME`` describes one in full.

    >>> import dg_batchformer as dg
    >>> dg.list("selections")[:3]
    ['training-domain', 'leave-one-domain-out', 'oracle']
    >>> "CORAL" in dg.list("algorithms")
    True

    """
    if kind == "selections":
        return [*METHODS]
    if kind not in _KINDS:
        raise unknown("kind", kind, _KINDS)
    from dg_batchformer.cli.listing import names_of

    return names_of(kind)


def _method(name: str) -> str:
    if name not in METHODS:
        raise unknown("selection method", name, METHODS)
    return name

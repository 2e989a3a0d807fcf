"""Sweeps as pandas DataFrames, with a line per run or a line per evaluation.

Other modules read the columns of ``results.evaluations``: importing pandas takes longer than printing a cached table.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dg_batchformer.results.collection import CollectedRun, Collection
from dg_batchformer.results.evaluations import Floats

if TYPE_CHECKING:
    import pandas as pd  # takes half a second to import, and most commands do not need it

_IDENTITY = ("dataset", "row", "algorithm", "test_envs", "trial_seed", "hparams_seed", "run")


def runs_frame(collection: Collection) -> "pd.DataFrame":
    """Return one line per run: its settings, state, folder and hyper-parameters.

    Columns: ``dataset``, ``row``, ``algorithm``, ``test_envs`` (names joined by "+"), ``trial_seed``, ``hparams_seed``,
    ``run`` (the name of its folder), ``state``, ``evaluations`` (how many were recorded), ``step`` (the last one),
    ``seconds`` (device time), ``protocol``, ``folder``, and ``hparams.NAME`` for every hyper-parameter. Runs that a
    race stopped are listed too, with the hyper-parameters that they tried and the time that they took.
    """
    import pandas as pd

    lines = [{**_identity(collection, run), **_outcome(run)} for run in collection.runs]
    return pd.DataFrame(lines, columns=None if lines else [*_IDENTITY, "state"])


def records_frame(collection: Collection) -> "pd.DataFrame":
    """Return one line per evaluation, in the order of runs and steps.

    Columns: those that identify the run, as in ``runs_frame``; ``step``; ``final`` (whether the evaluated model is
    the one that an averaging method returns); ``validation_accuracy`` and ``test_accuracy``, the means over the
    held-out splits of the training environments and over the test environments; then the recorded values, under
    DomainBed's keys (``env0_in_acc`` ...). Accuracies are fractions; values that were not recorded are NaN.
    """
    import pandas as pd

    runs = [run for run in collection.runs if len(run.evaluations)]
    keys = list(dict.fromkeys(key for run in runs for key in run.evaluations.keys))
    lengths = [len(run.evaluations) for run in runs]
    identities = pd.DataFrame([_identity(collection, run) for run in runs], columns=list(_IDENTITY))
    columns: dict[str, Any] = {name: np.repeat(identities[name].to_numpy(), lengths) for name in _IDENTITY}
    columns["step"] = _joined([run.evaluations.steps for run in runs])
    columns["final"] = _joined([run.evaluations.final for run in runs]).astype(bool)
    columns["validation_accuracy"] = _joined([_validation(run) for run in runs])
    columns["test_accuracy"] = _joined([_test(run) for run in runs])
    columns |= {key: _joined([run.evaluations.column(key) for run in runs]) for key in keys}
    return pd.DataFrame(columns)


def _identity(collection: Collection, run: CollectedRun) -> dict[str, Any]:
    names = collection.environments[run.benchmark]
    tests = "+".join(names[env] for env in run.test_envs)
    asked = run.benchmark, run.label, run.algorithm, tests, run.trial_seed, run.hparams_seed
    return dict(zip(_IDENTITY, (*asked, run.path.name), strict=True))


def _outcome(run: CollectedRun) -> dict[str, Any]:
    evaluations, hparams = run.evaluations, run.constant.get("hparams")
    return {
        "state": run.state.value,
        "evaluations": len(evaluations),
        "step": int(evaluations.steps.max()) if len(evaluations) else None,
        "seconds": run.ending.seconds if run.state.has_ended else None,
        "protocol": run.constant.get("protocol"),
        "folder": str(run.path),
        **{f"hparams.{name}": value for name, value in (hparams if isinstance(hparams, dict) else {}).items()},
    }


def _validation(run: CollectedRun) -> Floats:
    """Return the mean accuracy [R] on the held-out splits of the training environments, NaN if not recorded."""
    envs = run.train_envs or [env for env in range(run.evaluations.num_environments) if env not in run.test_envs]
    return _mean(run, [f"env{env}_out_acc" for env in envs])


def _test(run: CollectedRun) -> Floats:
    return _mean(run, [f"env{env}_in_acc" for env in run.test_envs])


def _mean(run: CollectedRun, keys: Sequence[str]) -> Floats:
    values, known = run.evaluations.mean(keys)
    return np.where(known, values, np.nan)


def _joined(columns: Sequence[Any]) -> Any:
    return np.concatenate(columns) if columns else np.array([])

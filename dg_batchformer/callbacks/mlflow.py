"""MLflow callback: an experiment per sweep, with row and test environments of each run as tags."""

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dg_batchformer.callbacks.base import Callback, RunInfo, measurements
from dg_batchformer.storage.folders import State
from dg_batchformer.storage.safe_write import open_own

_TAG = "dg_batchformer.run"
_LONGEST_VALUE = 6000  # characters, MLflow's limit for a parameter
_STATUS = {
    **dict.fromkeys((State.DONE, State.DIVERGED), "FINISHED"),
    **dict.fromkeys((State.INTERRUPTED, State.OUTRACED), "KILLED"),
}


class MLflow(Callback):
    """Logs to ``MLFLOW_TRACKING_URI``, by default ``ROOT/mlflow.db``; a resumed run continues its MLflow run."""

    def begin(self, run: RunInfo) -> None:
        from mlflow.entities import Param, RunTag
        from mlflow.tracking import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.root.absolute()}/mlflow.db"
        with _alone(run.root / "mlflow.lock"):  # workers must not create tables or an experiment at the same time
            self.client = MlflowClient(uri)
            experiment = self.client.get_experiment_by_name(run.sweep)
            experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(run.sweep)
            known = self.client.search_runs([experiment_id], f"tags.`{_TAG}` = '{run.id}'")
            if not known:
                tags = {_TAG: run.id, "row": run.row, "dataset": run.dataset, "test_envs": run.test_envs}
                name = f"{run.row} {run.test_envs} {run.trial}"
                self.run_id = self.client.create_run(experiment_id, tags=tags, run_name=name).info.run_id
            else:
                self.run_id = known[0].info.run_id
        params = [Param(name, str(value)[:_LONGEST_VALUE]) for name, value in run.config.items()]
        self.client.log_batch(self.run_id, params=params, tags=[RunTag("mlflow.source.name", "dg_batchformer")])
        history = self.client.get_metric_history(self.run_id, "epoch") if known else []
        self.last = max((point.step for point in history), default=-1)
        self.client.set_terminated(self.run_id, "RUNNING")

    def record(self, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric

        if values["step"] <= self.last:  # logged in an earlier start; a resumed run repeats it exactly
            return
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, values["step"]) for name, value in measurements(values).items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def end(self, state: State) -> None:
        self.client.set_terminated(self.run_id, _STATUS.get(state, "FAILED"))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock that the workers of a machine share."""
    with open_own(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

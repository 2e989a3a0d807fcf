"""MyCallback: print how a run ended, with its validation accuracy."""

from collections.abc import Mapping
from math import nan
from typing import Any

from dg_batchformer.callbacks.base import Callback, RunInfo, measurements
from dg_batchformer.storage.folders import State


class MyCallback(Callback):
    """Prints how a run ended, with its validation accuracy."""

    def begin(self, run: RunInfo) -> None:
        self.row, self.accuracy = run.row, nan

    def record(self, values: Mapping[str, Any]) -> None:
        self.accuracy = measurements(values)["validation_accuracy"]

    def end(self, state: State) -> None:
        print(f"{self.row}: {state.value}, validation accuracy {self.accuracy:.1%}")

"""Several callbacks as one, whose exceptions do not end the run."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dg_batchformer.callbacks.base import Callback, RunInfo
from dg_batchformer.errors import as_sentence
from dg_batchformer.storage.folders import State

log = logging.getLogger("dg_batchformer")


class CallbackGroup(Callback):
    """Calls several callbacks; one that raises is dropped, with a note, and its traceback in the log.

    Args:
        note: function that shows a sentence to the user.

    """

    def __init__(self, callbacks: Sequence[Callback], note: Callable[[str], None]) -> None:
        self.callbacks, self.note = list(callbacks), note
        self.has_begun = False

    def begin(self, run: RunInfo) -> None:
        self.has_begun = True
        self._call(lambda callback: callback.begin(run))

    def step(self, step: int) -> None:
        self._call(lambda callback: callback.step(step))

    def record(self, values: Mapping[str, Any]) -> None:
        self._call(lambda callback: callback.record(values))

    def end(self, state: State) -> None:
        if self.has_begun:
            self._call(lambda callback: callback.end(state))

    def _call(self, call: Callable[[Callback], None]) -> None:
        for callback in [*self.callbacks]:
            try:
                call(callback)
            except Exception as error:
                self.callbacks.remove(callback)
                name = type(callback).__name__
                log.warning("callback %s", name, exc_info=True)
                self.note(f"the callback {name} stopped ({as_sentence(error)}); the run continues without it")

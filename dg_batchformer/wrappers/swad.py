"""SWAD — Cha et al., NeurIPS 2021: average all iterates inside a valley of the validation loss."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from dg_batchformer.algorithms.base import Algorithm, Validation
from dg_batchformer.hparams import HParam
from dg_batchformer.wrappers.averaging import WeightAveraging
from dg_batchformer.wrappers.loss_valley import MODES, Average, LossValley, Segment, loss_valley_weights

__all__ = ["SWAD", "IIDMax", "loss_valley_weights"]


class _Segments(WeightAveraging):
    """Base class that averages the predictor over all updates between evaluations: one segment per evaluation."""

    registered = False

    def start_average(self) -> None:
        self.segment = Average()

    def after_update(self) -> None:
        self.segment.absorb(self.weights())

    def cut_segment(self, loss: float) -> Segment:
        """Return the iterates since the last evaluation as a segment, and start the next one."""
        iterates = int(self.segment.weight)
        segment = Segment(self.segment.tensors, loss, self.updates - iterates, self.updates - 1, iterates)
        self.segment = Average()
        return segment


class SWAD(_Segments):
    """Dense stochastic weight averaging, from the first local minimum of the validation loss to its rise.

    The averaged model is evaluated in an extra final record with ``averaged_from`` and ``averaged_to`` (the first and
    last averaged update) and ``valley_threshold`` (missing if the loss never converged; then the model is the last
    segment).
    """

    @classmethod
    def settings(cls, dataset: str) -> dict[str, HParam]:
        return {
            "swad_mode": HParam("exact", about="exact: as released; clean: each iterate once", choices=MODES),
            "swad_n_converge": HParam(
                3, about="the valley begins if the first of this many losses is the lowest", low=1
            ),
            "swad_n_tolerance": HParam(6, about="the valley ends after this many losses above the threshold", low=1),
            "swad_tolerance_ratio": HParam(
                0.2 if dataset == "VLCS" else 0.3,
                about="threshold relative to the mean loss at the beginning, minus 1",
                low=0,
            ),
        }

    def start_average(self) -> None:
        super().start_average()
        settings = ("swad_mode", "swad_n_converge", "swad_n_tolerance", "swad_tolerance_ratio")
        self.valley = LossValley.of(*(self.hparams[name] for name in settings))

    def observe_average(self, validation: Validation, evaluate: Callable[[nn.Module], Validation]) -> None:
        self.valley.add(self.cut_segment(validation.loss))
        self.finished = self.finished or self.valley.dead

    def finalize(self, batches: Iterable[Tensor]) -> Algorithm:
        super().finalize(batches)
        self.become(self.valley.final(), batches)
        if self.valley.threshold is not None:
            self.summary["valley_threshold"] = self.valley.threshold
        return self


class IIDMax(_Segments):
    """SWAD's alternative: average from the best validation accuracy on, and return the average that validates best.

    Averaging restarts with the current segment whenever the current model has the best validation accuracy so far.
    Averages are validated with the BatchNorm statistics of the current model; those of the returned one are
    re-estimated, unless frozen.
    """

    def start_average(self) -> None:
        super().start_average()
        self.average, self.best = Average(), Average()
        self.best_accuracy = self.best_average_accuracy = -1.0

    def observe_average(self, validation: Validation, evaluate: Callable[[nn.Module], Validation]) -> None:
        if validation.accuracy > self.best_accuracy:
            self.best_accuracy = validation.accuracy
            self.average = Average()
        self.average.absorb_segment(self.cut_segment(validation.loss))
        with self.weights_set(self.average.tensors):
            accuracy = evaluate(self).accuracy
        if accuracy > self.best_average_accuracy:
            self.best_average_accuracy = accuracy
            self.best = self.average.copy()

    def finalize(self, batches: Iterable[Tensor]) -> Algorithm:
        super().finalize(batches)
        self.become(self.best, batches)
        return self

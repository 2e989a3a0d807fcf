"""SMA and EMA — Arpit et al., 2022; Tarvainen & Valpola, 2017: means of the iterates, as they come."""

from dg_batchformer.hparams import HParam
from dg_batchformer.wrappers.averaging import MovingAverage

__all__ = ["EMA", "SMA"]


class SMA(MovingAverage):
    """Simple moving average: the mean of all iterates after a burn-in.

    With w_t the predictor's weights after update t and b the burn-in, the model is the mean of ``w_b ... w_T``; a run
    that ends earlier returns its last iterate.

    Differs from the paper: which average of a run is best is not chosen by its validation, the last one is returned.
    """

    @classmethod
    def settings(cls, dataset: str) -> dict[str, HParam]:
        return {"sma_burn_in": HParam(100, about="updates before those that are averaged", low=0)}

    def memory(self) -> float:
        return 0.0 if self.updates <= self.hparams["sma_burn_in"] else 1.0


class EMA(MovingAverage):
    """Exponential moving average: every iterate weighs ``ema_decay`` times what the next one does.

    With d the decay and w_t the predictor's weights after update t, the model is
    ``sum_t d^(T-t) w_t / sum_t d^(T-t)``. So the weights sum to 1 from the first update on (as in Adam, Kingma & Ba,
    2015), and a short run is not held back by the first iterate. Decay 0 is the last iterate, 1 the mean of all.
    """

    @classmethod
    def settings(cls, dataset: str) -> dict[str, HParam]:
        return {"ema_decay": HParam(0.999, about="weight of an iterate over that of the next", low=0, high=1)}

    def memory(self) -> float:
        return float(self.hparams["ema_decay"])

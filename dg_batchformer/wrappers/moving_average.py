"""SMA and EMA — Arpit et al., 2022; Tarvainen & Valpola, 2017: moving averages of the weights."""

from dg_batchformer.hparams import HParam
from dg_batchformer.wrappers.averaging import MovingAverage

__all__ = ["EMA", "SMA"]


class SMA(MovingAverage):
    """Simple moving average: the mean of all iterates after a burn-in.

    With w_t the predictor's weights after update t, and b the burn-in, the model is the mean of ``w_b ... w_T``. A run
    that ends during burn-in returns its last iterate.

    Differs from the paper: the last average is returned, not the one with the best validation accuracy.
    """

    @classmethod
    def settings(cls, dataset: str) -> dict[str, HParam]:
        return {"sma_burn_in": HParam(100, about="updates before averaging starts", low=0)}

    def memory(self) -> float:
        return 0.0 if self.updates <= self.hparams["sma_burn_in"] else 1.0


class EMA(MovingAverage):
    """Exponential moving average: the weight of every iterate is ``ema_decay`` times that of the next one.

    With d the decay and w_t the predictor's weights after update t, the model is
    ``sum_t d^(T-t) w_t / sum_t d^(T-t)``. This bias correction (as in Adam, Kingma & Ba, 2015) keeps a short run from
    being dominated by its first iterate. With decay 0, the model is the last iterate; with 1, the mean of all.
    """

    @classmethod
    def settings(cls, dataset: str) -> dict[str, HParam]:
        return {"ema_decay": HParam(0.999, about="weight of an iterate, relative to the next one", low=0, high=1)}

    def memory(self) -> float:
        return float(self.hparams["ema_decay"])

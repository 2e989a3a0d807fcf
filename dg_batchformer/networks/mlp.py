"""MLP: DomainBed's discriminators, and the featurizer for vectors."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from dg_batchformer.hparams import HParam
from dg_batchformer.networks.base import FeaturizerModule, Stage


def mlp_search_space() -> dict[str, HParam]:
    """Return the hparams of an MLP; adversarial methods redeclare them with random draws."""
    return {
        "mlp_width": HParam(256, about="width of MLP layers", low=1),
        "mlp_depth": HParam(3, about="layers of the MLP", low=2),
        "mlp_dropout": HParam(0.0, about="dropout in the MLP", low=0, high=1),
    }


class MLP(nn.Module):
    """DomainBed's multi-layer perceptron: (N, n_inputs) -> (N, n_outputs)."""

    def __init__(self, n_inputs: int, n_outputs: int, hparams: dict[str, Any]) -> None:
        super().__init__()
        width = hparams["mlp_width"]
        self.input = nn.Linear(n_inputs, width)
        self.dropout = nn.Dropout(hparams["mlp_dropout"])
        self.hiddens = nn.ModuleList(nn.Linear(width, width) for _ in range(hparams["mlp_depth"] - 2))
        self.output = nn.Linear(width, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.input, *self.hiddens):
            x = self.hidden(layer, x)
        return self.output(x)

    def hidden(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Apply a layer, dropout and ReLU."""
        return self.dropout(layer(x)).relu()


class MLPFeaturizer(FeaturizerModule, MLP):
    """An MLP as featurizer; every layer but the last is a stage."""

    sees_images = False
    keeps_grid = False

    def __init__(self, n_inputs: int, n_outputs: int, hparams: dict[str, Any]) -> None:
        super().__init__(n_inputs, n_outputs, hparams)
        self.n_outputs = n_outputs

    def stages(self) -> Mapping[str, Stage]:
        hiddens = {f"hiddens.{index}": layer for index, layer in enumerate(self.hiddens)}
        return {name: partial(self.hidden, layer) for name, layer in {"input": self.input, **hiddens}.items()}

    def head(self, maps: Tensor) -> Tensor:
        return self.output(maps)

"""What every featurizer has."""

from torch import nn


class FeaturizerModule(nn.Module):
    """A network whose output is (N, n_outputs)."""

    n_outputs: int

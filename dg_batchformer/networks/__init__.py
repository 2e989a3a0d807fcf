"""Networks: featurizers by name, the classifier, one BatchNorm policy. Names follow DomainBed."""

from dg_batchformer.networks.classifier import Classifier
from dg_batchformer.networks.featurizer import Featurizer
from dg_batchformer.networks.mlp import MLP

__all__ = ["MLP", "Classifier", "Featurizer"]

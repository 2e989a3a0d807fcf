"""Shared initial weights, which averaging the weights of several runs requires (DiWA, Rame et al., NeurIPS 2022).

The hparam ``init`` is ``none`` (every draw has its own random classifier), a file, ``linear_probe`` (the classifier is
first fitted to the features of the initial featurizer, identically for all draws of a dataset, test environments and
trial), or ``zero_shot`` (the classifier consists of CLIP's text features of the class names).
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dg_batchformer.algorithms import Algorithm, get_algorithm_class
from dg_batchformer.datasets import Dataset
from dg_batchformer.errors import InputError
from dg_batchformer.networks.backbones import backbone_for
from dg_batchformer.networks.base import FeaturizerModule
from dg_batchformer.networks.batchformer import without_batchformer
from dg_batchformer.networks.clip_models import check_templates, is_clip, zero_shot_weights
from dg_batchformer.networks.freezing import prefix_state
from dg_batchformer.networks.weights import fetch_weights, named_weights, read_state_dict
from dg_batchformer.optim.groups import featurizers
from dg_batchformer.seeds import seed_hash
from dg_batchformer.spec.names import split_name
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.safe_read import WEIGHTS, open_regular
from dg_batchformer.training.augment import normalise
from dg_batchformer.training.data_path import read_features
from dg_batchformer.training.evaluate import BATCH_SIZE
from dg_batchformer.training.loaders import Loader, Request
from dg_batchformer.training.loop import seed_everything
from dg_batchformer.training.sampling import Splits

NONE, LINEAR_PROBE, ZERO_SHOT = "none", "linear_probe", "zero_shot"
_PROBE_STEPS = 100
_PROBE_DECAY = 1e-4  # without it, the weights would diverge on separable features


def check_init(hparams: Mapping[str, Any]) -> None:
    """Raise InputError unless ``init`` is an existing file or a named one that fits the network."""
    init = hparams["init"]
    if init == ZERO_SHOT:
        _check_zero_shot(hparams)
    elif init not in (NONE, LINEAR_PROBE) and not Path(init).is_file():
        raise InputError(
            f"hparam init is {init!r}, but there is no such file; it can be a file, none, linear_probe or zero_shot"
        )


def weight_files(hparams: Mapping[str, Any], input_shape: Sequence[int]) -> dict[str, str]:
    """Return the SHA-256 of the files that the weights of a run are from, by hparam; {} if it takes none."""
    given = {name: str(hparams.get(name, NONE)) for name in ("weights", "init")}
    backbone = backbone_for(str(hparams.get("backbone", "auto")), input_shape)
    named = {"weights": [NONE, *named_weights(backbone)], "init": [NONE, LINEAR_PROBE, ZERO_SHOT]}
    files = {name: Path(value) for name, value in given.items() if value not in named[name]}
    return {name: _sha256(file, file.stat().st_mtime_ns) for name, file in files.items()}


@lru_cache(maxsize=16)
def _sha256(file: Path, changed: int) -> str:
    """Return the digest of a file, read once for all runs of a process until it changes."""
    with open_regular(file, WEIGHTS) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_zero_shot(hparams: Mapping[str, Any]) -> None:
    """Raise InputError unless the network is a CLIP whose text features can be its classifier."""
    if not is_clip(str(hparams.get("backbone"))):
        raise InputError(
            f"init zero_shot takes the text features of a CLIP, and backbone is {hparams.get('backbone')}; give a "
            "backbone such as clip/ViT-B-16-quickgelu with weights openai"
        )
    if hparams["weights"] == "none":
        raise InputError(
            "init zero_shot needs the weights of a CLIP; set weights to a tag such as openai, or to a file"
        )
    if not hparams["clip_projection"] or hparams["nonlinear_classifier"]:
        raise InputError(
            "init zero_shot compares projected features with text features; set clip_projection true and "
            "nonlinear_classifier false"
        )
    check_templates(hparams["clip_templates"])


class Initial:
    """The initial weights of a run.

    Args:
        algorithm: newly built, before its first update.

    """

    def __init__(
        self, algorithm: Algorithm, spec: RunSpec, hparams: dict[str, Any], dataset: Dataset, fingerprint: str
    ) -> None:
        self.algorithm, self.spec, self.init, self.hparams = algorithm, spec, hparams["init"], hparams
        self.classes = dataset.classes
        self.start: Algorithm | None = None
        self.state: Mapping[str, Tensor] | None = None
        self._begins: tuple[Any, ...]
        if self.init == NONE:
            self._begins = (algorithm.predictor.state_dict(),)
        elif self.init == LINEAR_PROBE:
            self.start = _common_start(spec, hparams, dataset)
            fitted_to = fingerprint, spec.train_envs, spec.trial_seed, spec.holdout_fraction
            self._begins = self.start.predictor.state_dict(), *fitted_to
        elif self.init == ZERO_SHOT:
            check_init(hparams)
            self._begins = (algorithm.predictor.state_dict(), *self.classes, hparams["clip_templates"])
        else:
            self.state = read_state_dict(Path(self.init))
            self._begins = (self.state,)

    def identity(self) -> str:
        """Return a digest that is equal for runs with equal initial weights, on any machine; call before training.

        Hashes the initial weights; for ``linear_probe``, those before the probe, and the data that it is fitted to.
        """
        return _digest(*self._begins)

    def apply(self, loader: Loader, splits: Splits, device: torch.device) -> None:
        """Load the initial weights into the algorithm; raise InputError if a file does not fit."""
        if self.start is not None:
            self.state = self._probed(self.start.to(device), loader, splits, device)
        if self.init == ZERO_SHOT:
            self.state = self._zero_shot()
        if self.state is None:
            return
        cached = _frozen(self.algorithm) if self.spec.data_path == "features" else []
        try:
            self.algorithm.begin_from(self.state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"init {self.init} does not fit {self.spec.method}: {reason}") from None
        if cached and not all(map(torch.equal, cached, _frozen(self.algorithm))):
            raise InputError(
                f"init {self.init} has other weights in the frozen part of the network than weights "
                f"{self.hparams['weights']}, of which features are cached; set data_path cached"
            )

    def _zero_shot(self) -> Mapping[str, Tensor]:
        """Return the state of the predictor with text features as classifier, of CLIP's scale of logits."""
        backbone, weights = self.hparams["backbone"], self.hparams["weights"]
        predictor = without_batchformer(self.algorithm.predictor)
        if not (isinstance(predictor, nn.Sequential) and isinstance(predictor[-1], nn.Linear)):
            raise InputError(
                f"init zero_shot needs a linear classifier on the features of an image alone, which "
                f"{self.spec.method} has not; give a file as init, or none"
            )
        file = fetch_weights(backbone, weights)
        assert file is not None
        templates = check_templates(self.hparams["clip_templates"])
        try:
            rows = zero_shot_weights(backbone, read_state_dict(file), self.classes, templates)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"{file} has no text tower that fits backbone {backbone}: {reason}") from None
        last = len(predictor) - 1
        own = {f"{last}.weight": rows, f"{last}.bias": torch.zeros(len(rows))}
        return {**predictor.state_dict(), **own}

    def _probed(self, start: Algorithm, loader: Loader, splits: Splits, device: torch.device) -> Mapping[str, Tensor]:
        """Fit the classifier to the features of all training images, without augmentation."""
        predictor = start.predictor
        assert isinstance(predictor, nn.Sequential)
        start.eval()
        indices = [(env, splits[env, "in"]) for env in self.spec.train_envs]
        requests = [
            Request(env, of_env[begin : begin + BATCH_SIZE])
            for env, of_env in indices
            for begin in range(0, len(of_env), BATCH_SIZE)
        ]
        features, labels = [], []
        with torch.no_grad():
            for [batch] in loader.stream([request] for request in requests):
                features.append(predictor[:-1](normalise(batch.images.to(device))))
                labels.append(batch.labels.to(device))
        fit_classifier(predictor[-1], torch.cat(features), torch.cat(labels))
        return predictor.state_dict()


def _frozen(algorithm: Algorithm) -> list[Tensor]:
    """Return copies of the parameters and buffers in the frozen prefixes of an algorithm."""
    prefixes = map(prefix_state, featurizers(algorithm))
    return [tensor.clone() for prefix in prefixes for tensor in prefix.values()]


def fit_classifier(classifier: nn.Module, features: Tensor, labels: Tensor) -> None:
    """Fit a classifier to features (N, width) and labels (N,) by L-BFGS, with weight decay."""
    weights = list(classifier.parameters())
    optimizer = torch.optim.LBFGS(weights, max_iter=_PROBE_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        decay = sum(weight.square().sum() for weight in weights)
        loss = F.cross_entropy(classifier(features), labels) + _PROBE_DECAY * decay
        loss.backward()
        return loss

    optimizer.step(closure)


def _common_start(spec: RunSpec, hparams: dict[str, Any], dataset: Dataset) -> Algorithm:
    """Build the algorithm without its wrappers, from a seed shared by all draws of a trial."""
    base, _ = split_name(spec.algorithm)
    seed_everything(seed_hash("linear_probe", spec.dataset, list(spec.test_envs), spec.trial_seed))
    plain = {name: value for name, value in hparams.items() if not name.startswith("bf_")}
    start = get_algorithm_class(base)(dataset.input_shape, dataset.num_classes, len(spec.train_envs), plain)
    predictor = start.predictor
    if not (isinstance(predictor, nn.Sequential) and isinstance(predictor[0], FeaturizerModule)):
        raise InputError(
            f"init linear_probe needs a classifier on the features of single images, which {base} does not have; set "
            "init to a file or none"
        )
    if spec.data_path == "features":
        read_features(start)
    return start


def _digest(state: Mapping[str, Tensor], *more: object) -> str:
    digest = hashlib.sha256(repr(more).encode())
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]

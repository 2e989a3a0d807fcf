"""Evaluation: accuracy and loss on splits; does not affect the random generators of training."""

from collections.abc import Generator, Iterator, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dg_batchformer.algorithms.base import Algorithm, Validation
from dg_batchformer.seeds import seed_hash
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.training.compute_mode import is_compiled
from dg_batchformer.training.faults import is_out_of_memory
from dg_batchformer.training.loaders import Loader, Request, on_device
from dg_batchformer.training.run_log import log
from dg_batchformer.training.sampling import Splits, evaluated_splits
from dg_batchformer.training.thinning import Split

BATCH_SIZE = 64  # as in DomainBed; always used for algorithms whose predictions depend on the batch
_GPU_BATCH_SIZE = 512


class Evaluation(NamedTuple):
    """Accuracy in [0, 1] and mean cross-entropy, by (env, split).

    ``by_class`` is the accuracy on every class, None for classes without images; empty unless the run has an imbalance.
    """

    accuracy: dict[Split, float]
    loss: dict[Split, float]
    by_class: dict[Split, list[float | None]]

    def validation(self, train_envs: Sequence[int]) -> Validation:
        """Average over the held-out splits of the training environments, unweighted."""
        held_out = [(env, "out") for env in train_envs]
        return Validation(
            fmean(self.loss[split] for split in held_out), fmean(self.accuracy[split] for split in held_out)
        )


class Evaluator:
    """Evaluates an algorithm on the splits of a run.

    Args:
        splits: indices by (env, split), in the order of evaluation.
        augmented: splits with augmented images, as DomainBed does for training environments.

    """

    def __init__(
        self,
        spec: RunSpec,
        loader: Loader,
        splits: dict[Split, list[int]],
        device: torch.device,
        augmented: Sequence[Split] = (),
    ) -> None:
        self.spec = spec
        self.loader = loader
        self.splits = splits
        self.device = device
        self.augmented = augmented
        self.batch_size = _GPU_BATCH_SIZE if device.type == "cuda" else BATCH_SIZE

    def __call__(self, algorithm: nn.Module, step: int) -> Evaluation:
        """Evaluate all splits; ``step`` seeds augmentation, if any."""
        return self._evaluate(algorithm, step, list(self.splits))

    def validate(self, algorithm: nn.Module, step: int) -> Validation:
        """Evaluate only the held-out splits of the training environments."""
        held_out = [(env, "out") for env in self.spec.train_envs]
        return self._evaluate(algorithm, step, held_out).validation(self.spec.train_envs)

    def _evaluate(self, algorithm: nn.Module, step: int, splits: list[Split]) -> Evaluation:
        correct = {split: torch.zeros((), dtype=torch.long, device=self.device) for split in splits}
        loss = {split: torch.zeros((), dtype=torch.double, device=self.device) for split in splits}
        classes: dict[Split, list[Tensor]] = {split: [] for split in splits if self.spec.imbalance is not None}
        for split, logits, y in self.outputs(algorithm, step, splits):
            is_correct = logits.argmax(dim=1) == y
            correct[split] += is_correct.sum()
            loss[split] += F.cross_entropy(logits, y, reduction="sum")
            if split in classes:
                labels = F.one_hot(y, logits.shape[1])
                classes[split].append(torch.stack([labels[is_correct].sum(dim=0), labels.sum(dim=0)]))
        sizes = {split: len(self.splits[split]) for split in splits}
        return Evaluation(
            {split: correct[split].item() / sizes[split] for split in splits},
            {split: loss[split].item() / sizes[split] for split in splits},
            {split: _accuracies(torch.stack(counts).sum(dim=0)) for split, counts in classes.items()},
        )

    @torch.no_grad()
    def outputs(
        self, algorithm: nn.Module, step: int, splits: Sequence[Split]
    ) -> Iterator[tuple[Split, Tensor, Tensor]]:
        """Yield (split, logits (n, num_classes), labels (n,)) in batches, in the order of the splits' indices.

        After an OOM, the batch size is halved permanently, unless predictions depend on it.
        """
        assert isinstance(algorithm, Algorithm)
        algorithm.eval()
        left = {split: self.splits[split] for split in splits}
        while not (yield from self._until_memory_runs_out(algorithm, step, left)):
            self.batch_size //= 2
            log.info("evaluation ran out of memory and continues with batches of %d", self.batch_size)
        algorithm.train()

    def _until_memory_runs_out(
        self, algorithm: Algorithm, step: int, left: dict[Split, list[int]]
    ) -> Generator[tuple[Split, Tensor, Tensor], None, bool]:
        """Yield outputs and remove their indices from ``left``; return false after an OOM."""
        size = BATCH_SIZE if algorithm.batch_dependent else self.batch_size
        try:
            for split, x, y in self._batches(step, left, size):
                yield split, _predict(algorithm, x, size), y
                left[split] = left[split][len(y) :]
        except Exception as error:
            if algorithm.batch_dependent or size == 1 or not is_out_of_memory(error):
                raise
            return False  # returning frees the tensors of this frame
        return True

    def _batches(self, step: int, indices: dict[Split, list[int]], size: int) -> Iterator[tuple[Split, Tensor, Tensor]]:
        requests = [
            (split, self._request(split, of_split[start : start + size], step))
            for split, of_split in indices.items()
            for start in range(0, len(of_split), size)
        ]
        loaded = self.loader.stream([request] for _, request in requests)
        for (split, _), batches in zip(requests, loaded, strict=True):
            [(x, y)] = on_device(batches, self.device)
            yield split, x, y

    def _request(self, split: Split, indices: list[int], step: int) -> Request:
        env, _ = split
        if split not in self.augmented:
            return Request(env, indices)
        return Request(env, indices, [seed_hash(self.spec.seed, "validation", step, env, index) for index in indices])


def build_evaluator(
    spec: RunSpec, hparams: dict[str, Any], loader: Loader, splits: Splits, device: torch.device
) -> Evaluator:
    """Build the evaluator of a run, with augmented validation images if its hparams ask for that."""
    augments = hparams.get("data_augmentation", False) and hparams.get("val_augment", False)
    augmented = [(env, part) for env, part in splits if env in spec.train_envs] if augments else []
    return Evaluator(spec, loader, evaluated_splits(spec, splits), device, augmented)


def _predict(algorithm: Algorithm, x: Tensor, size: int) -> Tensor:
    """Compute logits of up to ``size`` rows; compiled networks get zeros beside fewer rows, so that shapes stay."""
    if algorithm.batch_dependent or not is_compiled(algorithm):
        return algorithm.predict(x)
    beyond = [0, 0] * (x.ndim - 1) + [0, size - len(x)]
    return algorithm.predict(F.pad(x, beyond))[: len(x)]


def _accuracies(counts: Tensor) -> list[float | None]:
    """Compute the accuracy on every class from its numbers of correct and of all samples, (2, num_classes)."""
    return [correct / number if number else None for correct, number in counts.T.tolist()]

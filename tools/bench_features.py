#!/usr/bin/env python3
"""Measure cached features: tools/bench_features.py [--data_dir DIR] [--parts build step]

  build  computing the feature cache from the pixel cache: images/s, against the bare frozen network on one batch that
         is in memory, eager and compiled
  step   an ERM step on cached features, against a bare PyTorch loop that trains a linear classifier on the same
         features with the same optimizer, in turns, with one thread, as a worker of a sweep has
EfficientNet-Lite0 at 224 px, frozen to its pooled features, with random weights, which cost the same as trained ones.
Without --data_dir, 1,344 JPEG files of mixed sizes are made. Results are printed as Markdown.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from bench_train import Ratios, Trained, make_images, run_process, say_machine
from torch import Tensor, nn
from torch.nn import functional as F

from dg_batchformer.datasets import Dataset, get_dataset_class
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.networks import Featurizer
from dg_batchformer.networks.efficientnet_lite import EfficientNetLite
from dg_batchformer.spec.run import RunRequest, RunSpec
from dg_batchformer.training.data_path import open_loader
from dg_batchformer.training.feature_cache import FeatureLoader, num_rows
from dg_batchformer.training.run_log import Watcher

BACKBONE = "efficientnet_lite0"
BATCH = 64
_STEPS = 200  # of a turn
CPU = torch.device("cpu")
PARTS = ("build", "step")


def main() -> None:
    """Measure the requested parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, metavar="DIR", help="holds PACS/ (default: generated images)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--views", type=int, default=4, metavar="N", help="augmented views (default: 4)")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="turns of what is short (default: 9)")
    options = parser.parse_args()
    say_machine(CPU)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # so that nothing is cached yet
        bench = Bench(options, Path(folder))
        for part in options.parts:
            getattr(bench, part)()


class Bench:
    """A run on cached features, and the same work without the suite."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.rounds: int = options.rounds
        data_dir: Path = options.data_dir or make_images(folder / "data")
        self.dataset: Dataset = get_dataset_class("PACS")(data_dir, [3], {"image_size": 224})
        weights = folder / "weights.pth"
        torch.save(EfficientNetLite(BACKBONE, (3, 224, 224), 0.0).network.state_dict(), weights)
        hparams = {"weights": str(weights), "feature_views": options.views}
        asked = {"protocol": "laptop", "data_path": "features", "test_envs": (3,), "hparams": hparams}
        self.spec: RunSpec = RunRequest(dataset="PACS", algorithm="ERM", **asked).resolve()
        self.hparams = resolve_hparams(self.spec)
        self.rows = num_rows(self.dataset, options.views)
        self._fill_pixel_cache(data_dir, folder / "pixels.log")

    def build(self) -> None:
        """Time the computation of the cache, and of the network alone."""
        began = time.perf_counter()
        self._open()
        ours = self.rows / (time.perf_counter() - began)
        featurizer = Featurizer((3, 224, 224), self.hparams, attends=False).eval()
        compiled = torch.compile(featurizer.cacheable, dynamic=False, options={"freezing": True})
        images = torch.randn(BATCH, 3, 224, 224)
        print(f"\n### Building: {self.rows:,} rows\n")
        print(f"* the feature cache, reading and augmenting included: {ours:.1f} images/s", flush=True)
        with torch.no_grad():
            for name, network in (("eager", featurizer.cacheable), ("compiled", compiled)):
                bare = BATCH / self._median(lambda network=network: network(images))
                print(f"* the bare network, {name}: {bare:.1f} images/s, of which building reaches {ours / bare:.0%}")

    def step(self) -> None:
        """Compare steps with a bare loop's."""
        torch.set_num_threads(1)
        loader = self._open()
        trained = Trained(self.spec, self.dataset, loader, CPU)
        bare = bare_loop(loader, sum(map(len, self.dataset)), self.hparams["lr"], self.hparams["weight_decay"])
        floor, own = (lambda: next(bare)), trained.step
        floor(), own()
        turns = [(self._once(floor, _STEPS), self._once(own, _STEPS)) for _ in range(self.rounds)]
        ratios = [one / other for one, other in turns]
        found = Ratios(statistics.median(ratios), min(ratios), max(ratios))
        bare_speed, speed = (_STEPS / statistics.median(seconds) for seconds in zip(*turns, strict=True))
        width = loader.features.rows.shape[1]
        print(f"\n### A step of ERM: 3 x {self.hparams['batch_size']} features of width {width}\n")
        print(f"* {speed:.0f} steps/s; a bare loop has {bare_speed:.0f}")
        print(f"* {found.median:.0%} of the speed of a bare loop (turns: {found.low:.0%} to {found.high:.0%})")

    def _open(self) -> FeatureLoader:
        loader = open_loader(self.spec, self.hparams, self.dataset, CPU, Watcher())
        assert isinstance(loader, FeatureLoader)
        return loader

    def _median(self, call: Callable[[], object]) -> float:
        call()
        return statistics.median(self._once(call, 1) for _ in range(self.rounds))

    def _once(self, call: Callable[[], object], times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            call()
        return time.perf_counter() - began

    def _fill_pixel_cache(self, data_dir: Path, log: Path) -> None:
        run_process([sys.executable, "-m", "dg_batchformer", "data", "cache", "PACS", "--data_dir", str(data_dir)], log)


def bare_loop(loader: FeatureLoader, images: int, lr: float, decay: float) -> Iterator[Tensor]:
    """Train a linear classifier on random rows, as one would without any suite; yield the loss of every step."""
    features = loader.features.rows
    labels = loader.positions.labels.repeat(len(features) // images)
    classifier = nn.Linear(features.shape[1], int(labels.max()) + 1)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=lr, weight_decay=decay)
    while True:
        places = torch.randint(len(features), (3 * 32,))
        loss = F.cross_entropy(classifier(features[places].float()), labels[places])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss


if __name__ == "__main__":
    main()

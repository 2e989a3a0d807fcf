"""Digits-DG — Zhou et al., 2020: 600 images per digit from each of MNIST, MNIST-M, SVHN and SYN, 32 px."""

from collections import defaultdict
from pathlib import Path

from dg_batchformer.datasets.folders import FilesByClass, ImageFolders

_PARTS = ("train", "val")


class DigitsDG(ImageFolders):
    """Four digit benchmarks. Their folders train and val are pooled, and split anew in every trial."""

    def find(self, root: Path | None) -> FilesByClass:
        folder = self.folder(root, [f"{name}/{part}" for name in self.facts.names for part in _PARTS])
        return {name: self._pooled(folder / name) for name in self.facts.names}

    def _pooled(self, environment: Path) -> dict[str, list[Path]]:
        pooled: dict[str, list[Path]] = defaultdict(list)
        for part in _PARTS:
            for kind, files in self.read_classes(environment / part).items():
                pooled[kind] += files
        return pooled

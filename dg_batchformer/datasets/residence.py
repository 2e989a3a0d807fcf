"""Keep planes of the pixel cache on the GPU, up to a quarter of its memory over all workers."""

from collections.abc import Sequence
from weakref import WeakSet

import torch

from dg_batchformer.datasets.pixels import Plane

_SHARE = 4  # planes may use 1 / _SHARE of the GPU's memory


class Residence:
    """The planes that this process keeps on its GPU.

    Attributes:
        workers: number of processes on the same GPU, including this one; they share the memory for planes.

    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self._planes: WeakSet[Plane] = WeakSet()
        self._is_open = True

    def hold(self, planes: Sequence[Plane], device: torch.device) -> None:
        """Copy the planes of a run to its GPU, as far as they fit; evict planes of earlier runs if needed."""
        if device.type != "cuda" or not self._is_open:
            return
        free, total = torch.cuda.mem_get_info(device)
        room = total // _SHARE // self.workers
        if sum(plane.num_bytes for plane in {*planes, *self._planes}) > room:
            self._release(set(self._planes) - set(planes))
        for plane in planes:
            taken = sum(held.num_bytes for held in self._planes)
            if plane.resident is None and taken + plane.num_bytes <= room and plane.num_bytes < free // 2:
                self._copy(plane, device)
                free -= plane.num_bytes

    def give_up(self) -> bool:
        """Release all planes for good, after an OOM; return whether there were any."""
        had_planes = bool(self._planes)
        self._is_open = False
        self._release(set(self._planes))
        return had_planes

    def _copy(self, plane: Plane, device: torch.device) -> None:
        try:
            plane.copy_to(device)
        except torch.OutOfMemoryError:  # another process took the memory: read the plane from its file
            return
        self._planes.add(plane)

    def _release(self, planes: set[Plane]) -> None:
        for plane in planes:
            plane.resident = None
            self._planes.discard(plane)


RESIDENCE = Residence()
"""The planes of this process."""

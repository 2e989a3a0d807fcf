"""Which planes of the pixel cache are held on GPUs: as many as fit into a quarter of a card, over all its workers."""

from collections.abc import Sequence
from weakref import WeakSet

import torch

from dg_batchformer.datasets.pixels import Plane

_SHARE = 4  # of a card's memory: planes may take one part in so many


class Residence:
    """The planes that this process holds on its GPU.

    Attributes:
        workers: processes on the same card, this one included; they share what planes may take.

    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self._planes: WeakSet[Plane] = WeakSet()
        self._is_open = True

    def hold(self, planes: Sequence[Plane], device: torch.device) -> None:
        """Copy the planes of a run to its GPU, as far as they fit; planes of earlier runs make room."""
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
        """Release all planes, and hold none from here on, since memory ran out; return whether there were any."""
        had_planes = bool(self._planes)
        self._is_open = False
        self._release(set(self._planes))
        return had_planes

    def _copy(self, plane: Plane, device: torch.device) -> None:
        try:
            plane.copy_to(device)
        except torch.OutOfMemoryError:  # another process was faster: the plane is read from its file
            return
        self._planes.add(plane)

    def _release(self, planes: set[Plane]) -> None:
        for plane in planes:
            plane.resident = None
            self._planes.discard(plane)


RESIDENCE = Residence()
"""Of this process."""

"""Spawrious — Lynch et al., 2023: dog breeds whose backgrounds correlate with the class in training, but not in Test.

O2O: each breed has one background, except for a few images on a background shared by all breeds. M2M: pairs of breeds
swap pairs of backgrounds. The files are in ``group/place/breed``. Differences from DomainBed: partially used folders
contribute their first files by name (DomainBed: in directory order), and augmentation includes random crops.
"""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from dg_batchformer.datasets.folders import FilesByClass, ImageFolders

_BREEDS = ("bulldog", "dachshund", "labrador", "corgi")  # in the order of places
_IN_FOLDER = 3168
_AT_HOME = (int(0.97 * _IN_FOLDER), int(0.87 * _IN_FOLDER))  # images on a breed's own background, by O2O group
_SWAPPED = (1, 0, 3, 2)  # by breed, the breed whose background it has in the second group of M2M


class _Part(NamedTuple):
    """The images of a folder in an environment: the first ``most`` by name, or all."""

    folder: str
    breed: str
    most: int | None = None


class _Spawrious(ImageFolders):
    """Environments Test, SC_group_1, SC_group_2, 4 classes.

    Attributes:
        places: backgrounds of the breeds in training. tests: in Test.

    """

    registered = False
    places: ClassVar[Sequence[str]]
    tests: ClassVar[Sequence[str]]

    def __init__(self, root: Path | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        super().__init__(root, test_envs, hparams)
        if list(test_envs) != [0]:
            self.notes.append(f"{self.facts.name} is designed to be tested on Test; other results mean little")

    @abstractmethod
    def parts(self, env: int) -> Iterable[_Part]:
        """Return the parts of an environment."""

    def find(self, root: Path | None) -> FilesByClass:
        parts = {name: list(self.parts(env)) for env, name in enumerate(self.facts.names)}
        names = sorted({part.folder for of_env in parts.values() for part in of_env})
        folder = self.folder(root, names)
        there = {name: self.read_classes(folder / name) for name in names}
        found: FilesByClass = {name: defaultdict(list) for name in parts}
        for name, of_env in parts.items():
            for part in of_env:
                found[name][part.breed] += there[part.folder].get(part.breed, [])[: part.most]
        return found


class _O2O(_Spawrious):
    """One background per breed.

    Attributes:
        elsewhere: the background shared by all breeds.

    """

    registered = False
    elsewhere: ClassVar[str]

    def parts(self, env: int) -> Iterable[_Part]:
        if env == 0:
            yield from (
                _Part(f"{group}/{place}", breed)
                for group in (0, 1)
                for breed, place in zip(_BREEDS, self.tests, strict=True)
            )
            return
        group, most = env - 1, _AT_HOME[env - 1]
        for breed, place in zip(_BREEDS, self.places, strict=True):
            yield _Part(f"{group}/{place}", breed, most)
            yield _Part(f"{group}/{self.elsewhere}", breed, _IN_FOLDER - most)


class _M2M(_Spawrious):
    registered = False

    def parts(self, env: int) -> Iterable[_Part]:
        places = self.places if env else self.tests
        swapped = [places[other] for other in _SWAPPED]
        for taken in {0: (places, swapped), 1: (places,), 2: (swapped,)}[env]:
            yield from (_Part(f"0/{place}", breed) for breed, place in zip(_BREEDS, taken, strict=True))


class SpawriousO2O_easy(_O2O):  # noqa: N801
    """One place for each breed, easy."""

    places, tests, elsewhere = ("desert", "jungle", "dirt", "snow"), ("dirt", "snow", "desert", "jungle"), "beach"


class SpawriousO2O_medium(_O2O):  # noqa: N801
    """One place for each breed, medium."""

    places, tests, elsewhere = ("mountain", "beach", "dirt", "jungle"), ("jungle", "dirt", "beach", "snow"), "desert"


class SpawriousO2O_hard(_O2O):  # noqa: N801
    """One place for each breed, hard."""

    places, tests, elsewhere = (
        ("jungle", "mountain", "snow", "desert"),
        ("mountain", "snow", "desert", "jungle"),
        "beach",
    )


class SpawriousM2M_easy(_M2M):  # noqa: N801
    """Two places for two breeds, easy."""

    places, tests = ("desert", "mountain", "dirt", "jungle"), ("dirt", "jungle", "mountain", "desert")


class SpawriousM2M_medium(_M2M):  # noqa: N801
    """Two places for two breeds, medium."""

    places, tests = ("beach", "snow", "mountain", "desert"), ("desert", "mountain", "beach", "snow")


class SpawriousM2M_hard(_M2M):  # noqa: N801
    """Two places for two breeds, hard."""

    places, tests = ("dirt", "jungle", "snow", "beach"), ("snow", "beach", "dirt", "jungle")

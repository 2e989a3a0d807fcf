"""Facts of the field: datasets with their environments and folders, and the row and column order of tables."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dg_batchformer.catalog.installed import installed_names, load_installed
from dg_batchformer.errors import InputError, unknown
from dg_batchformer.text.spelling import folded, is_number, one_form

_INDEX = re.compile(r"-?[0-9]+")


@dataclass(frozen=True)
class DatasetFacts:
    """Facts of a dataset that are known without reading its files.

    Args:
        labels: DomainBed's short names of the environments, in the order of ``env`` indices.
        names: full names of the environments, which are also their folders on disk.
        folder: folder in ``--data_dir``; '' for built-in data.
        layout: structure of the files in it.
        shape: of one input, (channels, height, width) or (features,), as in DomainBed.
        checkpoint_freq: DomainBed's number of steps between evaluations.
        small: DomainBed's "small images": other learning rates and batch sizes.

    """

    name: str
    about: str
    labels: tuple[str, ...]
    names: tuple[str, ...]
    folder: str = ""
    layout: str = "<environment>/<class>/<image>"
    shape: tuple[int, ...] = (3, 224, 224)
    num_classes: int | None = None
    checkpoint_freq: int = 300
    small: bool = False

    @property
    def is_photographs(self) -> bool:
        """Whether the images have the 224 pixels that pretrained networks expect."""
        return self.shape[-2:] == (224, 224)

    def environment_index(self, given: object) -> int:
        """Return the index of an environment given by index, name or short name.

        Text that matches no name may be an index. If the environments of a custom dataset have numeric names, a number
        is always a name, so that a typo cannot select another environment.
        Raises InputError for anything else.
        """
        if isinstance(given, int) and not isinstance(given, bool):
            return self._in_range(given)
        text = str(given)
        for form in (str, one_form, folded):
            found = [env for env, spellings in enumerate(self._spellings) if form(text) in map(form, spellings)]
            if len(found) > 1:
                twins = " or ".join(repr(self.names[env]) for env in found)
                raise InputError(f"environment {text!r} of {self.name} is ambiguous: {twins}; give the exact name")
            if found:
                return found[0]
        if _INDEX.fullmatch(text) and self.is_indexed:
            return self._in_range(int(text))
        allowed = self._indexed_names if self.is_indexed else f"{', '.join(self.names)}; a number is a name here"
        raise unknown(f"environment of {self.name}", given, dict.fromkeys([*self.names, *self.labels]), see=allowed)

    def typed(self, env: int) -> str:
        """Return how to give an environment on the command line: its index, or its name if names are numeric."""
        return str(env) if self.is_indexed and str(env) not in self.labels else self.names[env]

    @property
    def is_indexed(self) -> bool:
        """Whether an environment may be given by its index, as in DomainBed."""
        return self.name in DATASETS or not any(map(is_number, self.names))

    @property
    def _spellings(self) -> list[tuple[str, str]]:
        return list(zip(self.labels, self.names, strict=True))

    @property
    def _indexed_names(self) -> str:
        return ", ".join(f"{env} {name}" for env, name in enumerate(self.names))

    def _in_range(self, env: int) -> int:
        if 0 <= env < len(self.names):
            return env
        raise InputError(f"environment {env} is out of range: {self.name} has {self._indexed_names}")


def _folders(
    name: str, folder: str, about: str, classes: int | None, pairs: dict[str, str], freq: int = 300
) -> DatasetFacts:
    labels, names = tuple(pairs), tuple(pairs.values())
    return DatasetFacts(name, about, labels, names, folder, num_classes=classes, checkpoint_freq=freq)


def _spawrious(kind: str, level: str) -> DatasetFacts:
    correlated = {"O2O": "a place for each breed", "M2M": "two places for two breeds"}[kind]
    return DatasetFacts(
        f"Spawrious{kind}_{level}",
        f"dog breeds with spurious backgrounds, {correlated}, {level} (Lynch et al., 2023); test on Test",
        labels=("Test", "SC_group_1", "SC_group_2"),
        names=("Test", "SC_group_1", "SC_group_2"),
        folder="spawrious224",
        layout="<group>/<place>/<class>/<image>",
        num_classes=4,
        checkpoint_freq=100,
    )


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_OURS = (
    DatasetFacts(
        "Shapes",
        "built in: drawn shapes in four styles, 32 px",
        labels=("photo", "painting", "cartoon", "sketch"),
        names=("photo", "painting", "cartoon", "sketch"),
        shape=(3, 32, 32),
        num_classes=7,
        checkpoint_freq=100,
        small=True,
    ),
    DatasetFacts(
        "Toy",
        "built in: vectors with a stable and a spurious feature, for tests",
        labels=("A", "B", "C", "D"),
        names=("A", "B", "C", "D"),
        shape=(8,),
        num_classes=3,
        checkpoint_freq=100,
        small=True,
    ),
)

# In the order of DomainBed's tables.
_DOMAINBED = (
    DatasetFacts(
        "Debug28",
        "built in: random tensors, 28 px, for tests",
        labels=("0", "1", "2"),
        names=("0", "1", "2"),
        shape=(3, 28, 28),
        num_classes=2,
        checkpoint_freq=100,
        small=True,
    ),
    DatasetFacts(
        "Debug224",
        "built in: random tensors, 224 px, for tests",
        labels=("0", "1", "2"),
        names=("0", "1", "2"),
        num_classes=2,
        checkpoint_freq=100,
    ),
    DatasetFacts(
        "ColoredMNIST",
        "MNIST with colors that correlate with the label (Arjovsky et al., 2019)",
        labels=("+90%", "+80%", "-90%"),
        names=("+90%", "+80%", "-90%"),
        folder="MNIST",
        layout="raw/<the four files of MNIST>",
        shape=(2, 28, 28),
        num_classes=2,
        checkpoint_freq=100,
        small=True,
    ),
    DatasetFacts(
        "RotatedMNIST",
        "MNIST rotated by a fixed angle per environment (Ghifary et al., 2015)",
        labels=("0", "15", "30", "45", "60", "75"),
        names=("0", "15", "30", "45", "60", "75"),
        folder="MNIST",
        layout="raw/<the four files of MNIST>",
        shape=(1, 28, 28),
        num_classes=10,
        checkpoint_freq=100,
        small=True,
    ),
    _folders(
        "VLCS",
        "VLCS",
        "photographs of four benchmarks (Fang et al., 2013)",
        5,
        {"C": "Caltech101", "L": "LabelMe", "S": "SUN09", "V": "VOC2007"},
    ),
    _folders(
        "PACS",
        "PACS",
        "photos, art, cartoons, sketches (Li et al., 2017)",
        7,
        {"A": "art_painting", "C": "cartoon", "P": "photo", "S": "sketch"},
    ),
    _folders(
        "OfficeHome",
        "office_home",
        "office and home objects in four styles (Venkateswara et al., 2017)",
        65,
        {"A": "Art", "C": "Clipart", "P": "Product", "R": "Real World"},
    ),
    _folders(
        "TerraIncognita",
        "terra_incognita",
        "camera traps at four locations (Beery et al., 2018)",
        10,
        {"L100": "location_100", "L38": "location_38", "L43": "location_43", "L46": "location_46"},
    ),
    _folders(
        "DomainNet",
        "domain_net",
        "six styles, 345 classes (Peng et al., 2019)",
        345,
        {
            "clip": "clipart",
            "info": "infograph",
            "paint": "painting",
            "quick": "quickdraw",
            "real": "real",
            "sketch": "sketch",
        },
        1000,
    ),
    _folders(
        "SVIRO",
        "sviro",
        "rear seats of ten cars (Dias Da Cruz et al., 2020)",
        None,
        _same("aclass", "escape", "hilux", "i3", "lexus", "tesla", "tiguan", "tucson", "x5", "zoe"),
    ),
    DatasetFacts(
        "WILDSCamelyon",
        "lymph node tissue of five hospitals (Koh et al., 2021); needs the wilds package",
        labels=tuple(f"hospital_{number}" for number in range(5)),
        names=tuple(f"hospital_{number}" for number in range(5)),
        folder="camelyon17_v1.0",
        layout="<as the wilds package downloads it>",
        num_classes=2,
        checkpoint_freq=100,
    ),
    DatasetFacts(
        "WILDSFMoW",
        "land use from satellites in six regions (Koh et al., 2021); needs the wilds package",
        labels=tuple(f"region_{number}" for number in range(6)),
        names=tuple(f"region_{number}" for number in range(6)),
        folder="fmow_v1.1",
        layout="<as the wilds package downloads it>",
        num_classes=62,
        checkpoint_freq=100,
    ),
    _spawrious("O2O", "easy"),
    _spawrious("O2O", "medium"),
    _spawrious("O2O", "hard"),
    _spawrious("M2M", "easy"),
    _spawrious("M2M", "medium"),
    _spawrious("M2M", "hard"),
)

_FURTHER = (
    DatasetFacts(
        "DigitsDG",
        "digits of four benchmarks, 32 px (Zhou et al., 2020)",
        labels=("mnist", "mnist_m", "svhn", "syn"),
        names=("mnist", "mnist_m", "svhn", "syn"),
        folder="digits_dg",
        layout="<environment>/train or val/<class>/<image>",
        shape=(3, 32, 32),
        num_classes=10,
        checkpoint_freq=100,
        small=True,
    ),
    _folders(
        "NICOpp",
        "NICO++",
        "NICO++: 60 classes in six contexts (Zhang et al., 2023)",
        60,
        _same("autumn", "dim", "grass", "outdoor", "rock", "water"),
    ),
    _folders(
        "Office31",
        "office31",
        "office objects in three settings (Saenko et al., 2010)",
        31,
        {"A": "amazon", "D": "dslr", "W": "webcam"},
        100,
    ),
    _folders(
        "OfficeCaltech10",
        "OfficeCaltech10",
        "the classes that Office-31 and Caltech-256 share (Gong et al., 2012)",
        10,
        {"A": "amazon", "C": "caltech10", "D": "dslr", "W": "webcam"},
        100,
    ),
)

# In the order of tables.
DATASETS: dict[str, DatasetFacts] = {facts.name: facts for facts in (*_OURS, *_DOMAINBED, *_FURTHER)}

_added: set[str] = set()  # names of datasets of plug-ins


def add_dataset(facts: DatasetFacts) -> None:
    """Make the dataset of a plug-in known."""
    DATASETS[facts.name] = facts
    _added.add(facts.name)


def added_environments(name: str) -> tuple[str, ...]:
    """Return the environments of a plug-in's dataset, which its runs record to be read without it; else ()."""
    return DATASETS[name].names if name in _added else ()


# The datasets of DomainBed's tables, in their order.
DOMAINBED_DATASETS = tuple(facts.name for facts in _DOMAINBED)

# The row order of DomainBed's tables; other algorithms come after them.
DOMAINBED_ORDER = (
    "ERM", "ERMPlusPlus", "Fish", "IRM", "GroupDRO", "Mixup", "MLDG", "CORAL", "MMD", "DANN", "CDANN", "MTL",
    "SagNet", "ARM", "VREx", "RSC", "SD", "ANDMask", "SANDMask", "IGA", "SelfReg", "Fishr", "TRM", "IB_ERM",
    "IB_IRM", "CAD", "CondCAD", "Transfer", "CausIRL_CORAL", "CausIRL_MMD", "EQRM", "RDM", "ADRMX", "URM",
)  # fmt: skip

# Names of selection methods, here so that sweep files can be checked without importing them. The first is the default.
SELECTION_NAMES = (
    "training-domain",
    "leave-one-domain-out",
    "oracle",
    "swad-iid",
    "swad-last",
    "swad-oracle",
    "swad-averaged",
    "auto-lr",
)

# DomainBed's networks for small images, by image size in pixels; other images use ResNet-50.
SMALL_BACKBONES = {28: "mnist_cnn", 32: "wrn16_2"}


def is_dataset(name: str) -> bool:
    """Return whether a name is in the catalog, to which an installed package of that name is added."""
    return name in DATASETS or load_installed("datasets", name)


def dataset_facts(name: str, environments: Sequence[str] = ()) -> DatasetFacts:
    """Return the facts of a dataset; raise InputError for an unknown name.

    Args:
        environments: names of the environments of a dataset that is not in the catalog, as its runs record them. It is
            assumed to hold photographs, and no package is imported.

    """
    if name in DATASETS:
        return DATASETS[name]
    if not environments:
        if is_dataset(name):
            return DATASETS[name]
        raise unknown("dataset", name, [*DATASETS, *installed_names("datasets")])
    names = tuple(environments)
    return DatasetFacts(name, "custom dataset", names, names, folder=name)


def has_small_images(dataset: str) -> bool:
    """Return whether DomainBed's hparams for small images apply to a dataset; never for custom datasets."""
    return dataset in DATASETS and DATASETS[dataset].small


def known_first(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """Deduplicate names; those in ``order`` come first, in that order, then the others as given."""
    found = dict.fromkeys(names)
    return [*(name for name in order if name in found), *(name for name in found if name not in order)]

"""Download sources of datasets, and alternative names of their parts. To add a source, add an entry to SOURCES."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dg_batchformer.catalog.datasets import DATASETS
from dg_batchformer.errors import InputError, unknown


@dataclass(frozen=True)
class RemoteFile:
    """A file to download.

    Args:
        name: local file name; the same for mirrors with identical files.
        address: URL, http or https.
        size: in bytes, if published.
        sha256: hexadecimal digest, if published.

    """

    name: str
    address: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Mirror:
    """A server with all files of a dataset."""

    about: str
    files: tuple[RemoteFile, ...]


@dataclass(frozen=True)
class Source:
    """How to get an image-folder dataset.

    Args:
        page: web page for a manual download.
        mirrors: in the order of attempts.
        environments: alternative spellings of environments -> catalog names; case, spaces, '_' and '-' are ignored.
        classes: alternative spellings of classes -> DomainBed's names.
        camera_traps: whether all images are in one folder, with annotations of location and class.
        duplicates: URL of a list of duplicates to remove; '' if there is none.

    """

    page: str
    mirrors: tuple[Mirror, ...] = ()
    environments: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)
    camera_traps: bool = False
    duplicates: str = ""


def _drive(name: str, identifier: str) -> Mirror:
    address = f"https://drive.usercontent.google.com/download?id={identifier}&export=download&confirm=t"
    return Mirror("Google Drive, as DomainBed", (RemoteFile(name, address),))


def _parquet(repository: str, sizes: tuple[int | None, ...]) -> Mirror:
    """Return the Hugging Face mirror: one parquet file per entry of ``sizes`` (bytes, None if unknown)."""
    names = [f"train-{number:05}-of-{len(sizes):05}.parquet" for number in range(len(sizes))]
    place = f"https://huggingface.co/datasets/{repository}/resolve/main/data"
    files = (RemoteFile(name, f"{place}/{name}", size) for name, size in zip(names, sizes, strict=True))
    return Mirror(f"HuggingFace, {repository}", tuple(files))


def _camera_traps(about: str, place: str) -> Mirror:
    images, labels = "eccv_18_all_images_sm.tar.gz", "eccv_18_annotations.tar.gz"
    files = (RemoteFile(labels, f"{place}/{labels}", 2_997_071), RemoteFile(images, f"{place}/{images}", 6_492_615_601))
    return Mirror(about, files)


_VISDA = "http://csr.bu.edu/ftp/visda/2019/multi-source"
_DUPLICATES = (
    "https://raw.githubusercontent.com/facebookresearch/DomainBed/main/domainbed/misc/domain_net_duplicates.txt"
)
_PACS_COMMIT = "d586a6cf3db84896fb6cc465c7bf51bdaf6d65d8"

SOURCES: dict[str, Source] = {
    "VLCS": Source(
        page="https://github.com/facebookresearch/DomainBed",
        mirrors=(_drive("VLCS.tar.gz", "1skwblH1_okBwxWxmRsp9_qi15hyPpxg8"),),
        environments={"CALTECH": "Caltech101", "PASCAL": "VOC2007", "SUN": "SUN09"},
        classes={"0": "bird", "1": "car", "2": "chair", "3": "dog", "4": "person"},
    ),
    "PACS": Source(
        page="https://huggingface.co/datasets/flwrlabs/pacs",
        mirrors=(
            Mirror(
                "GitHub, MachineLearning2020/Homework3-PACS",
                (
                    RemoteFile(
                        "Homework3-PACS.zip",
                        f"https://github.com/MachineLearning2020/Homework3-PACS/archive/{_PACS_COMMIT}.zip",
                    ),
                ),
            ),
            _drive("PACS.zip", "1JFr8f805nMUelQWWmfnJR3y4_SYoN5Pd"),
            _parquet("flwrlabs/pacs", (191_395_900,)),
        ),
        environments={"art": "art_painting"},
    ),
    "OfficeHome": Source(
        page="https://www.hemanthdv.org/officeHomeDataset.html",
        mirrors=(
            _drive("office_home.zip", "1uY0pj7oFsjMxRwaD3Sxy0jgel0fsYXLC"),
            _parquet("flwrlabs/office-home", (None, None, None)),
        ),
        environments={"real": "Real World"},
    ),
    "TerraIncognita": Source(
        page="https://lila.science/datasets/caltech-camera-traps",
        mirrors=(
            _camera_traps("LILA on Google", "https://storage.googleapis.com/public-datasets-lila/caltechcameratraps"),
            _camera_traps(
                "LILA on Azure", "https://lilawildlife.blob.core.windows.net/lila-wildlife/caltechcameratraps"
            ),
        ),
        camera_traps=True,
    ),
    "DomainNet": Source(
        page="https://ai.bu.edu/M3SDA",
        mirrors=(
            Mirror(
                "Boston University, cleaned as by DomainBed",
                (
                    RemoteFile("domain_net_duplicates.txt", _DUPLICATES),
                    RemoteFile("clipart.zip", f"{_VISDA}/groundtruth/clipart.zip"),
                    RemoteFile("infograph.zip", f"{_VISDA}/infograph.zip"),
                    RemoteFile("painting.zip", f"{_VISDA}/groundtruth/painting.zip"),
                    RemoteFile("quickdraw.zip", f"{_VISDA}/quickdraw.zip"),
                    RemoteFile("real.zip", f"{_VISDA}/real.zip"),
                    RemoteFile("sketch.zip", f"{_VISDA}/sketch.zip"),
                ),
            ),
        ),
        duplicates=_DUPLICATES,
    ),
    "Office31": Source(page="https://faculty.cc.gatech.edu/~judy/domainadapt"),
    "OfficeCaltech10": Source(
        page="https://faculty.cc.gatech.edu/~judy/domainadapt",
        environments={"caltech": "caltech10"},
        classes={"back_pack": "backpack", "laptop_computer": "laptop"},
    ),
    "SVIRO": Source(
        page="https://sviro.kl.dfki.de",
        mirrors=(Mirror("DFKI, as DomainBed", (RemoteFile("sviro.zip", "https://sviro.kl.dfki.de/?wpdmdl=1731"),)),),
    ),
}


def find_source(name: str) -> Source:
    """Return the source of a dataset; raise InputError if it has none."""
    if name in DATASETS and name not in SOURCES:
        raise InputError(f"{name} cannot be prepared; datasets that can: {', '.join(SOURCES)}")
    if name not in SOURCES:
        raise unknown("dataset", name, SOURCES)
    return SOURCES[name]

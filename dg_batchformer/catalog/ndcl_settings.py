"""The imbalanced settings of NDCL (Cao et al., ICML 2026): numbers of training images by environment and class.

``ndcl_settings.csv`` holds the numbers for PACS, VLCS and OfficeHome, with the names of NDCL's release.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from dg_batchformer.catalog.datasets import DATASETS
from dg_batchformer.errors import InputError

NAMES = ("TotalHeavyTail", "Duality", "Cross", "idg")


@dataclass(frozen=True)
class NdclSetting:
    """A setting with one environment held out.

    Args:
        images: number of training images by environment index and class name.
        validation: number of validation images of every class and training environment.
        many: threshold of many-shot classes, on the mean number of images over training environments.
        few: threshold of few-shot classes.

    """

    images: Mapping[int, Mapping[str, int]]
    validation: int
    many: int
    few: int


def ndcl_setting(name: str, dataset: str, test_env: int) -> NdclSetting:
    """Return a setting; raise InputError if it is not published for the dataset."""
    settings = _read()
    if (name, dataset, test_env) not in settings:
        known = list(dict.fromkeys(of for setting, of, _ in settings if setting == name))
        raise InputError(
            f"imbalance {name} is published for {', '.join(known)}, not for {dataset}; take one of these, or "
            "long_tail:50"
        )
    return settings[name, dataset, test_env]


@cache
def _read() -> Mapping[tuple[str, str, int], NdclSetting]:
    """Return the settings by name, dataset and test environment."""
    rows: dict[tuple[str, str, int], list[dict[str, str]]] = {}
    text = files(__package__).joinpath("ndcl_settings.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        place = row["setting"], row["dataset"], DATASETS[row["dataset"]].environment_index(row["test"])
        rows.setdefault(place, []).append(row)
    return {
        (name, dataset, test_env): NdclSetting(
            {DATASETS[dataset].environment_index(row["train"]): _images(row["images"]) for row in of_setting},
            int(of_setting[0]["validation"]),
            int(of_setting[0]["many"]),
            int(of_setting[0]["few"]),
        )
        for (name, dataset, test_env), of_setting in rows.items()
    }


def _images(text: str) -> dict[str, int]:
    return {name: int(number) for name, _, number in (item.partition("=") for item in text.split())}

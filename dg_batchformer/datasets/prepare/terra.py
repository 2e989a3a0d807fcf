"""Build TerraIncognita from Caltech Camera Traps (Beery et al., 2018) by DomainBed's rules.

Images at four locations with an annotation of one of ten classes are used. An image with annotations of two classes is
placed in both class folders; repeated annotations of a class count once; those of other classes are ignored.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dg_batchformer.catalog.class_folders import is_junk
from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.storage.safe_read import TABLE, read_bytes

LOCATIONS = ("38", "46", "100", "43")
CLASSES = ("bird", "bobcat", "cat", "coyote", "dog", "empty", "opossum", "rabbit", "raccoon", "squirrel")
_PARTS = ("images", "annotations", "categories")
Places = dict[str, list[str]]  # name of an image file -> location_38/bird/NAME ...


def find_annotations(folder: Path) -> list[Path]:
    """Return the JSON files in and below a folder, sorted."""
    return sorted(path for path in folder.rglob("*.json") if path.is_file() and not is_junk(path.name))


def places_of(annotations: Iterable[Path]) -> Places:
    """Return the destinations of every image file, by file name.

    Args:
        annotations: files in COCO Camera Traps format, without common images; other JSON files are ignored.

    Raises InputError if there are no annotations, or files are malformed or overlap.

    """
    contents = {path: content for path in annotations if (content := _read(path)) is not None}
    if not contents:
        raise InputError(
            "no annotations of camera traps were given: JSON files with images, annotations and categories; "
            "eccv_18_annotations.tar.gz contains them"
        )
    kept: dict[Any, tuple[str, str]] = {}
    places: defaultdict[str, set[str]] = defaultdict(set)
    owner: dict[Any, Path] = {}
    for path, content in contents.items():
        try:
            _note_images(path, content["images"], kept, owner)
        except MALFORMED as error:
            raise _malformed(path, error) from None
    for path, content in contents.items():
        try:
            names = {category["id"]: category["name"] for category in content["categories"]}
            for annotation in content["annotations"]:
                kind = names[annotation["category_id"]]
                if kind in CLASSES and annotation["image_id"] in kept:
                    location, file = kept[annotation["image_id"]]
                    places[file].add(f"location_{location}/{kind}/{file}")
        except MALFORMED as error:
            raise _malformed(path, error) from None
    return {file: sorted(found) for file, found in places.items()}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(read_bytes(path, TABLE))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except MALFORMED as error:
        raise InputError(f"{path} is not valid JSON ({error}); download it again") from None
    return content if isinstance(content, dict) and all(part in content for part in _PARTS) else None


def _note_images(path: Path, images: Iterable[Any], kept: dict[Any, tuple[str, str]], owner: dict[Any, Path]) -> None:
    """Record location and file of the images at the four locations."""
    for image in images:
        location = str(image["location"])
        if location not in LOCATIONS:
            continue
        if owner.setdefault(image["id"], path) != path:
            raise InputError(
                f"{owner[image['id']]} and {path} both annotate image {image['id']}: they are two versions of "
                "TerraIncognita; give one of them"
            )
        file = image["file_name"]
        if not isinstance(file, str) or file != Path(file).name:
            raise ValueError(f"file_name {file!r} is not a plain file name")
        kept[image["id"]] = location, file


def _malformed(path: Path, error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    said = f"{error} is missing" if isinstance(error, KeyError) else error
    return InputError(f"{path} is not an annotation file of Caltech Camera Traps ({said}); download it again")


def images_of(places: Mapping[str, list[str]], files: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    """Yield (place, file) of every existing image."""
    for name, targets in places.items():
        if name in files:
            yield from ((target, files[name]) for target in targets)

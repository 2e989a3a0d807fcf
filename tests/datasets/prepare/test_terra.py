import json
import random
import time

import pytest

from dg_batchformer.datasets.prepare.terra import CLASSES, places_of
from dg_batchformer.errors import InputError


def camera_traps(images, boxes, seed=0):
    """Draw annotations of images, with unknown locations and classes, and several boxes per image."""
    draw = random.Random(seed)
    names = [*CLASSES, "car", "fox"]
    categories = [{"id": number * 3, "name": name} for number, name in enumerate(names)]
    locations = [38, "46", 100, "43", 7, "130"]  # the releases differ in their type
    shots = [{"id": f"i{n}", "file_name": f"{n}.jpg", "location": draw.choice(locations)} for n in range(images)]
    marks = [
        {"id": n, "image_id": f"i{draw.randrange(images)}", "category_id": draw.choice(categories)["id"]}
        for n in range(boxes)
    ]
    return {"images": shots, "annotations": marks, "categories": categories}


def _write(path, content):
    path.write_text(json.dumps(content))
    return path


def _by_definition(content):
    """DomainBed's rule, image by image."""
    names = {category["id"]: category["name"] for category in content["categories"]}
    return {
        f"location_{image['location']}/{names[mark['category_id']]}/{image['file_name']}"
        for image in content["images"]
        for mark in content["annotations"]
        if mark["image_id"] == image["id"]
        and str(image["location"]) in ("38", "46", "100", "43")
        and names[mark["category_id"]] in CLASSES
    }


def test_images_are_placed_by_domainbeds_rule(tmp_path):
    content = camera_traps(images=150, boxes=300)

    places = places_of([_write(tmp_path / "all.json", content)])

    assert {place for targets in places.values() for place in targets} == _by_definition(content)
    assert any(len(targets) > 1 for targets in places.values())  # two kept classes: two places
    assert all(place.endswith(f"/{file}") for file, targets in places.items() for place in targets)


def test_several_annotation_files_are_read_as_one(tmp_path):
    content = camera_traps(images=100, boxes=200)
    halves = [{**content, "images": content["images"][start::2]} for start in (0, 1)]  # annotations of both in each
    files = [_write(tmp_path / f"{number}.json", half) for number, half in enumerate(halves)]
    other = _write(tmp_path / "notes.json", {"images": []})

    assert places_of([*files, other]) == places_of([_write(tmp_path / "all.json", content)])


def test_two_versions_of_the_annotations_are_not_mixed(tmp_path):
    content = camera_traps(images=20, boxes=20)
    files = [_write(tmp_path / name, content) for name in ("eccv.json", "lila.json")]

    with pytest.raises(InputError, match=r"eccv.json and .*lila.json both annotate image i\d+: .* give one of them"):
        places_of(files)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [{}], "annotations": [], "categories": []}, r"\('location' is missing\); download it again"),
        ({"images": 3, "annotations": [], "categories": []}, "is not an annotation file"),
        ({"images": [], "annotations": [{"category_id": 1}], "categories": []}, r"\(1 is missing\)"),
        (
            {"images": [{"id": 1, "location": 38, "file_name": "../1.jpg"}], "annotations": [], "categories": []},
            r"file_name '../1.jpg' is not a plain file name",
        ),
        ([], "no annotations of camera traps were given"),
    ],
)
def test_malformed_annotations_are_reported_in_one_sentence(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        places_of([_write(tmp_path / "bad.json", content)])


def test_broken_json_is_reported(tmp_path):
    (tmp_path / "bad.json").write_text('{"images": [')
    with pytest.raises(InputError, match=r"bad.json is not valid JSON"):
        places_of([tmp_path / "bad.json"])


def test_time_grows_with_the_annotations_not_with_their_square(tmp_path):
    file = _write(tmp_path / "all.json", camera_traps(images=20_000, boxes=20_000))

    began = time.process_time()
    places = places_of([file])

    assert len(places) > 5_000
    assert time.process_time() - began < 2  # image by image it takes minutes

"""Custom datasets, as folders and as manifests: how they are found, and why they are refused."""

import json
import shutil
from collections import Counter

import pytest
from data_folders import write_images, write_manifest, write_own
from support import resolved

from dg_batchformer.catalog.custom import find_dataset, namesakes
from dg_batchformer.catalog.image_manifest import read_manifest
from dg_batchformer.datasets import open_dataset
from dg_batchformer.datasets.counts import known_versions
from dg_batchformer.datasets.tree import read_tree
from dg_batchformer.errors import InputError
from dg_batchformer.training.sampling import Sampler, split_environments

HPARAMS = {"image_size": 8, "batch_size": 2, "class_balanced": False}


def _open(name, root, **asked):
    spec = resolved(dataset=name, environments=find_dataset(name, root).environments, **asked)
    return spec, open_dataset(spec, root, HPARAMS)


def _lines(root, split=lambda index: ""):
    files = sorted((root / "Mine").rglob("*.png"))
    return [
        f"Mine/{file.relative_to(root / 'Mine')},{file.parent.name},{file.parent.parent.name}{split(index)}"
        for index, file in enumerate(files)
    ]


def test_domains_are_the_folders_that_hold_folders(tmp_path):
    root = write_own(tmp_path)
    for stray in (".git/objects", "__MACOSX/cat", "splits"):
        (root / "Mine" / stray).mkdir(parents=True)

    assert find_dataset("Mine", root) == ("Mine", ("day", "night", "rain"))
    assert find_dataset("PACS", None) == ("PACS", ())
    assert _open("Mine", root)[1].notes == [
        f"ignored in {root}/Mine, not domains of class folders: .git, __MACOSX, splits"
    ]


def test_a_folder_and_its_manifest_are_the_same_data(tmp_path):
    root = write_own(tmp_path)
    write_manifest(root, *reversed(_lines(root)), "")
    entries = [dict(zip(("path", "label", "domain"), line.split(","), strict=True)) for line in _lines(root)]
    (root / "Noted.json").write_text(json.dumps(entries))

    (spec, folder), *listed = (_open(name, root) for name in ("Mine", "Listed", "Noted"))

    for _, dataset in listed:
        assert dataset.identity() == folder.identity()
        assert dataset.files == folder.files
        assert split_environments(spec, dataset) == split_environments(spec, folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "PAC",
            r"unknown dataset 'PAC'; did you mean 'PACS'\? \(see: .*; a custom dataset is .* PAC.csv in --data_dir",
        ),
        ("Mien", r"did you mean 'Mine'"),
        ("pacs", r"unknown dataset 'pacs'; did you mean 'PACS'\?; .*pacs is not read: PACS reads .*PACS; rename it to"),
        ("office_home", r"did you mean 'OfficeHome'\?$"),
        ("here/Mine", r"dataset 'here/Mine' is a path; give the name Mine and --data_dir here"),
        ("Listed.csv", r"dataset 'Listed.csv' is a manifest; give its name without the extension: Listed"),
        ("Two", r"Two.csv and .*Two.json are two manifests of the same name; remove one"),
        ("One", r"One has one domain, day, but at least 2 are needed"),
        ("Flat", r"Flat has no domain, .*; expected .*Flat/domain/class/image \(cat, dog hold no class folders\)"),
        (".git", r"unknown dataset '.git'"),
    ],
)
def test_an_unknown_name_is_answered_with_similar_names_or_the_reason(name, message, tmp_path):
    root = write_own(tmp_path)
    for file in ("Listed.csv", "Two.csv", "Two.json", "pacs/a/x/y", "office_home/a/x/y", "One/day/cat/1", ".git/a/b/c"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("")
    shutil.copytree(root / "Mine" / "day", root / "Flat")

    with pytest.raises(InputError, match=message):
        find_dataset(name, root)


def test_ignored_data_with_the_name_of_a_known_dataset_is_reported(tmp_path):
    root = write_own(tmp_path)
    (root / "Shapes" / "day").mkdir(parents=True)
    (root / "pacs.csv").touch()
    (root / "PACS").mkdir()
    (root / "Shapes.txt").touch()

    notes = open_dataset(resolved(dataset="Shapes"), root, {}).notes
    assert notes == [f"{root}/Shapes is not read: Shapes is built in; rename it to use it as a custom dataset"]
    assert [note.split(":")[0] for note in namesakes("PACS", root)] == [f"{root}/pacs.csv is not read"]
    assert namesakes("Mine", root) == namesakes("VLCS", root) == namesakes("PACS", None) == []


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("OfficeHome/Art/cup", r"has no folder office_home; rename .*OfficeHome to office_home"),
        (
            "office_home/day/cup",
            r"lacks the environments Art, .*; it holds day; rename it to use it as a custom",
        ),
    ],
)
def test_a_different_folder_with_a_known_name_is_answered_with_what_to_rename(folder, message, tmp_path):
    (tmp_path / folder).mkdir(parents=True)

    with pytest.raises(InputError, match=message):
        open_dataset(resolved(dataset="OfficeHome"), tmp_path, HPARAMS)


def test_two_unicode_forms_of_a_domain_or_label_are_one_and_their_folders_are_not_two_domains(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    root = write_own(tmp_path, (composed, "bar"))
    spec, _ = _open("Mine", root)
    write_manifest(
        root,
        *(f"Mine/{composed}/{kind}/{index}.png,{kind},{name}" for index, name in enumerate((composed, decomposed))
          for kind in ("cat", "dog")),
        f"Mine/bar/cat/0.png,{composed},bar",
        f"Mine/bar/dog/0.png,{decomposed},bar",
    )  # fmt: skip

    _, listed = _open("Listed", root)
    assert ([environment.name for environment in listed], listed.classes) == (
        ["bar", composed],
        [composed, "cat", "dog"],
    )
    write_manifest(
        root,
        *(f"Mine/{composed}/{kind}/{index}.png,{kind},{name},{part}" for kind in ("cat", "dog")
          for index, (name, part) in enumerate(((composed, "train"), (decomposed, "val")))),
        *(f"Mine/bar/{kind}/{index}.png,{kind},bar,{part}" for kind in ("cat", "dog")
          for index, part in enumerate(("train", "val"))),
        header="path,label,domain,split", name="Parts.csv",
    )  # fmt: skip
    assert [environment.name for environment in _open("Parts", root)[1]] == ["bar", composed]
    (root / "Mine" / composed).rename(root / "Mine" / decomposed)
    assert [environment.name for environment in open_dataset(spec, root, HPARAMS)] == ["bar", composed]
    (root / "Mine" / composed / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match=r"Mine has caf.* twice, in two Unicode forms \(NFC and NFD\) of one name"):
        find_dataset("Mine", root)


def test_the_folder_of_a_dataset_is_not_a_data_dir(tmp_path):
    root = write_own(tmp_path)
    with pytest.raises(InputError, match=rf"has no folder Mine; give its parent: --data_dir {root}"):
        find_dataset("Mine", root / "Mine")
    with pytest.raises(InputError, match=r"a custom dataset is Mine/domain/class/image or Mine.csv in --data_dir DIR"):
        find_dataset("Mine", None)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,label,domian"], r"unknown column at .*Listed.csv:1: 'domian'; did you mean 'domain'\?"),
        (["path,label"], r"Listed.csv:1: column 'domain' is missing; a manifest has path, label, domain and may have"),
        (["path,label,domain,label"], r"Listed.csv:1: column 'label' occurs twice"),
        (["path,label,domain"], r"Listed.csv lists no image"),
        ([""], r"Listed.csv:1: column 'path' is missing"),
        (["path,label,domain", "a.png,cat"], r"Listed.csv:2: 2 values under 3 columns \(path, label, domain\)"),
        (["path,label,domain", "a.png,,day"], r"Listed.csv:2: label must be text, got ''"),
        (["path,label,domain", "a.png,cat,day", "../b.png,cat,day"], r"Listed.csv:3: path ../b.png is outside"),
        (["path,label,domain", "/etc/b.png,cat,day"], r"Listed.csv:2: path /etc/b.png is outside"),
        (
            ["path,label,domain", "a.png,cat,day", "", "a.png,cat,night"],
            r"Listed.csv:4: a.png is listed twice, first at .*Listed.csv:2",
        ),
        (["path,label,domain", '"a.png,cat,day'], r"Listed.csv:2: not valid CSV"),
        (["path,label,domain", "a.png,cat,day"], r"has one domain, day, .*name more of them in the column domain"),
        (["path,label,domain,split", "a.png,cat,day,test"], r"domain day has no row with split train"),
        (["path,label,domain,env", "a.png,cat,day,day"], r"Listed.csv:1: column 'domain' occurs twice"),
        (
            ["path,label,domain,split", "a.png,cat,day,train", "b.png,cat,day,vla"],
            r"unknown split at .*Listed.csv:3: 'vla'; did you mean 'val'",
        ),
        (
            ["path,label,domain,split", "a.png,cat,day,train", "b.png,cat,day,val", "c.png,cat,night,train"],
            r"domain night has no row with split val, but every domain needs train and val",
        ),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused_with_its_line(lines, message, tmp_path):
    write_manifest(tmp_path, *lines[1:], header=lines[0])

    with pytest.raises(InputError, match=message):
        find_dataset("Listed", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[\n{]", r"Listed.json:2: not valid JSON"),
        ("[" * 100_000, r"Listed.json: not valid JSON"),
        ("{}", r"Listed.json: a manifest is a list, such as \[\{\"path\""),
        ("[]", r"Listed.json lists no image"),
        ('[{"path": "a.png", "label": 3, "domain": "day"}, 7]', r"Listed.json, entry 2: expected an object .*, got 7"),
        ('[{"path": "a.png", "label": null, "domain": "day"}]', r"Listed.json, entry 1: label must be text, got None"),
        ('[{"path": "a.png", "label": "cat"}]', r"Listed.json, entry 1: column 'domain' is missing"),
    ],
)
def test_a_json_manifest_is_refused_with_its_line_or_entry(content, message, tmp_path):
    (tmp_path / "Listed.json").write_text(content)

    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path / "Listed.json")


def test_a_missing_listed_file_is_reported_with_its_line(tmp_path):
    root = write_own(tmp_path)
    write_manifest(root, *_lines(root), "Mine/day/cat/99.png,cat,day")

    with pytest.raises(InputError, match=r"Listed.csv:32: there is no file .*Mine/day/cat/99.png"):
        _open("Listed", root)


def test_a_column_split_says_which_images_validate(tmp_path):
    root = write_own(tmp_path)
    write_manifest(
        root, *_lines(root, lambda index: ",val" if index % 5 == 0 else ",train"), header="path,label,domain,split"
    )
    spec, dataset = _open("Listed", root, trial_seed=1)

    splits = split_environments(spec, dataset)
    assert [[dataset[env].files[index].name for index in splits[env, "out"]] for env in range(3)] == [["0.png"] * 2] * 3
    assert [len(splits[env, "in"]) for env in range(3)] == [8, 8, 8]
    assert dataset.notes == ["Listed has a column split: its val images are the validation set in every trial"]
    assert dataset.fingerprint() != _open("Mine", root)[1].fingerprint()
    with pytest.raises(InputError, match=r"holdout_fraction 0.3 has no effect on Listed"):
        _open("Listed", root, holdout_fraction=0.3)


def test_a_split_file_of_mdlt_is_a_manifest_whose_test_images_are_what_is_reported(tmp_path):
    root = write_own(tmp_path)
    lines = [f"day,0,Mine/day/cat/{index}.png,{part}" for index, part in enumerate(("train", "train", "val", "test"))]
    lines += [*(line.replace("day", "night") for line in lines), "day,1,Mine/day/dog/0.png,train"]
    spec, dataset = _open_listed(root, lines)

    splits = split_environments(spec, dataset)
    named = {split: [dataset[split[0]].files[index].name for index in indices] for split, indices in splits.items()}
    assert dataset.classes == ["0", "1"]
    assert named == {
        (0, "in"): ["3.png"],
        (0, "out"): ["2.png"],
        (1, "in"): ["0.png", "1.png"],
        (1, "out"): ["2.png"],
    }
    assert any(note.startswith("Listed has test images: test accuracy is computed on") for note in dataset.notes)


@pytest.mark.parametrize(
    ("dataset", "per_class", "published"),
    [
        ("PACS", 25, [1523, 1819, 1145, 3404]),
        ("OfficeHome", 5, [1452, 3390, 3464, 3382]),
    ],
)
def test_a_manifest_of_the_size_of_mdlts_has_the_counts_of_its_split_files(dataset, per_class, published, tmp_path):
    file = tmp_path / "listed.csv"
    kinds = ["val"] * per_class + ["test"] * 2 * per_class + ["train"] * 10_000
    lines = [
        f"{env},{label},{env}/{name}/{index}.jpg,{kinds[index]}"
        for env, images in known_versions(dataset)[0].counts.items()
        for label, (name, number) in enumerate(images.items())
        for index in range(number)
    ]
    file.write_text("\n".join(["env,label,path,split", *lines]))

    rows = read_manifest(file)
    trained = Counter(row.domain for row in rows if row.split == "train")
    assert list(trained.values()) == published
    assert len(rows) - sum(published) == 3 * sum(row.split == "val" for row in rows)


def _open_listed(root, lines):
    write_manifest(root, *lines, header="env,label,path,split")
    return _open("Listed", root)


def test_oddities_of_classes_are_reported(tmp_path):
    root = write_own(tmp_path)
    write_images(root / "Mine" / "night" / "zebra", 16)
    spec, dataset = _open("Mine", root, test_envs=["night"])

    assert dataset.notes == [
        "Mine/day has no images of: zebra",
        "Mine/rain has no images of: zebra",
        "Mine has imbalanced classes, most and fewest images: night (16 of zebra, 5 of dog); hparam class_balanced "
        "samples the classes of an environment equally often",
    ]
    sampler = Sampler(spec, HPARAMS, dataset, split_environments(spec, dataset))
    assert sampler.notes() == ["no training environment has images of zebra: test images of it count as errors"]


def test_class_folders_in_two_unicode_forms_are_one_class(tmp_path):
    root = write_own(tmp_path)
    for domain, name in (("day", "caf\u00e9"), ("day", "cafe\u0301"), ("night", "cafe\u0301")):
        write_images(root / "Mine" / domain / name, 2)

    _, dataset = _open("Mine", root)
    assert dataset.classes == sorted(["caf\u00e9", "cat", "dog"])
    assert [environment.labels.count(dataset.classes.index("caf\u00e9")) for environment in dataset] == [4, 2, 0]
    assert read_tree("Mine", root).counts() == dataset.counts()


def test_classes_that_differ_only_in_case_are_reported(tmp_path):
    root = write_own(tmp_path)
    (root / "Mine" / "night" / "cat").rename(root / "Mine" / "night" / "Cat")

    _, dataset = _open("Mine", root)
    assert dataset.classes == ["Cat", "cat", "dog"]
    assert "Mine has different classes Cat and cat" in dataset.notes


def test_data_with_changed_domains_is_not_the_data_of_the_run(tmp_path):
    root = write_own(tmp_path)
    spec, _ = _open("Mine", root)
    (root / "Mine" / "rain").rename(root / "Mine" / "fog")

    with pytest.raises(InputError, match=r"has the environments day, fog, night, but the run uses day, night"):
        open_dataset(spec, root, HPARAMS)

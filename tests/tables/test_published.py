"""Published numbers: the data, the rows shown beside runs, and the citations."""

import re
from statistics import fmean

import pytest
from sweep_folders import write_sweep

from dg_batchformer.catalog.datasets import DATASETS, SELECTION_NAMES, dataset_facts
from dg_batchformer.cli.main import main
from dg_batchformer.errors import InputError
from dg_batchformer.results.collect import collect
from dg_batchformer.results.selection import METHODS
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.tables.published.bibliography import bibliography, entries
from dg_batchformer.tables.published.data import AVERAGE, KINDS, Setting, load_published
from dg_batchformer.tables.published.match import add_published
from dg_batchformer.tables.published.setting import run_setting
from dg_batchformer.tables.table import build_sections

V1 = {"backbone": "resnet50", "weights": "imagenet_v1"}
NUMBERS = [(entry, key, number) for entry in load_published() for key, number in entry.accuracies.items()]


def test_every_number_is_of_a_known_dataset_environment_and_selection():
    assert len(NUMBERS) == 2780
    for entry, (dataset, environment), number in NUMBERS:
        assert set(dataset.split("+")) <= set(DATASETS)
        assert environment == AVERAGE or environment in dataset_facts(dataset).names
        assert entry.selection in (*METHODS, "other")
        assert entry.kind in KINDS
        assert 0 <= number.mean <= 100
        assert number.error is None or 0 <= number.error < 25


def test_selections_in_sweep_files_are_the_existing_ones():
    assert tuple(METHODS) == SELECTION_NAMES


# As printed by their authors: the first and those of EoA are misprints, the others have larger rounding errors.
_ODD_MEANS = {
    ("MixStyle (TLlib 2020)", "OfficeHome"),
    ("GroupDRO (TLlib 2020)", "OfficeHome"),
    ("Fishr (quoted by EoA 2022)", "VLCS+PACS+OfficeHome+TerraIncognita+DomainNet"),
    ("MIRO (quoted by EoA 2022)", "VLCS+PACS+OfficeHome+TerraIncognita+DomainNet"),
    ("QT-DoG (QT-DoG README 2025)", "PACS"),
}


def test_averages_are_the_means_of_their_columns_but_for_named_exceptions():
    odd, checked = set(), 0
    for entry, (dataset, environment), number in NUMBERS:
        if environment != AVERAGE:
            continue
        keys = [(name, AVERAGE) for name in dataset.split("+")]
        if len(keys) == 1:
            keys = [(dataset, name) for name in dataset_facts(dataset).names]
        parts = [entry.accuracies[key].mean for key in keys if key in entry.accuracies]
        if len(parts) == len(keys):
            checked += 1
            if abs(fmean(parts) - number.mean) > 0.1001:  # printed with one decimal, all of them
                odd.add((entry.label, dataset))
    assert checked > 350
    assert odd == _ODD_MEANS


@pytest.mark.parametrize(
    ("label", "selection", "dataset", "environment", "mean"),
    [
        ("ERM (DomainBed 2021)", "training-domain", "PACS", "Average", 85.5),
        ("ERM (DomainBed 2021)", "training-domain", "PACS", "photo", 97.2),
        ("ERM (DomainBed 2021)", "training-domain", "TerraIncognita", "location_46", 35.7),
        ("ERM (DomainBed 2021)", "training-domain", "DomainNet", "quickdraw", 12.2),
        ("CORAL (DomainBed 2021)", "leave-one-domain-out", "OfficeHome", "Average", 68.5),
        ("CORAL (DomainBed 2021)", "oracle", "ColoredMNIST", "Average", 58.6),
        ("SWAD+BF (BatchFormer 2022)", "training-domain", "TerraIncognita", "Average", 44.8),
        ("SWAD (SWAD 2021)", "training-domain", "VLCS", "Average", 79.1),
    ],
)
def test_numbers_are_in_the_right_cells(label, selection, dataset, environment, mean):
    found = [
        number.mean
        for entry, key, number in NUMBERS
        if (entry.label, entry.selection) == (label, selection) and key == (dataset, environment)
    ]
    assert found == [mean]


def test_values_of_other_protocols_are_not_shown_beside_our_selections():
    older = {"MASF", "DMG", "MetaReg", "ER", "pAdaIN", "EISNet", "DSON"}

    selections = [entry.selection for entry, _, _ in NUMBERS if entry.algorithm in older]

    assert selections == ["other"] * 9


def test_every_source_has_an_entry_that_agrees_on_arxiv_and_year():
    known = entries()
    for source in {entry.source for entry in load_published()}:
        arxiv = re.search(r"eprint = \{(.+)\}", known[source.key])
        assert (arxiv[1] if arxiv else "") == source.arxiv
        assert re.search(r"year = \{(\d+)\}", known[source.key])[1] == source.name[-4:]
    assert set(known) == {entry.source.key for entry in load_published()}


@pytest.mark.parametrize(
    ("dataset", "hparams", "setting"),
    [
        ("PACS", V1, Setting("resnet50", "imagenet_v1")),
        ("PACS", {**V1, "image_size": 64}, Setting("resnet50 at 64 px", "imagenet_v1")),
        ("PACS", {"resnet18": False, "nonlinear_classifier": False}, Setting("resnet50", "imagenet_v1")),
        ("PACS", {"resnet18": True}, Setting("resnet18", "imagenet_v1")),
        ("PACS", {"resnet18": True, "resnet50_augmix": True}, Setting("resnet50", "ram_in1k")),
        ("PACS", {"resnet18": False, "resnet50_augmix": False}, Setting("resnet50", "imagenet_v1")),
        ("PACS", {"vit": True, "dinov2": True}, Setting("dinov2_vitb14", "pretrained")),
        ("RotatedMNIST", {"resnet18": False, "resnet50_augmix": True}, Setting("mnist_cnn", "none")),
        ("RotatedMNIST", {"backbone": "auto", "weights": "none"}, Setting("mnist_cnn", "none")),
        ("PACS", {}, None),
        ("PACS", "torn", None),
    ],
)
def test_the_network_of_a_run_is_derived_from_our_hparams_and_domainbeds(dataset, hparams, setting):
    assert run_setting(dataset, hparams) == setting


def _sections(path, *names, hparams=V1, rows=("ERM", "SWAD"), methods=("training-domain",), **asked):
    algorithms = tuple(Row(name, name) for name in rows)
    spec = SweepSpec(**{"name": "mine", "datasets": ("PACS",), "algorithms": algorithms, "trials": 1, **asked})
    collection = collect([write_sweep(path, spec, lambda run: 0.8, hparams=hparams).path])
    return add_published(build_sections(collection, methods), collection.runs, names)


def test_rows_of_the_sweeps_algorithms_stand_below_ours_unmarked_and_untested(tmp_path):
    [section] = _sections(tmp_path)
    [table] = section.tables

    rows = {row.label: row for row in table.published}
    domainbed = rows["ERM (DomainBed 2021)"]
    assert [cell.mean for cell in domainbed.cells] == [84.7, 80.8, 97.2, 79.3, 85.5, None, None]
    assert [cell.error for cell in domainbed.cells[:5]] == [0.4, 0.6, 0.3, 1.0, 0.2]
    assert [cell.mean for cell in rows["SWAD (SWAD 2021)"].cells] == [None] * 4 + [88.1, None, None]
    assert {row.algorithm for row in table.published} == {"ERM", "SWAD"}
    assert list(table.rows) == ["ERM", "SWAD"]
    assert {label for label, _ in table.best | table.second} <= {"ERM", "SWAD"}
    assert any("best and second best are marked among the other rows" in note for note in table.notes)
    assert any(
        note.startswith("DomainBed 2021: Gulrajani and Lopez-Paz, ICLR 2021, arXiv:2007.01434")
        for note in section.notes
    )


def test_rows_of_another_backbone_weights_or_selection_are_not_shown(tmp_path):
    resnet18, augmix = {**V1, "backbone": "resnet18"}, {**V1, "weights": "ram_in1k"}

    shown = _sections(tmp_path / "18", hparams=resnet18)[0].tables[0].published
    assert [row.label for row in shown] == ["SWAD (BatchFormer 2022)"]
    assert _sections(tmp_path / "augmix", "all", hparams=augmix)[0].tables[0].published == []
    oracle = _sections(tmp_path / "oracle", "all", methods=["oracle"])[0].tables[0].published
    assert {row.label for row in oracle} >= {"ERM (DomainBed 2021)", "Fishr (Fishr 2022)"}
    assert oracle[0].cells[4].mean == 86.7
    assert not any("SWAD" in row.algorithm for row in oracle)


def test_without_matches_one_note_says_what_was_searched_and_what_exists(tmp_path):
    [section] = _sections(tmp_path, hparams={**V1, "weights": "ram_in1k"}, rows=("SWAD+BF",))

    [note] = [note for note in section.tables[0].notes if note.startswith("Published rows")]
    assert "none for BF+SWAD on PACS with resnet50 (ram_in1k) by training-domain selection" in note
    assert "available: SWAD+BF with resnet18 (imagenet_v1)" in note


def test_tables_by_source_have_no_published_rows_and_say_why(tmp_path):
    [section] = _sections(tmp_path, "all", train_envs=(("photo",),))

    [table] = section.tables
    assert table.title == "PACS from photo"
    assert table.published == []
    assert "Published rows: none, as they are trained on all environments except the tested one" in table.notes


def test_a_sweep_without_records_explains_why_no_published_rows_are_shown(tmp_path):
    spec = SweepSpec("mine", ("PACS",), (Row("ERM", "ERM"),), trials=1)
    collection = collect([write_sweep(tmp_path, spec, lambda run: 0.8, hparams=V1, keep=lambda run: False).path])

    [section] = add_published(build_sections(collection, ["training-domain"]), collection.runs, [])

    assert "no run has recorded its backbone yet" in section.tables[0].notes[-1]


def test_named_algorithms_are_shown_however_they_are_spelled(tmp_path):
    def algorithms(name, *asked):
        return {row.algorithm for row in _sections(tmp_path / name, *asked)[0].tables[0].published}

    assert algorithms("two", "CORAL+SWAD", "Fishr") == {"SWAD+CORAL", "Fishr"}
    assert algorithms("long", "ERM+SWAD") == {"SWAD"}
    assert len(algorithms("all", "all")) > 40
    with pytest.raises(InputError, match="unknown published algorithm 'CORL'; did you mean 'CORAL'"):
        algorithms("typo", "CORL")


def test_original_numbers_are_preferred_to_quoted_ones(tmp_path):
    labels = [row.label for row in _sections(tmp_path, "SWAD", "Fish", "GENIE")[0].tables[0].published]

    assert "SWAD (SWAD 2021)" in labels
    assert [label for label in labels if "quoted" in label or "second-hand" in label] == [
        "Fish (quoted by MIRO 2022)",
        "GENIE (GENIE 2025, second-hand)",
    ]


def test_an_average_is_shown_only_over_the_same_environments(tmp_path):
    [section] = _sections(tmp_path, "ERM", test_envs=("photo", "sketch"))

    shown = {row.label: [cell.mean for cell in row.cells] for row in section.tables[0].published}
    assert shown["ERM (DomainBed 2021)"] == [97.2, 79.3, None, None, None]
    assert "ERM (SWAD 2021)" not in shown


def test_the_table_of_averages_has_published_ones_for_the_same_datasets(tmp_path):
    five = ("VLCS", "PACS", "OfficeHome", "TerraIncognita", "DomainNet")
    tables = _sections(tmp_path, "SWAD", "ERM", datasets=five)[0].tables

    shown = {row.label: [cell.mean for cell in row.cells] for row in tables[-1].published}
    assert shown["SWAD (SWAD 2021)"] == [79.1, 88.1, 70.6, 50.0, 46.5, 66.9]
    assert shown["ERM (DomainBed 2021)"] == [77.5, 85.5, 66.5, 46.1, 40.9, None]  # published over seven datasets only


def test_the_bibliography_has_exactly_the_cited_works(tmp_path):
    sections = _sections(tmp_path, hparams={**V1, "backbone": "resnet18"})

    assert bibliography(sections).startswith("@inproceedings{hou2022batchformer,")
    assert bibliography(sections).count("@") == 1
    assert bibliography([]) == ""


def test_tables_writes_every_format_and_the_bibliography(tmp_path, capsys):
    spec = SweepSpec("mine", ("PACS",), (Row("ERM", "ERM"),), trials=1)
    write_sweep(tmp_path / "sweep", spec, lambda run: 0.8, hparams=V1)

    assert main(["tables", str(tmp_path / "sweep"), "--published", "--output", str(tmp_path / "out")]) == 0

    assert "ERM (DomainBed 2021)" in capsys.readouterr().out
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert written == {
        "tables.txt", "tables.tex", "tables_fragment.tex", "tables.md", "tables.csv", "tables.json", "tables.html",
        "tables.bib",
    }  # fmt: skip
    assert r"\cite{gulrajani2021search}" in (tmp_path / "out" / "tables.tex").read_text()

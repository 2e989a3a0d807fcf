"""Tables for papers: JSON, CSV and compiled LaTeX."""

import csv
import io
import json
import re

import pytest
from sweep_folders import write_sweep
from typesetting import typeset

from dg_batchformer.results.collect import collect
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.tables.published.bibliography import bibliography, entries
from dg_batchformer.tables.published.match import add_published
from dg_batchformer.tables.render import FORMATS, render
from dg_batchformer.tables.render.wording import number, published_number
from dg_batchformer.tables.table import build_sections

ROWS = (Row("ERM", "ERM"), Row("50% off & _more_ than any column wants to be wide", "SWAD+BF"))


@pytest.fixture
def sections(tmp_path):
    spec = SweepSpec("mine", ("PACS", "DomainNet"), ROWS, trials=2)
    hparams = {"backbone": "resnet50", "weights": "imagenet_v1"}

    def accuracy(run):
        return 0.7 + 0.01 * run.spec.trial_seed + 0.02 * run.spec.test_envs[0]

    collection = collect([write_sweep(tmp_path / "sweep", spec, accuracy, hparams=hparams).path])
    return add_published(build_sections(collection, ["training-domain", "oracle"]), collection.runs, ["ERM", "DiWA"])


def test_every_format_renders_into_a_file_of_its_own(sections):
    assert all(render(sections, name) for name in FORMATS)
    assert len({form.file for form in FORMATS.values()}) == len(FORMATS)


def test_json_has_our_rows_published_rows_and_provenance(sections):
    content = json.loads(render(sections, "json"))

    assert content["format"] == 1
    assert [section["selection"] for section in content["sections"]] == ["training-domain", "oracle"]
    table = content["sections"][0]["tables"][0]
    assert table["columns"][0] == "art_painting"
    cell = {
        "mean": pytest.approx(70.5),
        "error": pytest.approx(0.5 / 2**0.5),
        "n": 2,
        "mark": "best",
        "significance": None,
    }
    assert table["rows"][0]["cells"][0] == cell
    published = table["published"][0]
    assert (published["label"], published["key"]) == ("ERM (DomainBed 2021)", "gulrajani2021search")
    assert published["cells"][0] == {"mean": 84.7, "error": 0.4}
    assert published["cells"][-1] == {"mean": None, "error": None}
    assert table["provenance"]["runs"] == 16
    assert table["provenance"]["fingerprints"] == ["f00d"]


def test_a_page_sets_published_rows_apart(sections):
    page = render(sections, "html")

    assert '<tr class="published"><th scope="row">ERM (DomainBed 2021)</th><td>84.7 ± 0.4</td>' in page


def test_csv_names_the_source_of_every_number(sections):
    lines = list(csv.DictReader(io.StringIO(render(sections, "csv"))))

    ours = [line for line in lines if not line["source"]]
    assert {line["n"] for line in ours if line["table"] == "PACS"} == {"2"}
    [line] = [
        line
        for line in lines
        if (line["selection"], line["table"], line["column"]) == ("training-domain", "PACS", "photo")
        and line["source"] == "gulrajani2021search"
    ]
    assert (line["row"], line["mean"], line["standard_error"]) == ("ERM (DomainBed 2021)", "97.2", "0.3")


def test_text_and_markdown_show_published_rows_and_where_they_are_from(sections):
    for name in ("text", "markdown"):
        shown = render(sections, name)
        assert "84.7 ± 0.4" in shown
        assert "arXiv:2007.01434" in shown


def test_provenance_is_one_sentence(sections):
    assert sections[0].tables[0].provenance.sentence == (
        "Made from 16 runs of 2 trials and 1 draw, protocol domainbed-2020, precision bf16, on cpu, "
        "dg_batchformer 0.1.0, torch 2.11.0"
    )


def test_a_fragment_is_not_a_document_and_lists_the_packages_it_needs(sections):
    shown = render(sections, "latex_fragment")

    assert shown.startswith(r"% For \input; needs \usepackage{booktabs} and \usepackage{graphicx}.")
    assert "documentclass" not in shown
    assert r"\label{tab:pacs-training-domain}" in shown
    assert r"ERM (DomainBed 2021)~\cite{gulrajani2021search} & 84.7 $\pm$ 0.4" in shown
    assert r"50\% off \& \_more\_" in shown


def _check(said, sections):
    """Compare every row of a PDF with the tables: label, citation, and numbers in order."""
    words = " ".join(said.split())
    for table in (table for section in sections for table in section.tables):
        rows = [f"ERM {' '.join(number(cell, ' ± ', table.trials) for cell in table.rows['ERM'])}"]
        for row in table.published:
            rows.append(f"{row.label} [N] {' '.join(published_number(cell, ' ± ') for cell in row.cells)}")
        for row in rows:
            assert re.search(re.escape(row).replace(r"\[N\]", r"\[\d+\]"), words), row
        assert table.provenance.sentence.split(",")[0] in words
        assert " ".join(table.notes[0].split()[:6]) in words
    assert "84.7 ± 0.4 80.8 ± 0.6" in words
    assert "50% off & more than any column" in words.replace("_", "").replace("  ", " ")


@pytest.mark.system
def test_the_document_has_the_numbers_of_the_tables_and_every_citation_resolves(tmp_path, sections):
    said, log = typeset(tmp_path, render(sections, "latex"), tables=bibliography(sections))

    assert "Overfull" not in log
    assert "too large" not in log
    assert "undefined" not in log
    _check(said, sections)
    assert "In search of lost domain generalization" in said


@pytest.mark.system
def test_the_fragment_compiles_within_a_paper(tmp_path, sections):
    document = (
        r"\documentclass{article}\usepackage{booktabs}\usepackage{graphicx}\begin{document}Text.\input{fragment}"
        r"\clearpage\bibliographystyle{plain}\bibliography{tables}\end{document}"
    )

    said, log = typeset(tmp_path, document, fragment=render(sections, "latex_fragment"), tables=bibliography(sections))

    assert "Overfull" not in log
    assert "undefined" not in log
    _check(said, sections)


@pytest.mark.system
def test_every_entry_is_good_bibtex(tmp_path):
    everything = "\n\n".join(entries().values())
    document = (
        r"\documentclass{article}\begin{document}\nocite{*}\bibliographystyle{plain}\bibliography{tables}\end{document}"
    )

    said, _ = typeset(tmp_path, document, tables=everything)

    assert "Warning--" not in (tmp_path / "t.blg").read_text()
    assert f"[{len(entries())}]" in said

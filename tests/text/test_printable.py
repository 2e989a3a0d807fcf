"""Untrusted text in every output format: no control characters, no markup."""

import csv
import io
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from domainbed_sweeps import Kind, write_sweep
from hostile import TEXTS, UNSEEN, texts

from dg_batchformer.cli.main import main
from dg_batchformer.storage.folders import write_text
from dg_batchformer.tables.render import FORMATS
from dg_batchformer.tables.render.latex_text import escape
from dg_batchformer.text.printable import in_csv, in_markdown, one_line, printable


def _made_up(count):
    """Return texts composed of hostile and plain parts."""
    return [*TEXTS, *texts(random.Random(0), count)]


@pytest.mark.parametrize("shown", [printable, one_line, in_markdown, in_csv, escape])
def test_no_format_contains_invisible_characters(shown):
    for text in _made_up(500):
        assert not UNSEEN.search(shown(text)), repr(text)
        shown(text).encode()


@pytest.mark.parametrize(
    "text", ["ERM", "SWAD+BF", "Müller, 2020", "晴雨", "a/b (2 of 3)", "90% · ±", "x\ty", "a\nb", "🤖", "नमस्ते"]
)
def test_ordinary_text_stays_as_it_is(text):
    assert printable(text) == text
    assert one_line(text) == " ".join(text.split())


def test_escaped_text_is_valid_json():
    unseen = "\x9b\u202e\U000e0041"

    assert json.loads(f'"{printable(unseen)}"') == unseen


def test_markdown_contains_only_our_markup():
    for text in _made_up(500):
        left = re.sub(r"\\[!-/:-@\[-`{-~]", "", in_markdown(text))  # escaped punctuation
        assert not re.search(r"[\[\]<>`*|]|://|www\.|&#?\w+;", left), repr(text)
        assert "\n" not in left


def test_csv_has_no_formulas_and_numbers_are_unchanged():
    for text in _made_up(500):
        assert not re.match(r"\s*[=+\-@\t\r]", in_csv(text)) or float(text)
    assert in_csv("-1.5") == "-1.5"
    assert in_csv("ERM+BF") == "ERM+BF"


def test_latex_has_only_our_commands_and_no_row_starts_with_optional_spacing():
    for text in _made_up(500):
        shown = escape(text)
        assert not re.search(r"\\(input|write)", shown)
        assert not shown.startswith(("[", "*"))
        assert shown.count("{") - shown.count(r"\{") == shown.count("}") - shown.count(r"\}")


def test_files_contain_only_visible_characters(tmp_path):
    write_text(tmp_path / "tables.txt", "".join(TEXTS))

    assert not UNSEEN.search((tmp_path / "tables.txt").read_text())


@pytest.fixture
def foreign(tmp_path):
    """Return a DomainBed sweep whose algorithms have hostile names."""
    names = tuple(text for text in _made_up(10) if text.strip())
    write_sweep(tmp_path / "sweep", Kind(("PACS",), names, trials=1, draws=1, evaluations=2), seed=0)
    return tmp_path / "sweep"


def test_names_in_a_foreign_sweep_are_harmless_in_every_format(foreign, tmp_path, capsys):
    main(["tables", str(foreign), "--output", str(tmp_path / "out")])
    capsys.readouterr()

    for form in FORMATS.values():
        text = (tmp_path / "out" / form.file).read_text()
        assert not UNSEEN.search(text), form.file
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "tables.csv").read_text())))
    assert not any(row["row"].lstrip().startswith(("=", "+", "-", "@")) for row in rows)
    assert "onerror=alert" not in (tmp_path / "out" / "tables.html").read_text().replace(
        "&lt;img src=x onerror=alert", ""
    )


@pytest.mark.system
def test_a_report_is_drawn_of_names_in_a_foreign_sweep(foreign, tmp_path):
    assert main(["report", str(foreign), "--output", str(tmp_path / "report.html")]) == 0
    assert not UNSEEN.search((tmp_path / "report.html").read_text())


@pytest.mark.parametrize("form", ["text", "domainbed", "domainbed_latex", "json"])
def test_names_in_a_foreign_sweep_do_not_move_the_cursor(foreign, form):
    command = [sys.executable, "-m", "dg_batchformer", "tables", str(foreign), "--format", form]
    done = subprocess.run(command, capture_output=True, cwd=Path(__file__).parents[2])

    assert done.returncode == 0
    assert not UNSEEN.search(done.stdout.decode())
    assert not UNSEEN.search(done.stderr.decode())
    if form == "domainbed_latex":
        assert b"\\input" not in done.stdout

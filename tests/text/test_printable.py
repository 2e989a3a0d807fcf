"""Text of strangers in every format that shows it: nothing moves the cursor, nothing becomes markup."""

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

from dg_batchformer.cli.main import main
from dg_batchformer.storage.folders import write_text
from dg_batchformer.tables.render import FORMATS
from dg_batchformer.tables.render.latex_text import escape
from dg_batchformer.text.printable import in_csv, in_markdown, one_line, printable

HOSTILE = (
    "\x1b[2J\x1b]0;title\x07", "\x9b31m", "a\rb", "a\x08\x08", "\u202egnp.exe", "\u2066x\u2069", "\u200f", "\ud800",
    "\udcff", "a\nb", "\tx", "\u2028", "\x00", "=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", " =1", "[x](http://a.b)",
    "![x](http://a.b/c.png)", "<img src=x onerror=alert(1)>", "a|b", "https://a.b/c", "www.a.b", "&lt;b&gt;", "`code`",
    "[1cm]", "*", "* star", "\\input{/etc/passwd}", "}$&#^_~%{", "\\write18{ls}", "${jndi:x}", "\U000e0041\U000e0042",
)  # fmt: skip
UNSEEN = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)


def _made_up(count):
    """Return texts put together of hostile and plain parts."""
    rng = random.Random(0)
    parts = (*HOSTILE, "ERM", " ", "é", "晴", "\\", "1.5")
    return [*HOSTILE, *("".join(rng.choices(parts, k=rng.randint(1, 4))) for _ in range(count))]


@pytest.mark.parametrize("shown", [printable, one_line, in_markdown, in_csv, escape])
def test_nothing_unseen_is_left_in_any_format(shown):
    for text in _made_up(500):
        assert not UNSEEN.search(shown(text)), repr(text)
        shown(text).encode()


@pytest.mark.parametrize(
    "text", ["ERM", "SWAD+BF", "Müller, 2020", "晴雨", "a/b (2 of 3)", "90% · ±", "x\ty", "a\nb", "🤖", "नमस्ते"]
)
def test_ordinary_text_stays_as_it_is(text):
    assert printable(text) == text
    assert one_line(text) == " ".join(text.split())


def test_what_is_spelled_out_is_json_too():
    unseen = "\x9b\u202e\U000e0041"

    assert json.loads(f'"{printable(unseen)}"') == unseen


def test_markdown_has_no_markup_but_ours():
    for text in _made_up(500):
        left = re.sub(r"\\[!-/:-@\[-`{-~]", "", in_markdown(text))  # escaped punctuation
        assert not re.search(r"[\[\]<>`*|]|://|www\.|&#?\w+;", left), repr(text)
        assert "\n" not in left


def test_csv_has_no_formula_and_numbers_stay():
    for text in _made_up(500):
        assert not re.match(r"\s*[=+\-@\t\r]", in_csv(text)) or float(text)
    assert in_csv("-1.5") == "-1.5"
    assert in_csv("ERM+BF") == "ERM+BF"


def test_latex_has_no_command_but_ours_and_no_row_begins_with_its_spacing():
    for text in _made_up(500):
        shown = escape(text)
        assert not re.search(r"\\(input|write)", shown)
        assert not shown.startswith(("[", "*"))
        assert shown.count("{") - shown.count(r"\{") == shown.count("}") - shown.count(r"\}")


def test_files_hold_only_what_shows(tmp_path):
    write_text(tmp_path / "tables.txt", "".join(HOSTILE))

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
    assert main(["report", str(foreign), "--output", str(tmp_path / "report.html")]) == 0


@pytest.mark.parametrize("form", ["text", "domainbed", "domainbed_latex", "json"])
def test_names_in_a_foreign_sweep_do_not_move_the_cursor(foreign, form):
    command = [sys.executable, "-m", "dg_batchformer", "tables", str(foreign), "--format", form]
    done = subprocess.run(command, capture_output=True, cwd=Path(__file__).parents[2])

    assert done.returncode == 0
    assert not UNSEEN.search(done.stdout.decode())
    assert not UNSEEN.search(done.stderr.decode())
    if form == "domainbed_latex":
        assert b"\\input" not in done.stdout

"""Commands to paste into a shell."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dg_batchformer.cli.main import parser
from dg_batchformer.text.command import PROGRAM, command, started_as

AWKWARD = ("a b", "it's", '"', "$(x)", "`x`", "*", "a;b", "~", "é", "#", "a\\b")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/usr/local/bin/dg-batchformer", "dg-batchformer"),
        ("/usr/lib/python3/site-packages/dg_batchformer/__main__.py", "python -m dg_batchformer"),
        ("", "python -m dg_batchformer"),
    ],
)
def test_commands_begin_as_the_program_was_started(path, said):
    assert started_as(path) == said


@pytest.mark.parametrize("name", AWKWARD)
def test_a_shell_passes_every_word_unchanged(name):
    line = command("tables", Path(name), Path(f"-{name}"), output=Path(name), mix=True, published=["ERM", name])
    show = f"{sys.executable} -c 'import sys; print(ascii(sys.argv[1:]))'"

    said = subprocess.run(line.replace(PROGRAM, show, 1), shell=True, capture_output=True, text=True).stdout

    words = ["tables", name, f"./-{name}", "--output", name, "--mix", "--published", "ERM", name]
    assert said == ascii(words) + "\n"


def test_omitted_options_are_left_out_and_a_value_with_a_dash_is_not_an_option():
    assert command("tables", Path("a"), mix=False, output=None, selection=[]) == f"{PROGRAM} tables a"
    line = command("tables", Path("a"), compare_to="-x")
    assert parser().parse_args(shlex.split(line.removeprefix(PROGRAM))).compare_to == "-x"

"""What the documents say, held against what there is."""

import re
import shlex
from pathlib import Path

import pytest

from dg_batchformer.algorithms import ALGORITHMS
from dg_batchformer.cli.main import _parser
from dg_batchformer.registry import WRAPPERS
from dg_batchformer.spec.protocols import PROTOCOLS

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("results/*/README.md")])
PLACEHOLDERS = ("NAME", "my_method")
README = (ROOT / "README.md").read_text()


def _commands():
    for document in DOCUMENTS:
        for line in document.read_text().splitlines():
            if match := re.match(r"\s*(?:\$ )?python -m dg_batchformer (.*?)(?:\s+#.*)?$", line):
                yield pytest.param(match[1], id=f"{document.parent.name}: {match[1]}")


@pytest.mark.parametrize("command", list(_commands()))
def test_every_command_in_a_document_is_one(command):
    options = _parser().parse_args(shlex.split(command))

    for path in re.findall(r"sweeps/\w+\.yaml", command):
        assert (ROOT / path).exists()
    assert options.run


def test_the_readme_names_every_algorithm_wrapper_and_protocol():
    for name in (*ALGORITHMS, *WRAPPERS, *PROTOCOLS):
        assert re.search(rf"\b{re.escape(name)}\b", README), name


def test_the_map_names_everything_at_the_top_and_nothing_else():
    mapped = README.split("```text")[1].split("```")[0]
    named = set(re.findall(r"^(?:  )?((?:[\w.]+(?:\.py|/) ?)+)", mapped, re.MULTILINE))
    words = {word.rstrip("/") for words in named for word in words.split()}
    package = ROOT / "dg_batchformer"
    small = {"__init__.py", "__main__.py", "__pycache__", "errors.py", "times.py", "yaml_lines.py", "listing.py"}

    assert {path.name for path in package.iterdir()} - small <= words
    assert all((ROOT / word).exists() or (package / word).exists() for word in words)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_files_named_in_backticks_exist(document):
    text = document.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (document.parent / target).exists(), target
    for name in re.findall(r"`((?:dg_batchformer|tests|tools|sweeps)/[\w./]+\.\w+)`", text):
        assert (ROOT / name).exists() or any(word in name for word in PLACEHOLDERS), name


def test_every_sweep_and_tool_is_in_its_readme():
    for folder, pattern in (("sweeps", "*.yaml"), ("tools", "*.*")):
        text = (ROOT / folder / "README.md").read_text()
        for path in (ROOT / folder).glob(pattern):
            assert path.name == "README.md" or f"`{path.stem}`" in text or f"`{path.name}`" in text, path


def test_the_worked_algorithm_is_the_registered_one():
    code = README.split("```python\n")[1].split("```")[0]

    assert code == (ROOT / "dg_batchformer" / "algorithms" / "sd.py").read_text()

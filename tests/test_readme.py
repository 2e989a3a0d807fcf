"""Documents agree with the project: commands parse, links resolve, tables of names are complete."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from dg_batchformer.algorithms import ALGORITHMS
from dg_batchformer.cli.main import parser
from dg_batchformer.registry import WRAPPERS
from dg_batchformer.spec.protocols import PROTOCOLS

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("results/*/README.md"), *ROOT.glob("docs/*.md")]
)
PLACEHOLDERS = ("NAME", "my_method")
README = (ROOT / "README.md").read_text()


def _commands():
    for document in DOCUMENTS:
        for line in document.read_text().replace("\\\n", " ").splitlines():
            if match := re.match(r"\s*(?:\$ )?(?:python -m dg_batchformer|dg-batchformer) (.*?)(?:\s+#.*)?$", line):
                yield pytest.param(match[1], id=f"{document.parent.name}: {match[1]}")


@pytest.fixture(scope="module")
def command_line():
    return parser()


@pytest.mark.parametrize("command", list(_commands()))
def test_every_command_in_a_document_parses(command, command_line):
    options = command_line.parse_args([word for word in shlex.split(command) if word != "--help"])

    for path in re.findall(r"sweeps/\w+\.yaml", command):
        assert (ROOT / path).exists()
    assert options.run


def test_the_algorithms_page_names_every_algorithm_and_the_names_page_every_wrapper_and_protocol():
    algorithms = (ROOT / "dg_batchformer" / "algorithms" / "README.md").read_text()
    names = (ROOT / "docs" / "names.md").read_text()

    for name in ALGORITHMS:
        assert re.search(rf"\b{re.escape(name)}\b", algorithms), name
    for name in (*WRAPPERS, *PROTOCOLS):
        assert f"`{name}`" in names, name


def test_the_architecture_page_names_every_room():
    page = (ROOT / "docs" / "architecture.md").read_text()

    for path in (ROOT / "dg_batchformer").iterdir():
        if (path / "__init__.py").exists():
            assert f"{path.name}/" in page, path.name


def test_the_readme_is_short():
    prose = [line for line in README.splitlines() if not line.startswith("|")]
    assert len(" ".join(prose).split()) < 750


def _anchors(document):
    """Return the anchors of a document's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_images_and_files_named_in_backticks_exist(document):
    text = document.read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    links += re.findall(r"```\{(?:image|include)\} (\S+)", text)
    for link in links:
        target, _, anchor = link.partition("#")
        if not re.match(r"https?:", link):
            path = document.parent / target if target else document
            assert path.exists(), link
            assert not anchor or anchor in _anchors(path), link
    for name in re.findall(r"`((?:dg_batchformer|docs|tests|tools|sweeps)/[\w./]+\.\w+)`", text):
        assert (ROOT / name).exists() or any(word in name for word in PLACEHOLDERS), name


def test_ci_on_linux_runs_what_main_must_pass_and_ci_on_macos_the_unit_tests():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    runs = {name: [step.get("run") for step in job["steps"]] for name, job in workflow["jobs"].items()}

    assert ".ci/run" in runs["linux"]
    assert "make test" in runs["macos"]


def test_every_sweep_and_tool_is_in_its_readme():
    for folder, pattern in (("sweeps", "*.yaml"), ("tools", "*.*")):
        text = (ROOT / folder / "README.md").read_text()
        for path in (ROOT / folder).glob(pattern):
            assert path.name == "README.md" or f"`{path.stem}`" in text or f"`{path.name}`" in text, path

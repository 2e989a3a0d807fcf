"""Design rules: which module may import which, and what runs without torch."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dg_batchformer.spec.manifest import manifest_content
from dg_batchformer.spec.sweep_file import load_sweep
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.sweep.expand import expand

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dg_batchformer"

# Lowest first; a module may import modules of its own room and of any room below.
LAYERS = [
    {"text"},
    {"errors"},
    {"seeds", "storage", "runtime"},
    {"hparams", "catalog"},
    {"spec", "registry"},
    {"results", "sweep"},
    {"stats"},
    {"tables"},
    {"report"},
    # only rooms above this line import torch: tables and status run on login nodes
    {"networks", "datasets"},
    {"optim"},
    {"algorithms"},
    {"wrappers"},
    {"callbacks"},
    {"plugins"},
    {"hparams_registry", "domainbed"},
    {"training"},
    {"models"},
    {"explain"},
    {"cli"},
    {"api", "testing"},
    {"__main__"},
]
# The only modules below the line that import slow packages, and only when needed.
HEAVY = {"torch", "torchvision", "scipy", "matplotlib", "jinja2"}
MAY_IMPORT = {
    "report/figures": {"matplotlib"},
    "report/plots.py": {"matplotlib"},
    "report/page.py": {"jinja2"},
    "stats/statistics.py": {"scipy"},
}
WITHOUT_TORCH = set().union(*LAYERS[: LAYERS.index({"report"}) + 1])
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def _part(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_imports_only_what_lies_below_it(path):
    part = _part(path)
    assert part in LEVEL, f"{part} has no layer"
    for name in _imports(path):
        if name.startswith("dg_batchformer."):
            imported = name.split(".")[1]
            if imported in LEVEL and imported != part:
                assert LEVEL[imported] < LEVEL[part], f"{path} imports {name}"


@pytest.mark.parametrize("path", [path for path in MODULES if _part(path) in WITHOUT_TORCH], ids=str)
def test_modules_below_the_line_import_neither_torch_nor_slow_packages(path):
    allowed = set().union(*(names for place, names in MAY_IMPORT.items() if path.is_relative_to(place)))

    assert not {name.split(".")[0] for name in _imports(path)} & (HEAVY - allowed)


def test_the_root_has_few_modules_and_every_package_has_a_docstring():
    rooms = {path.parts[0] for path in MODULES if len(path.parts) > 1}
    loose = [path for path in MODULES if len(path.parts) == 1]

    assert len(loose) < 10  # with __init__
    for room in rooms:
        docstring = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))
        assert docstring, f"{room} does not say what it is for"


def test_plugins_are_imported_by_name_only_within_their_package():
    """Adding an algorithm means adding a file."""
    common = (
        "base",
        "criterion",
        "averaging.WeightAveraging",
        "compose",
        "get_algorithm_class",
        "Algorithm",
        "ALGORITHMS",
    )
    for path in MODULES:
        for name in _imports(path):
            package, _, plugin = name.removeprefix("dg_batchformer.").partition(".")
            if package in ("algorithms", "wrappers") and _part(path) != package:
                assert plugin.startswith(common), f"{path} imports {name}"


@pytest.mark.parametrize(
    ("verb", "missing"),
    [("status", HEAVY), ("tables", HEAVY | {"yaml"}), ("report", {"torch", "torchvision", "scipy"})],
    ids=["status", "tables", "report"],
)
def test_commands_of_login_nodes_run_without_optional_packages(verb, missing, tmp_path):
    sweep = load_sweep(ROOT / "sweeps" / "quickstart.yaml")
    SweepFolder(tmp_path / "quickstart").write(manifest_content(sweep, expand(sweep)))
    code = f"import sys\nfor name in {sorted(missing)}: sys.modules[name] = None\n"
    code += "from dg_batchformer.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    output = {"tables": ["--output", str(tmp_path / "tables")], "report": ["--output", str(tmp_path / "report.html")]}

    command = [sys.executable, "-c", code, verb, str(tmp_path / "quickstart"), *output.get(verb, [])]
    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    written = [path.read_text() for path in tmp_path.glob("report.html")]
    assert "SWAD+BF" in done.stdout + "".join(written)


def test_every_data_file_is_in_the_wheel():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packed = {path for pattern in settings["package-data"]["dg_batchformer"] for path in PACKAGE.glob(pattern)}
    there = {path for path in PACKAGE.rglob("*.*") if path.suffix not in (".py", ".pyc", ".md")}

    assert there == packed


_OPENS_IMAGES = PACKAGE / "datasets" / "decoding.py"


@pytest.mark.parametrize("folder", ["dg_batchformer", "tools"])
def test_images_are_opened_in_one_place(folder):
    """Otherwise Pillow would try all its formats, some of which start programs, without a memory limit."""
    for path in set((ROOT / folder).rglob("*.py")) - {_OPENS_IMAGES}:
        for node in ast.walk(ast.parse(path.read_text())):
            opened = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            named = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            assert opened not in ("Image.open", "PIL.Image.open", "plt.imread", "read_image"), f"{path} opens images"
            assert not (isinstance(node, ast.ImportFrom) and node.module == "PIL.Image" and "open" in named), path


def test_tests_use_no_private_names_of_the_package():
    """Tests hold promises; to patch a constant or a probe of the machine, they name it as a string."""
    for path in (ROOT / "tests").rglob("*.py"):
        nodes = [*ast.walk(ast.parse(path.read_text()))]
        imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
        from_package = [node for node in imports if node.module.startswith("dg_batchformer")]
        ours = {alias.asname or alias.name for node in from_package for alias in node.names}
        attributes = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
        used = [*ours, *(node.attr for node in attributes if node.value.id in ours)]
        assert not [name for name in used if re.match("_[^_]", name)], path


# Modules that write into folders that this process has just created.
_WRITES_ITS_OWN = {
    "storage/safe_write.py",
    "datasets/pixels.py",
    "datasets/prepare/archives.py",
    "datasets/prepare/parquet.py",
}
_WRITING = {"write_text", "write_bytes", "touch"}


@pytest.mark.parametrize("path", [path for path in MODULES if str(path) not in _WRITES_ITS_OWN], ids=str)
def test_nothing_is_written_through_a_link(path):
    """Links that others put into our folders must not lead to other files: see ``storage.safe_write``."""
    calls = [node for node in ast.walk(ast.parse((PACKAGE / path).read_text())) if isinstance(node, ast.Call)]
    for call in calls:
        if isinstance(call.func, ast.Attribute):
            name, modes = call.func.attr, [one.value for one in call.args if isinstance(one, ast.Constant)]
            assert name not in _WRITING, f"{path}:{call.lineno} writes past own_files"
            written = [mode for mode in modes if isinstance(mode, str) and mode[:1] in ("a", "w", "x", "+")]
            assert name not in ("open", "FileHandler") or not written, f"{path}:{call.lineno} writes past own_files"


# Modules that read files of the package or the kernel.
_READS_ITS_OWN = {
    "storage/processes.py", "tables/published/data.py", "tables/render/html.py", "report/page.py", "datasets/counts.py",
    "catalog/ndcl_settings.py", "catalog/wrappers.py",
    "runtime/memory.py", "storage/safe_read.py",
}  # fmt: skip
_READING = {"read_text", "read_bytes"}


@pytest.mark.parametrize("path", [path for path in MODULES if str(path) not in _READS_ITS_OWN], ids=str)
def test_foreign_files_are_opened_as_regular_files_of_bounded_size(path):
    """A FIFO or a device in place of a file must not block."""
    calls = [node for node in ast.walk(ast.parse((PACKAGE / path).read_text())) if isinstance(node, ast.Call)]
    for call in calls:
        if isinstance(call.func, ast.Attribute):
            assert call.func.attr not in _READING, f"{path}:{call.lineno} reads past regular_files"
            modes = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
            assert call.func.attr != "open" or not {"r", "rb"} & set(modes), f"{path}:{call.lineno} opens past it"

"""The commands of README.md and docs/ run in the printed order, in a fresh copy of the project."""

import random
import re
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest
from domainbed_sweeps import KINDS
from domainbed_sweeps import write_sweep as write_domainbed_sweep
from PIL import Image
from sweep_folders import write_sweep

from dg_batchformer.catalog.datasets import dataset_facts
from dg_batchformer.spec.sweep_file import load_sweep

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]

# Parts of commands that need a network, a GPU, SLURM or more than minutes.
NEEDS = {
    "git clone": "a network",
    "cd dg_batchformer": "the clone",
    "data prepare": "a network",
    "--protocol dinov2": "weights of DINOv2",
    "--protocol clip-2025": "weights of CLIP",
    "sweeps/recipes_lite0.yaml": "an hour",
    "sweep sweeps/pacs.yaml": "a GPU",
    "--data_path exact": "a GPU",
    "nvidia-cuda-mps-control": "a GPU",
    "slurm": "SLURM",
    "cancel": "SLURM",
    "status results/quickstart": "a sweep that SLURM trains",
    "--plugins domainbed": "a checkout of DomainBed",
    "--plugins my_lab": "images of street scenes",
    "--plugins fork:": "a checkout of a fork",
    "soup": "runs trained with --predictions",
    "--metric": "runs trained with --predictions",
    "--expect": "the runs of a reproduction",
    "watch": "a reader who ends it",
    "results/imbalanced_pacs": "the runs of a sweep of hours",
    "make demo": "minutes, which the README takes",
    "source .venv": "the environment that is active already",
}
# data verify exits with 1 if data have findings, as the random pixels in place of PACS do.
FINDS = "data verify"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Copy the project, with an environment that uses the packages of this one."""
    copy = tmp_path_factory.mktemp("clone") / "dg_batchformer"
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().splitlines():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, copy / name)
    venv.create(copy / ".venv", with_pip=False)
    [site] = copy.glob(".venv/lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{copy}\n{sysconfig.get_path('purelib')}\n")
    programs = copy / ".venv" / "bin"
    for name, module in {"dg-batchformer": "dg_batchformer.__main__", "pip": "pip._internal.cli.main"}.items():
        (programs / name).write_text(
            f"#!{programs / 'python'}\nimport sys\nfrom {module} import main\n\nsys.exit(main())\n"
        )
        (programs / name).chmod(0o755)
    (copy / ".venv" / "installed").touch()  # so that make demo installs nothing
    _write_placeholders(copy)
    return copy


@pytest.fixture
def project(clone):
    """Return the copy; afterwards, remove the plug-in that several documents start with."""
    yield clone
    for file in clone.glob("*my_method.py"):
        file.unlink()


def _write_placeholders(folder):
    """Write the files that documents assume: data, a module, photos, trained sweeps, and fewer steps."""
    rng = random.Random(0)
    domains = {"PACS": dataset_facts("PACS").names, "Streets": ("rain", "night", "fog")}
    places = [
        f"DATA/{dataset}/{domain}/{kind}" for dataset, names in domains.items() for domain in names for kind in "ab"
    ]
    for place in (*places, "photos", "more"):
        (folder / place).mkdir(parents=True)
        for index in range(8):
            image = Image.frombytes("RGB", (40, 40), rng.randbytes(40 * 40 * 3))
            image.save(folder / place / f"{index}.jpg")
    [module, *_] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "plugins.md").read_text(), re.DOTALL)
    (folder / "my_module.py").write_text(module)
    [*_, streets] = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "quickstart.md").read_text(), re.DOTALL)
    (folder / "streets.yaml").write_text(f"{streets}steps: 3\n")
    pacs = load_sweep(ROOT / "sweeps" / "pacs.yaml")
    write_sweep(folder / "results" / "pacs", pacs, lambda run: rng.uniform(0.7, 0.8), hparams={"weights": "none"})
    write_domainbed_sweep(folder / "domainbed_sweep", KINDS["whole"]._replace(algorithms=("CORAL", "Mine")), seed=0)
    with (folder / "sweeps" / "quickstart.yaml").open("a") as file:
        file.write("\nsteps: 21\n")  # 32 runs; the README's single run trains all its steps


def _commands(document):
    return [
        line.removeprefix("$ ")
        for block in re.findall(r"```console\n(.*?)```", document.read_text(), re.DOTALL)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def _runnable(document):
    return [command for command in _commands(document) if not any(part in command for part in NEEDS)]


DOCUMENTS = [path for path in (*sorted(ROOT.glob("docs/*.md")), ROOT / "sweeps" / "README.md") if _runnable(path)]


def _run(commands, folder):
    """Run commands in one shell; stop at the first that fails."""
    lines = [f"{command} || test $? = 1" if FINDS in command else command for command in commands]
    script = "\n".join(["set -ex", *lines])
    environment = {"PATH": f"{folder / '.venv' / 'bin'}:/usr/bin:/bin", "XDG_CACHE_HOME": str(folder / ".cache")}
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def _shortened(command):
    """Cut the training of a command to three steps."""
    return f"{command} --steps 3" if " train " in command and "--steps" not in command else command


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_of_the_manual_run_as_printed_but_for_their_steps(document, project):
    _run(map(_shortened, _runnable(document)), project)


def test_the_commands_of_the_readme_run_as_printed(project):
    clone, *commands = _commands(ROOT / "README.md")

    assert clone.startswith("git clone ")  # of what is in ``project``
    assert commands[0] == "make demo"
    _run(commands, project)

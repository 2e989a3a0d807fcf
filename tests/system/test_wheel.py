"""The package as a wheel: built, installed into a new environment, and run from another folder."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Build the wheel, install it, and return the path of its command; dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # building leaves files beside the sources
    shutil.copytree(ROOT / "dg_batchformer", source / "dg_batchformer", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = "-m", "pip", "--quiet"
    subprocess.run([sys.executable, *pip, "wheel", "--no-deps", "--wheel-dir", folder, source], check=True)
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run([python, "-I", *pip, "install", "--no-deps", wheel], check=True)
    own = subprocess.run(
        [python, "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    (Path(own.stdout.strip()) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env" / "bin" / "dg-batchformer"


def _run(command, *words, cwd):
    done = subprocess.run([command, *words], cwd=cwd, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_installed_wheel_trains_and_prints_a_table_from_another_folder(command, tmp_path):
    (tmp_path / "small.yaml").write_text(
        "# Does the wheel work?\ndatasets: [Toy]\nalgorithms: [ERM, ERM+BF]\nprotocol: quick\n"
        "trials: 2\nsteps: 20\ntest_envs: [A]\n"
    )

    _run(command, "train", "--protocol", "quick", "--steps", "20", "--output_dir", "run", cwd=tmp_path)
    _run(command, "sweep", "small.yaml", "--devices", "cpu", cwd=tmp_path)
    tables = _run(command, "tables", "results/small", "--output", "tables", "--published", "ERM", cwd=tmp_path)
    _run(command, "report", "results/small", cwd=tmp_path)

    assert "ERM+BF" in tables
    assert (tmp_path / "results" / "small" / "report.html").exists()
    assert not list(tmp_path.glob("dg_batchformer*"))

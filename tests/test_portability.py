"""Portability to macOS: the package runs without functions, files and limits that only Linux has."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Functions of os that macOS lacks, according to the documentation of Python.
LINUX_ONLY = {
    "copy_file_range", "eventfd", "fdatasync", "getrandom", "getxattr", "memfd_create", "pidfd_open", "pipe2",
    "posix_fadvise", "posix_fallocate", "sched_getaffinity", "sched_setaffinity", "setns", "setxattr", "splice",
    "unshare",
}  # fmt: skip
# Imported by every Python process with this PYTHONPATH, including workers.
LIKE_MACOS = f"""
import os, shutil, subprocess, sys, tempfile

for name in {sorted(LINUX_ONLY)}:
    if hasattr(os, name):
        delattr(os, name)

def refuse(event, arguments):
    if event == "open" and str(arguments[0]).startswith(("/proc/", "/sys/", "/dev/shm")):
        raise FileNotFoundError(2, "No such file or directory", arguments[0])

sys.addaudithook(refuse)
"""


@pytest.fixture
def run_like_macos(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(LIKE_MACOS)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "LD_PRELOAD": "",  # tcmalloc is for Linux
    }

    def run(*arguments):
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.system
def test_every_module_imports_without_linux_only_functions(run_like_macos):
    code = "import importlib, os, pkgutil, dg_batchformer\n"
    code += "assert not hasattr(os, 'sched_getaffinity')\n"
    code += "modules = pkgutil.walk_packages(dg_batchformer.__path__, 'dg_batchformer.')\n"
    code += "print(len([importlib.import_module(m.name) for m in modules if not m.name.endswith('__main__')]))"

    assert int(run_like_macos("-c", code)) > 200


@pytest.mark.system
def test_the_demo_and_image_folders_run_without_linux_only_functions(run_like_macos, image_folder, tmp_path):
    demo = (ROOT / "sweeps" / "quickstart.yaml").read_text()
    assert "trials: 2" in demo
    demo = demo.replace("trials: 2", "trials: 1").replace("[ERM, ERM+BF, SWAD, SWAD+BF]", "[SWAD+BF]")
    (tmp_path / "demo.yaml").write_text(demo + "steps: 2\ntest_envs: [sketch]\n")
    program = "-m", "dg_batchformer"

    run_like_macos(*program, "sweep", "demo.yaml", "--threads", "1")
    tables = run_like_macos(*program, "tables", "results/demo", "--output", "tables")
    images = "--dataset", "PACS", "--data_dir", image_folder(), "--protocol", "quick", "--steps", "2"
    run_like_macos(*program, "train", *images, "--set", "image_size=16", "--output_dir", "cached")

    assert "SWAD+BF" in tables
    assert (tmp_path / "cached" / "done").exists()


@pytest.mark.parametrize("folder", ["dg_batchformer", "tools"])
def test_linux_only_functions_are_called_only_after_checking_for_them(folder):
    for path in (ROOT / folder).rglob("*.py"):
        text = path.read_text()
        used = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
        for name in used & LINUX_ONLY:
            assert f'hasattr(os, "{name}")' in text, f"{path} calls os.{name} on macOS too"

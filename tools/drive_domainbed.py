#!/usr/bin/env python3
"""Test the integration with DomainBed in both directions: tools/drive_domainbed.py DOMAINBED_DIR [NAME ...]

DOMAINBED_DIR is a checkout of facebookresearch/DomainBed. First its algorithms here, as the plug-in ``domainbed``: each
NAME (by default a few) is trained plain and with BF, or refused with a reason. Then our wrappers there: its train,
sweep and collect_results run compositions in a copy of the checkout with dg_batchformer installed. Exit status 1 if
something neither trains nor gives a reason. WILDS, timm and tqdm are replaced by stand-ins if they are not installed;
networks are small and need no weights.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = ("ERM", "IRM", "CORAL", "DANN", "Fish", "SelfReg", "GroupDRO", "EQRM", "ERMPlusPlus")
REFUSED = {"Fish+BF": "builds a featurizer within its update", "SelfReg+BF": "cannot pair these rows"}
THERE = ("ERM+BF", "CORAL+BF", "BF+IRM", "ERM+SMA", "EMA+CORAL")
HPARAMS = {"BF": "bf_heads", "SMA": "sma_burn_in", "EMA": "ema_decay"}  # keys of records that show a wrapper
INSTALL = "\nimport sys, dg_batchformer.domainbed\ndg_batchformer.domainbed.install(sys.modules[__name__])\n"
STAND_INS = {
    "wilds/datasets/camelyon17_dataset.py": "Camelyon17Dataset = object\n",
    "wilds/datasets/fmow_dataset.py": "FMoWDataset = object\n",
    "timm.py": "",
    "tqdm.py": "def tqdm(items, **_): return items\n",
}
FIRST = ("import torch\n"  # CUDA functions that DomainBed calls
         "if not torch.cuda.is_available():\n    torch.cuda.max_memory_allocated = lambda *_: 0\n")  # fmt: skip


def main() -> int:
    """Run both directions; print a line per attempt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domainbed", type=Path, metavar="DOMAINBED_DIR")
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME")
    options = parser.parse_args()
    if not (options.domainbed / "domainbed" / "algorithms.py").is_file():
        parser.error(f"{options.domainbed} is no checkout of DomainBed: it has no domainbed/algorithms.py")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        copy = work / "checkout"
        shutil.copytree(options.domainbed / "domainbed", copy / "domainbed")
        _write_stand_ins(work / "stand_ins")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (copy, work / "stand_ins", ROOT)))}
        failures = [_train_here(name, work, environment) for base in options.names for name in (base, f"{base}+BF")]
        with (copy / "domainbed" / "__init__.py").open("a") as file:
            file.write(FIRST + INSTALL)
        failures += [_train_there(name, work, environment) for name in THERE]
        failures += [_refused_there("SWAD+ERM", work, environment), _sweep_there(work, environment)]
    return 1 if any(failures) else 0


def _write_stand_ins(folder: Path) -> None:
    for name, text in STAND_INS.items():
        if find_spec(name.split("/")[0].removesuffix(".py")) is None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def _run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def _say(what: str, failed: bool, how: str) -> bool:
    print(f"{'FAILS' if failed else 'ok':5} {what}: {how}", flush=True)
    return failed


def _last_line(said: str) -> str:
    return next((line for line in reversed(said.splitlines()) if line.strip()), "nothing was said")


def _records(folder: Path) -> list[dict[str, object]]:
    file = folder / "results.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _train_here(name: str, work: Path, environment: dict[str, str]) -> bool:
    """Train a few steps of ``domainbed/NAME`` in our loop."""
    full, output = f"domainbed/{name}", work / "here" / name
    command = ["-m", "dg_batchformer", "train", "--plugins", "domainbed", "--algorithm", full, "--dataset", "Debug28"]
    command += ["--steps", "3", "--checkpoint_freq", "1", "--hparams", '{"batch_size": 8}', "--output_dir", str(output)]
    status, said = _run(command, environment)
    if name in REFUSED:
        return _say(f"here, {full}", REFUSED[name] not in said, f"refused: {_last_line(said)}")
    records = len(_records(output))
    return _say(f"here, {full}", status != 0 or records < 3, f"{records} records" if records else _last_line(said))


def _train_there(name: str, work: Path, environment: dict[str, str]) -> bool:
    """Train a few steps of a composition in DomainBed's own train."""
    output = work / "there" / name
    status, said = _run(_their_train(name, output), environment)
    records = _records(output)
    own = [HPARAMS[part] for part in name.split("+") if part in HPARAMS]
    failed = status != 0 or not records or any(hparam not in str(records[-1]["hparams"]) for hparam in own)
    return _say(f"there, {name}", failed, f"{len(records)} records" if records else _last_line(said))


def _refused_there(name: str, work: Path, environment: dict[str, str]) -> bool:
    status, said = _run(_their_train(name, work / "there" / name), environment)
    return _say(f"there, {name}", status == 0 or "cannot run in DomainBed's loop" not in said, _last_line(said))


def _their_train(name: str, output: Path) -> list[str]:
    command = ["-m", "domainbed.scripts.train", "--dataset", "Debug28", "--algorithm", name, "--steps", "3"]
    return [*command, "--checkpoint_freq", "1", "--hparams", '{"batch_size": 4}', "--output_dir", str(output)]


def _sweep_there(work: Path, environment: dict[str, str]) -> bool:
    """Run a sweep with DomainBed's launcher, then print its tables."""
    output = work / "sweep"
    command = ["-m", "domainbed.scripts.sweep", "launch", "--data_dir", str(work), "--output_dir", str(output)]
    command += ["--command_launcher", "local", "--algorithms", "ERM", "ERM+BF", "--datasets", "Debug28", "--n_trials"]
    command += ["1", "--n_hparams", "1", "--steps", "2", "--single_test_envs", "--skip_confirmation"]
    command += ["--hparams", '{"batch_size": 4}']
    python = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])}  # it starts `python`
    status, said = _run(command, {**environment, **python})
    done = len(list(output.glob("*/done")))
    if status != 0 or done != 6:
        return _say("there, sweep", True, _last_line(said))
    _, tables = _run(["-m", "domainbed.scripts.collect_results", "--input_dir", str(output)], environment)
    return _say("there, sweep", "ERM+BF" not in tables, f"{done} runs done, ERM+BF in the tables of collect_results")


if __name__ == "__main__":
    sys.exit(main())

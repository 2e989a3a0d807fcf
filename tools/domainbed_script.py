#!/usr/bin/env python3
"""Run a script of DomainBed without downloads: tools/domainbed_script.py DOMAINBED_DIR train -- ARGUMENTS

DOMAINBED_DIR is a checkout of facebookresearch/DomainBed; the ARGUMENTS are passed to its ``domainbed.scripts.train``,
or another script, such as collect_results. Networks have random weights; folders are listed in sorted order. WILDS and
timm are not needed: their datasets and models are left out.
"""

import argparse
import os
import runpy
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torchvision


def main() -> None:
    """Prepare the imports, then run DomainBed's script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domainbed", type=Path)
    parser.add_argument("script", help="as train, collect_results")
    parser.add_argument("arguments", nargs="*", help="of the script, after --")
    options = parser.parse_args()
    if find_spec("wilds") is None:
        stand_in("wilds.datasets.camelyon17_dataset", Camelyon17Dataset=object)
        stand_in("wilds.datasets.fmow_dataset", FMoWDataset=object)
    if find_spec("timm") is None:
        stand_in("timm")
    for name in ("resnet18", "resnet50"):
        setattr(torchvision.models, name, untrained(getattr(torchvision.models, name)))
    if not torch.cuda.is_available():
        torch.cuda.max_memory_allocated = lambda *_: 0  # it calls that on a CPU, too
    warnings.filterwarnings("ignore")
    sys.path.insert(0, str(options.domainbed))
    list_folder = os.listdir
    os.listdir = lambda *path: sorted(list_folder(*path))  # otherwise the order depends on the file system
    module = f"domainbed.scripts.{options.script}"
    sys.argv = [module, *options.arguments]
    runpy.run_module(module, run_name="__main__")


def stand_in(name: str, **attributes: Any) -> None:
    """Register empty modules for imports that are not installed."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), ModuleType(parts[end - 1]))
    vars(sys.modules[name]).update(attributes)


def untrained(build: Any) -> Any:
    """Return a builder of the same network that ignores ``pretrained``."""
    return lambda **_: build(weights=None)


if __name__ == "__main__":
    main()

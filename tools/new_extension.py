#!/usr/bin/env python3
"""Start an extension: tools/new_extension.py KIND NAME, such as: tools/new_extension.py algorithm MyMethod

Writes my_method.py, a plug-in that works, and its test, which passes, into the current folder; then make them yours.
Files of every kind are copies of those in tools/templates.
"""

import argparse
import importlib.util
import keyword
import re
import sys
from pathlib import Path

from dg_batchformer.cli.listing import names_of

TEMPLATES = Path(__file__).with_name("templates")
KINDS = ("algorithm", "wrapper", "dataset", "backbone", "protocol", "launcher", "callback")
NEXT = {
    "algorithm": "dg-batchformer train --plugins {module} --algorithm SWAD+{name}+BF --protocol quick",
    "wrapper": "dg-batchformer train --plugins {module} --algorithm SWAD+CORAL+{name} --protocol quick",
    "dataset": "dg-batchformer train --plugins {module} --dataset {name} --data_dir DATA --protocol quick",
    "backbone": "dg-batchformer train --plugins {module} --backbone {module} --protocol quick",
    "protocol": "dg-batchformer list hparams --plugins {module} --protocol {dashed}",
    "launcher": "dg-batchformer sweep FILE --launcher {name}   (with plugins: [{module}] in FILE)",
    "callback": "dg-batchformer train --plugins {module} --log {name} --protocol quick",
}
LONGEST = 30  # characters of a name, so that lines with it keep their length


def main() -> int:
    """Write the files, or print the reason in one sentence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("name", help="of the class, as MyMethod")
    parser.add_argument("--folder", type=Path, default=Path(), help="to write into (default: the current one)")
    options = parser.parse_args()
    kind, name, module = options.kind, options.name, snake_case(options.name)
    dashed = module.replace("_", "-")
    files = {
        template: options.folder / template.name.replace(kind, module)
        for template in sorted(TEMPLATES.glob(f"*{kind}.*"))
    }
    there = [f"{path} is there already; take another name" for path in files.values() if path.exists()]
    if reason := "".join(there[:1]) or refusal(name, module):
        print(f"error: {reason}", file=sys.stderr)
        return 2
    for template, path in files.items():
        text = template.read_text(encoding="utf-8")
        for old, new in {f"My{kind.title()}": name, f"my_{kind}": module, f"my-{kind}": dashed}.items():
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")
    print(f"next: python -m pytest test_{module}.py")
    print(f"      {NEXT[kind].format(name=name, module=module, dashed=dashed)}")
    return 0


def snake_case(name: str) -> str:
    """Return the name of the module of a class: MyVREx -> my_vrex."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def refusal(name: str, module: str) -> str:
    """Return why a name cannot be used, '' if it can."""
    if not re.fullmatch(r"[A-Z][A-Za-z0-9_]*", name) or keyword.iskeyword(name):
        return f"{name!r} is not a class name; write it as MyMethod"
    if len(name) > LONGEST:
        return f"{name} has {len(name)} characters; take a name of at most {LONGEST}"
    known = {taken.casefold(): taken for kind in ("algorithms", "wrappers", "datasets") for taken in names_of(kind)}
    if name.casefold() in known:
        return f"there is {known[name.casefold()]} already; take another name"
    if importlib.util.find_spec(module) is not None:
        return f"there is a module called {module} already; take another name"
    return ""


if __name__ == "__main__":
    sys.exit(main())

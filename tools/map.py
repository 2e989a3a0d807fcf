#!/usr/bin/env python
"""Print the map of the package: rooms, imports between them, cycles and small files.

Usage: tools/map.py [PACKAGE_DIR]; give a checkout of an older commit to compare.
"""

import argparse
import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

_SMALL = 50  # lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[1] / "dg_batchformer"
    parser.add_argument("package", type=Path, nargs="?", default=here, help="the package's folder (default: this one)")
    package = parser.parse_args().package.resolve()
    modules = {_name(path, package): path for path in sorted(package.rglob("*.py"))}
    arrows = imports_between_rooms(modules, package.name)
    rooms = sorted({_room(name) for name in modules} - {""})
    folders = [room for room in rooms if (package / room).is_dir()]
    loose = [room for room in rooms if room not in folders]
    sizes = {name: len(path.read_text().splitlines()) for name, path in modules.items()}
    small = [name for name, path in modules.items() if sizes[name] < _SMALL and path.name != "__init__.py"]

    print(f"{len(modules)} files, {sum(sizes.values())} lines, {len(small)} under {_SMALL} lines (without __init__)")
    print(f"{len(loose)} modules at the root: {', '.join(loose)}")
    print(f"{len(folders)} rooms, {sum(len(to) for to in arrows.values())} arrows:")
    for room in folders:
        inside = [name for name in modules if _room(name) == room]
        lines = sum(sizes[name] for name in inside)
        print(f"  {room:<14} {len(inside):3} files {lines:5} lines -> {', '.join(sorted(arrows[room])) or '(nothing)'}")
        print(f"  {'':<14} {_sentence(package / room / '__init__.py')}")
    cycles = find_cycles(arrows)
    print(f"{len(cycles)} cycles" + "".join(f"\n  {' -> '.join([*cycle, cycle[0]])}" for cycle in cycles))


def imports_between_rooms(modules: Mapping[str, Path], package: str) -> dict[str, set[str]]:
    """Return, for every room or root module, the others that it imports."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for name, path in modules.items():
        for imported in _imported(path, package):
            if _room(imported) and _room(imported) != _room(name):
                arrows[_room(name)].add(_room(imported))
    return arrows


def find_cycles(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return the groups of rooms that can reach one another (strongly connected components of two or more)."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for room in arrows.get(waiting.pop(), ()):
                if room not in seen:
                    seen.add(room)
                    waiting.append(room)
        return seen

    reach = {room: reachable(room) for room in arrows}
    groups = {
        tuple(sorted({room, *(other for other in reach[room] if room in reach.get(other, ()))}))
        for room in arrows
        if room in reach[room]
    }
    return [list(group) for group in sorted(groups)]


def _name(path: Path, package: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(name: str) -> str:
    return name.partition(".")[0]


def _imported(path: Path, package: str) -> set[str]:
    """Return the names of this package that a file imports, without the package's own name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name.removeprefix(f"{package}.") for name in found if name.startswith(f"{package}.")}


def _sentence(file: Path) -> str:
    docstring = ast.get_docstring(ast.parse(file.read_text())) if file.exists() else None
    return docstring.splitlines()[0] if docstring else "(no description)"


if __name__ == "__main__":
    main()

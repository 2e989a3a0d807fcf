"""Parse composed names such as ``SWAD+CORAL+BF``, an algorithm with any wrappers, without importing plug-ins."""

import re
from collections.abc import Sequence

from dg_batchformer.catalog.wrappers import averaging_wrappers, is_wrapper, wrapper_names
from dg_batchformer.errors import InputError
from dg_batchformer.spec.forks import is_fork, parse_fork
from dg_batchformer.text.spelling import one_form


def split_name(name: str) -> tuple[str, tuple[str, ...]]:
    """Split a composed name into its algorithm (default: ERM) and its sorted wrappers.

    Wrappers of plug-ins are known once the plug-in is imported. Raises InputError for empty or repeated parts, or for
    two algorithms.
    """
    parts = _parts(name)
    wrappers = tuple(sorted(part for part in parts if is_wrapper(part)))
    algorithms = [part for part in parts if part not in wrappers]
    if len(algorithms) > 1:
        raise InputError(
            f"algorithm name {name!r} joins {' and '.join(algorithms)}, but a name can have only one algorithm, and "
            f"any of the wrappers {', '.join(wrapper_names())}{_meant(algorithms)}"
        )
    return (algorithms or ["ERM"])[0], wrappers


def _parts(name: str) -> list[str]:
    """Return the parts of a composed name; raise InputError for an empty or repeated one."""
    parts = [one_form(part.strip()) for part in name.split("+")]
    if not all(parts):
        raise InputError(f"algorithm name {name!r} has an empty part; join parts with one '+', as in SWAD+CORAL+BF")
    repeated = sorted({part for part in parts if parts.count(part) > 1})
    if repeated:
        raise InputError(f"algorithm name {name!r} names {', '.join(repeated)} twice")
    return parts


def _meant(parts: Sequence[str]) -> str:
    """Return a suggestion if wrappers are spelled in another case, else ''."""
    folded = {wrapper.casefold(): wrapper for wrapper in wrapper_names()}
    meant = [repr(folded[part.casefold()]) for part in parts if part.casefold() in folded]
    return f"; did you mean {' and '.join(meant)}?" if meant else ""


def name_parts(name: str) -> frozenset[str]:
    """Return the set of parts of a name, known or not, without ERM: SWAD, ERM+SWAD and SWAD+ERM are equal."""
    return frozenset(part.strip() for part in name.split("+")) - {"ERM"}


def canonical_name(name: str, *, is_known: bool = True) -> str:
    """Return the canonical spelling of a composed name: parts sorted, without ERM if there are others.

    Args:
        is_known: false for a name that may have wrappers of plug-ins that are not imported, so that its algorithm
            cannot be told.

    """
    if is_known:
        algorithm, wrappers = split_name(name)
        parts = {algorithm, *wrappers}
    else:
        parts = set(_parts(name))
    return "+".join(sorted(parts - {"ERM"}) or ["ERM"])


def written_name(name: str) -> str:
    """Return a composed name as papers write it: averages, the algorithm, its other wrappers, as in SWAD+CORAL+BF."""
    parts = _parts(name)
    averages = [part for part in parts if part in averaging_wrappers()]
    wrappers = [part for part in parts if is_wrapper(part) and part not in averages]
    algorithm = [part for part in parts if not is_wrapper(part)] or ["ERM"] * (not averages)
    return "+".join([*averages, *algorithm, *wrappers])


SESSION = "session"
"""The kind of plug-ins that are defined in a running notebook or script: ``session:NAME:DIGEST``."""
SESSION_NAME = r"[\w.-]+"
"""The pattern of NAME."""


def is_of_session(plugin: str) -> bool:
    """Whether a plug-in is defined in a running session, so that no other process can import it."""
    return plugin.startswith(f"{SESSION}:")


def module_names(given: Sequence[str]) -> tuple[str, ...]:
    """Deduplicate and sort the names of plug-ins; forks get the digest of their code.

    Raises InputError for a name of neither a module, nor part of a session, nor a fork.
    """
    named = [str(parse_fork(name)) if is_fork(name) else name for name in given]
    for name in named:
        if is_fork(name):
            continue
        if is_of_session(name) and re.fullmatch(rf"{SESSION}:{SESSION_NAME}:[0-9a-f]{{16}}", name):
            continue
        if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
            raise InputError(
                f"plug-in {name!r} is not a module name; give my_module for the file my_module.py, "
                "my_package.methods, or fork:PATH for a checkout of a fork of DomainBed"
            )
    return tuple(sorted(set(named)))

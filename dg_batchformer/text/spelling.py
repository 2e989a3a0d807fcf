"""Compare names regardless of Unicode form and case: ``é`` can be one code point or two, which look the same."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable


def one_form(name: str) -> str:
    """Normalize a name to NFC, so that names that look alike are equal."""
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """Normalize a name to NFC and fold its case."""
    return one_form(name).casefold()


def is_number(name: str) -> bool:
    """Return whether a name reads as a number: ``2``, ``01``, ``-1``, ``1e3``."""
    try:
        float(name)
    except ValueError:
        return False
    return True


def one_spelling(names: Iterable[str]) -> dict[str, str]:
    """Map every name to its spelling: NFC if the name occurs in several Unicode forms, else the name itself."""
    forms: dict[str, set[str]] = defaultdict(set)
    for name in names:
        forms[one_form(name)].add(name)
    return {name: form if len(spellings) > 1 else name for form, spellings in forms.items() for name in spellings}


def twins(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that differ only in case, sorted."""
    groups: dict[str, set[str]] = defaultdict(set)
    for name in names:
        groups[folded(name)].add(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)

"""Which spellings are one name: Unicode has ``é`` as one character or as two, and nobody sees which one a file has."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable


def one_form(name: str) -> str:
    """Return a name in the form (NFC) in which names that look alike are equal."""
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """Return a name without its case: what names have in common that differ in case alone."""
    return one_form(name).casefold()


def is_number(name: str) -> bool:
    """Whether a name reads as a number: ``2``, ``01``, ``-1``, ``1e3``."""
    try:
        float(name)
    except ValueError:
        return False
    return True


def one_spelling(names: Iterable[str]) -> dict[str, str]:
    """Return one spelling for every name, by name: its own, or NFC where a name is there in several forms."""
    forms: dict[str, set[str]] = defaultdict(set)
    for name in names:
        forms[one_form(name)].add(name)
    return {name: form if len(spellings) > 1 else name for form, spellings in forms.items() for name in spellings}


def twins(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that differ in case alone, sorted."""
    groups: dict[str, set[str]] = defaultdict(set)
    for name in names:
        groups[folded(name)].add(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)

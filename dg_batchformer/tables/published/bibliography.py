"""BibTeX entries of cited papers."""

import re
from collections.abc import Iterable, Mapping, Sequence

from dg_batchformer.tables.published.data import read_text
from dg_batchformer.tables.table import Section

_ENTRY = re.compile(r"@\w+\{([^,]+),")


def entries() -> Mapping[str, str]:
    """Return all entries by key."""
    blocks = [block.strip() for block in re.split(r"\n(?=@)", read_text("references.bib"))]
    return {match[1]: block for block in blocks if (match := _ENTRY.match(block))}


def cited_keys(sections: Iterable[Section]) -> list[str]:
    """Return the keys that tables cite, sorted."""
    return sorted({row.key for section in sections for table in section.tables for row in table.published})


def bibliography(sections: Sequence[Section]) -> str:
    """Return the BibTeX entries that tables cite; '' if there are none."""
    known = entries()
    return "".join(f"{known[key]}\n\n" for key in cited_keys(sections))

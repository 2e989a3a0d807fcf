r"""Escape untrusted text for each output format; LaTeX has its own module, ``tables.render.latex_text``.

Names come from folders, archives and records that others made. Invisible characters are written as JSON escapes
(``\u001b``): terminal control characters, bidirectional marks, unpaired surrogates.
"""

import re

from dg_batchformer.text.spelling import is_number

# Control characters except tab and newline; bidirectional marks; line separators; surrogates; invisible tags.
_UNSEEN = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
# Markup, entities, and URLs, which GitHub turns into links.
_MARKDOWN = re.compile(r"[\\`*_|<>\[\]~#$]|&(?=#?\w+;)|(?<=:)//|(?<=www)\.", re.IGNORECASE)
_FORMULA = re.compile(r"\s*[=+\-@]|[\t\r]")


def printable(text: str) -> str:
    """Escape invisible characters; keep the line breaks."""
    return _UNSEEN.sub(_spelled_out, text)


def one_line(text: str) -> str:
    """Escape invisible characters and join all lines into one."""
    return printable(" ".join(text.split()))


def in_markdown(text: str) -> str:
    """Escape text for one line of GitHub Markdown, so that it renders as typed: no markup, links, images or math."""
    return _MARKDOWN.sub(lambda special: "".join(f"\\{character}" for character in special[0]), one_line(text))


def in_csv(text: str) -> str:
    """Escape text for a CSV cell: a leading quote keeps spreadsheets from running it as a formula."""
    text = one_line(text)
    return f"'{text}" if _FORMULA.match(text) and not is_number(text) else text


def _spelled_out(unseen: re.Match[str]) -> str:
    units = unseen[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))

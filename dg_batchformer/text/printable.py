r"""Text that others wrote, as each output format shows it and nothing more; LaTeX has ``report.render.latex_text``.

Names come from folders, archives and records of strangers. What is not visible in them, or moves what is, is spelled
out as JSON does, ``\u001b``: controls of terminals, marks that turn the direction of writing, halves of characters.
"""

import re

from dg_batchformer.text.spelling import is_number

# Controls but line ends and tabs; marks of direction; separators of lines; surrogates; tags, which nothing shows.
_UNSEEN = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
# Markup, entities, and addresses, which become links by themselves.
_MARKDOWN = re.compile(r"[\\`*_|<>\[\]~#$]|&(?=#?\w+;)|(?<=:)//|(?<=www)\.", re.IGNORECASE)
_FORMULA = re.compile(r"\s*[=+\-@]|[\t\r]")


def printable(text: str) -> str:
    """Return text of which every character shows, in lines as they are."""
    return _UNSEEN.sub(_spelled_out, text)


def one_line(text: str) -> str:
    """Return text of which every character shows, in one line."""
    return printable(" ".join(text.split()))


def in_markdown(text: str) -> str:
    """Return text as GitHub Markdown prints it, in one line: no markup, no link, no image, no formula."""
    return _MARKDOWN.sub(lambda special: "".join(f"\\{character}" for character in special[0]), one_line(text))


def in_csv(text: str) -> str:
    """Return text as a cell that no spreadsheet takes for a formula: that of one begins with a quote."""
    text = one_line(text)
    return f"'{text}" if _FORMULA.match(text) and not is_number(text) else text


def _spelled_out(unseen: re.Match[str]) -> str:
    units = unseen[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))

"""Escape text for LaTeX: special characters, accents, Greek letters and signs by commands, the rest by fonts."""

import unicodedata
from itertools import groupby

from dg_batchformer.text.printable import printable

_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "µ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho",
    "ς": "varsigma", "σ": "sigma", "τ": "tau", "υ": "upsilon", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega",
    "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi",
    "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
_SIGNS = {
    "±": "pm", "×": "times", "÷": "div", "·": "cdot", "∘": "circ", "≤": "leq", "≥": "geq", "≠": "neq", "≈": "approx",
    "∼": "sim", "∝": "propto", "∞": "infty", "∈": "in", "∪": "cup", "∩": "cap", "∅": "emptyset", "∂": "partial",
    "∇": "nabla", "∑": "sum", "√": "surd", "✓": "surd", "★": "star", "•": "bullet", "ℓ": "ell", "†": "dagger",
    "‡": "ddagger", "→": "rightarrow", "←": "leftarrow", "↑": "uparrow", "↓": "downarrow", "↔": "leftrightarrow",
    "⇒": "Rightarrow", "⇐": "Leftarrow", "⇔": "Leftrightarrow",
}  # fmt: skip
MATHS = {
    **{character: rf"\{name}" for character, name in {**_GREEK, **_SIGNS}.items()},
    **{character: f"^{{{plain}}}" for character, plain in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True)},
    **{character: f"_{{{plain}}}" for character, plain in zip("₀₁₂₃₄₅₆₇₈₉₊₋ₙ", "0123456789+-n", strict=True)},
    "<": "<", ">": ">", "|": "|", "−": "-", "°": r"^\circ",
}  # fmt: skip
TEXT = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", '"': "''", "\N{NO-BREAK SPACE}": "~", "–": "--",
    "—": "---", "‘": "`", "’": "'", "“": "``", "”": "''", "…": r"\dots{}", "§": r"$\S$", "ß": r"\ss{}",
    "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}",
    "Ł": r"\L{}", "ı": r"\i{}", "[": "{[}", "*": "{*}",  # after a row end, they would be parsed as its options
}  # fmt: skip
_ACCENTS = {
    "\N{COMBINING GRAVE ACCENT}": "`", "\N{COMBINING ACUTE ACCENT}": "'", "\N{COMBINING CIRCUMFLEX ACCENT}": "^",
    "\N{COMBINING TILDE}": "~", "\N{COMBINING DIAERESIS}": '"', "\N{COMBINING RING ABOVE}": "r",
    "\N{COMBINING CEDILLA}": "c", "\N{COMBINING CARON}": "v", "\N{COMBINING BREVE}": "u", "\N{COMBINING MACRON}": "=",
    "\N{COMBINING DOT ABOVE}": ".", "\N{COMBINING DOUBLE ACUTE ACCENT}": "H",
}  # fmt: skip


_WITHOUT_GLYPH = ("Cc", "Cn", "Co")  # control, unassigned, private use

# Candidate fonts for characters without a LaTeX command: the first installed one that has the character is used.
_FONTS = ("Noto Serif CJK SC", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Noto Serif", "Noto Sans", "Noto Emoji",
          "FreeSerif", "DejaVu Sans", "Arial Unicode MS")  # fmt: skip
UNSPELLED = r"\resulttext"
UNSPELLED_DEFINITION = (
    rf"\ifdefined{UNSPELLED}\else",
    r"\def\resultfont#1#2{\iffontchar\font#1\else\IfFontExistsTF{#2}{\fontspec{#2}}{}\fi}",
    rf"\protected\def{UNSPELLED}#1#2{{{{\tracinglostchars=3 % a character that no font has is an error",
    r"\ifdefined\fontspec",
    *(rf"\resultfont{{#1}}{{{font}}}%" for font in _FONTS),
    r"#2\else\errmessage{pdflatex cannot print some names of these tables: run xelatex or lualatex}\fi}}",
    r"\fi",
)
"""Definition that a document needs if ``escape`` leaves characters to the fonts of XeLaTeX or LuaLaTeX."""


def escape(text: str) -> str:
    """Escape text for LaTeX.

    Characters without a LaTeX command become arguments of ``UNSPELLED``; characters without a glyph, such as control
    characters, are printed as Python escapes.
    """
    pieces: list[str] = []
    for spelled, characters in groupby(unicodedata.normalize("NFC", text), _spelled):
        part = "".join(characters)
        pieces += map(_spell, part) if spelled else [f"{UNSPELLED}{{{ord(part[0])} }}{{{part}}}"]
    return "".join(pieces)


def needs_fonts(document: str) -> bool:
    """Return whether a document contains characters that need XeLaTeX or LuaLaTeX."""
    return f"{UNSPELLED}{{" in document


def _spelled(character: str) -> bool:
    return _spell(character) != ""


def _spell(character: str) -> str:
    """Return the LaTeX command for a character; '' if there is none."""
    if character in TEXT:
        return TEXT[character]
    if character in MATHS:
        return f"${MATHS[character]}$"
    if " " <= character <= "~":
        return character
    if printable(character) != character:
        return escape(printable(character))
    if unicodedata.category(character) in _WITHOUT_GLYPH:
        return escape(character.encode("unicode_escape").decode())
    decomposed = unicodedata.normalize("NFD", character)
    spelled, marks = _spell(decomposed[0]) if len(decomposed) > 1 else "", decomposed[1:]
    if not spelled or not all(mark in _ACCENTS for mark in marks):
        return ""
    for mark in marks:
        spelled = rf"\{_ACCENTS[mark]}{{{spelled}}}"
    return spelled

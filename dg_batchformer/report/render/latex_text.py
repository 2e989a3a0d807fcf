"""Text as LaTeX prints it, with no package loaded: specials, accents, Greek letters, arrows, the usual signs."""

import unicodedata

from dg_batchformer.errors import InputError

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
    "Ł": r"\L{}", "ı": r"\i{}",
}  # fmt: skip
_ACCENTS = {
    "\N{COMBINING GRAVE ACCENT}": "`", "\N{COMBINING ACUTE ACCENT}": "'", "\N{COMBINING CIRCUMFLEX ACCENT}": "^",
    "\N{COMBINING TILDE}": "~", "\N{COMBINING DIAERESIS}": '"', "\N{COMBINING RING ABOVE}": "r",
    "\N{COMBINING CEDILLA}": "c", "\N{COMBINING CARON}": "v", "\N{COMBINING BREVE}": "u", "\N{COMBINING MACRON}": "=",
    "\N{COMBINING DOT ABOVE}": ".", "\N{COMBINING DOUBLE ACUTE ACCENT}": "H",
}  # fmt: skip


def escape(text: str) -> str:
    """Return text as LaTeX prints it; raise InputError, naming the character, for one that it cannot print."""
    return "".join(_printed(character) for character in unicodedata.normalize("NFC", text))


def _printed(character: str) -> str:
    if character in TEXT:
        return TEXT[character]
    if character in MATHS:
        return f"${MATHS[character]}$"
    if " " <= character <= "~":
        return character
    decomposed = unicodedata.normalize("NFD", character)
    base, marks = decomposed[0], decomposed[1:]
    if not marks or not all(mark in _ACCENTS for mark in marks):
        what = f"{character!r} (U+{ord(character):04X}, {unicodedata.name(character, 'no name')})"
        raise InputError(f"LaTeX tables cannot print {what}; give the row another label, or another --format")
    printed = _printed(base)
    for mark in marks:
        printed = rf"\{_ACCENTS[mark]}{{{printed}}}"
    return printed

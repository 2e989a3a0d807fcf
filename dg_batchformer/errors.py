"""The one exception for what a person gave and cannot be used, and what leads to it."""

import difflib
from collections.abc import Iterable

# What making sense of a file that anybody may have written can raise.
MALFORMED = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)


class InputError(ValueError):
    """Input that cannot be used: the message is one sentence with what was given and the way out.

    The command line prints the sentence and exits with status 2; no traceback is shown.
    """


def unknown(kind: str, given: object, known: Iterable[str], *, see: str = "") -> InputError:
    """Build the error for an unknown name: what was given, what is near, what is allowed."""
    names = list(known)
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(str(given).casefold(), folded, n=2, cutoff=0.6)
    hint = f"; did you mean {' or '.join(repr(folded[name]) for name in near)}?" if near else ""
    allowed = f" ({see})" if see else f" (known: {', '.join(names)})"
    return InputError(f"unknown {kind} {given!r}{hint}{allowed}")

"""The one exception for what a person gave and cannot be used, and what leads to it."""

import difflib
import re
from collections.abc import Iterable

from dg_batchformer.text.printable import one_line
from dg_batchformer.text.spelling import folded

# What making sense of a file that anybody may have written can raise.
MALFORMED = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)


class InputError(ValueError):
    """Input that cannot be used: the message is one sentence with what was given and the way out.

    The command line prints the sentence and exits with status 2; no traceback is shown.
    """


class RunFailed(InputError):
    """A run that failed in its own code or in a plug-in's: the message says where its traceback stands."""


def as_sentence(error: BaseException) -> str:
    """Return what an error says in one line, with its type where nobody wrote the sentence for people."""
    message = one_line(str(error))
    return message if isinstance(error, InputError) else f"{type(error).__name__}: {message}".removesuffix(": ")


def unknown(kind: str, given: object, known: Iterable[str], *, see: str = "") -> InputError:
    """Build the error for an unknown name: what was given, what is near, what is allowed."""
    names = list(known)
    allowed = f" ({see})" if see else f" (known: {', '.join(names)})"
    return InputError(f"unknown {kind} {given!r}{did_you_mean(given, names)}{allowed}")


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """Return the question with the names that are near, whatever their case; '' where there is none.

    Near are names with a word that begins like the given one, then those spelled alike.
    """
    spelled = {folded(name): name for name in known}
    asked = folded(str(given))
    begins = re.compile(rf"(?<![a-z0-9]){re.escape(asked)}")
    longer = sorted((name for name in spelled if len(asked) > 2 and begins.search(name)), key=len)
    near = list(dict.fromkeys([*longer, *difflib.get_close_matches(asked, spelled, n=2, cutoff=0.6)]))[:2]
    return f"; did you mean {' or '.join(repr(spelled[name]) for name in near)}?" if near else ""

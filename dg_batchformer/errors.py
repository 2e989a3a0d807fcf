"""The exception for unusable input, and helpers for its messages."""

import difflib
import re
from collections.abc import Iterable

from dg_batchformer.text.printable import one_line
from dg_batchformer.text.spelling import folded

# Exceptions that parsing a file of unknown origin can raise.
MALFORMED = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)


class InputError(ValueError):
    """Unusable input; the message is one sentence that says what is wrong and what to do.

    The command line prints the message without a traceback and exits with status 2.
    """


class CannotResume(InputError):
    """An unfinished run that was begun with other data or options, and resumes with those: it has not failed."""


class RunFailed(InputError):
    """A failure of a run, in this package or a plug-in; the message names the file with the traceback."""


def as_sentence(error: BaseException) -> str:
    """Return the message of an error as one line, with its type unless it is an ``InputError``."""
    message = one_line(str(error))
    return message if isinstance(error, InputError) else f"{type(error).__name__}: {message}".removesuffix(": ")


def unknown(kind: str, given: object, known: Iterable[str], *, see: str = "") -> InputError:
    """Return the error for an unknown name, with similar and with allowed names.

    Args:
        see: where to find the allowed names, instead of listing them.

    """
    names = list(known)
    allowed = f" ({see})" if see else f" (known: {', '.join(names)})"
    return InputError(f"unknown {kind} {given!r}{did_you_mean(given, names)}{allowed}")


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" with up to two similar names, ignoring case; '' if there are none.

    Names with a word that starts with ``given`` come first, then names with a similar spelling.
    """
    spelled = {folded(name): name for name in known}
    asked = folded(str(given))
    begins = re.compile(rf"(?<![a-z0-9]){re.escape(asked)}")
    longer = sorted((name for name in spelled if len(asked) > 2 and begins.search(name)), key=len)
    near = list(dict.fromkeys([*longer, *difflib.get_close_matches(asked, spelled, n=2, cutoff=0.6)]))[:2]
    return f"; did you mean {' or '.join(repr(spelled[name]) for name in near)}?" if near else ""

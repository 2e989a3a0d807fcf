"""Whether progress bars can be seen."""

import sys


def shows_bars() -> bool:
    """Whether standard error is a terminal, or this is a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules

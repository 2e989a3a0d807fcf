"""Detection of places that can show progress bars."""

import sys


def shows_bars() -> bool:
    """Return whether progress bars are visible: stderr is a terminal, or this is a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules

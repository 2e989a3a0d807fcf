"""Entry point of ``python -m dg_batchformer``."""

import os
import sys
from pathlib import Path


def main() -> None:
    """Run the command line and exit with its status."""
    leave_working_folder()
    from dg_batchformer.cli.main import main as run
    from dg_batchformer.cli.main import verb_of
    from dg_batchformer.runtime import allocator
    from dg_batchformer.text.terminal import prepare_streams

    prepare_streams()
    if verb_of(sys.argv[1:]) == "train":
        allocator.start_over()
    sys.exit(run(sys.argv[1:]))


def leave_working_folder() -> None:
    """Remove the working folder, which ``python -m`` puts first, from the import path: its files may be untrusted.

    It stays if this package itself is in it (a clone). ``--plugins`` looks in the working folder when asked to.
    """
    here = os.getcwd()  # noqa: PTH109
    if sys.path[:1] in ([here], [""]) and Path(__file__).parents[1] != Path(here):
        del sys.path[0]


if __name__ == "__main__":
    main()

"""``python -m dg_batchformer``."""

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
    """Import nothing from the folder that a person is in, where ``python -m`` looks first: it may be a stranger's.

    A clone is where this package lies itself; plug-ins are looked for in the folder when they are asked for.
    """
    here = os.getcwd()  # noqa: PTH109
    if sys.path[:1] in ([here], [""]) and Path(__file__).parents[1] != Path(here):
        del sys.path[0]


if __name__ == "__main__":
    main()

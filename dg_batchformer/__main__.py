"""``python -m dg_batchformer``."""

import sys

from dg_batchformer import allocator
from dg_batchformer.cli import main as run
from dg_batchformer.cli import verb_of
from dg_batchformer.terminal import prepare_streams


def main() -> None:
    """Run the command line and exit with its status."""
    prepare_streams()
    if verb_of(sys.argv[1:]) == "train":
        allocator.start_over()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()

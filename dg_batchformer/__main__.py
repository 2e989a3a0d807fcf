"""``python -m dg_batchformer``."""

import sys

from dg_batchformer import allocator
from dg_batchformer.cli import main as run


def main() -> None:
    """Run the command line and exit with its status."""
    if sys.argv[1:2] == ["train"]:
        allocator.start_over()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()

"""``python -m dg_batchformer``."""

import sys

from dg_batchformer.cli import main as run


def main() -> None:
    """Run the command line and exit with its status."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()

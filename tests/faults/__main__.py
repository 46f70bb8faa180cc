"""The fault server as a process: `python -m tests.faults`, from the root of the repository."""

import sys

from tests.faults.server import main

if __name__ == "__main__":
    sys.exit(main())

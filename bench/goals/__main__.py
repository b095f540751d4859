"""`python -m fastlstm.bench.goals`: measure the goals of speed. See goals.py."""

import sys

from .goals import main

if __name__ == "__main__":
    sys.exit(main())

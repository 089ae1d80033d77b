"""``python -m stem_core.cli``."""

import sys

from stem_core.cli import main

if __name__ == "__main__":
    sys.exit(main())

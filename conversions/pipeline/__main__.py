"""`python -m conversions.pipeline`: run one conversion."""

import sys

from conversions.pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python -m syncdiff`: the command line."""

import sys

from syncdiff.cli import main

sys.exit(main())

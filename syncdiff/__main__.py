"""`python -m syncdiff`: the command line."""

import os
import signal
import sys

for stop in filter(None, (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP"))):
    if signal.getsignal(stop) is not signal.SIG_IGN:  # `main` sets its own; until then nothing is to be tidied up
        signal.signal(stop, lambda number, _: os._exit(128 + number))

from syncdiff.cli import main  # noqa: E402

if sys.stdout is not None:
    sys.stdout.reconfigure(errors="surrogateescape")  # a file name may be no valid text  # pyright: ignore[reportAttributeAccessIssue]
sys.exit(main())

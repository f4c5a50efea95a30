"""`python -m frameport` and the `frameport` command."""

from __future__ import annotations

import signal
import sys

from . import _native


def main() -> int:
    """Runs the command line this process was started with."""
    # The command answers Ctrl-C itself; Python's handler would only set a flag nobody looks at.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _native.cli_main([sys.executable, "-m", "frameport", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

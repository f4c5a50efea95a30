"""Where a view was made, for FRAMEPORT_TRACE_VIEWS=1."""

from __future__ import annotations

import os
import sys
from types import FrameType

PACKAGE = os.path.join(os.path.dirname(__file__), "")
DEPTH = 3


def place() -> str:
    """The innermost lines of Python that are not this package's: "worker.py:12 in process, from worker.py:30 in <module>"."""
    lines: list[str] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and len(lines) < DEPTH:
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE):
            lines.append(f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}")
        frame = frame.f_back
    return ", from ".join(lines) or "an unknown place"

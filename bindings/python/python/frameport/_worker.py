"""Connecting a worker."""

from __future__ import annotations

import os

from . import _native
from ._native import Link, Spec

VARIABLE = "FRAMEPORT_LINK"
"""Where a host leaves the link for its worker."""


def connect(output: Spec | None = None) -> Link:
    """Connects to the host that started this process: once, at start-up.

    `output` states what this worker will send, where that is not what the host announced (a mask, another size).
    """
    link = _native.connect(output)
    # The native side took it out of the environment; Python keeps a copy of its own, which children would inherit.
    os.environ.pop(VARIABLE, None)
    return link

"""Connecting a worker."""

from __future__ import annotations

import atexit
import os
import sys
import traceback
import weakref

from . import _native
from ._events import install
from ._native import Link, Spec
from .exceptions import LinkClosed

VARIABLE = "FRAMEPORT_LINK"
"""Where a host leaves the link for its worker."""


def connect(output: Spec | None = None, *, logging: bool | int = False) -> Link:
    """Connects to the host that started this process: once, at start-up.

    `output` states what this worker will send, where that is not what the host announced (a mask, another size).
    `logging` sends this process's log to the host: True, or a level to set its root logger to. See `LogHandler`.
    """
    link = _native.connect(output)
    install(link, logging)
    # The native side took it out of the environment; Python keeps a copy of its own, which children would inherit.
    os.environ.pop(VARIABLE, None)
    atexit.register(_at_exit, weakref.ref(link))
    return link


def _at_exit(link_of: weakref.ref[Link]) -> None:
    """Tells the host of an exception that ended the program, where no `with` has."""
    link = link_of()
    if link is None:
        return
    uncaught = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    told = uncaught and failure(uncaught)
    if told:
        link.fail(told)
    link._leave()


def failure(error: BaseException) -> str | None:
    """What a host is told of an exception; None where a worker may leave with it."""
    if isinstance(error, (LinkClosed, GeneratorExit)) or (isinstance(error, SystemExit) and not error.code):
        return None
    return "".join(traceback.format_exception_only(error)).strip()

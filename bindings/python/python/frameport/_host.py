"""Starting a worker."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import EllipsisType
from typing import Final, Literal

from . import _native
from ._native import Spec, Worker

SAME_AS_INPUT: Final = ...


def spawn(
    command: Sequence[str | os.PathLike[str]] | os.PathLike[str],
    input: Spec | None = None,
    output: Spec | EllipsisType | None = SAME_AS_INPUT,
    *,
    slots: int = 4,
    delivery: Literal["lossless"] = "lossless",
    name: str | None = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    ready_timeout: float | None = 60,
    deadline: float | None = 30,
    grace: float = 2,
    meta_capacity: int = 4096,
    output_limit: int = 1 << 30,
    wait: Literal["adaptive", "spin", "park"] = "adaptive",
    isolate: bool = True,
    require_isolation: Literal["none", "host-hidden", "scoped"] = "none",
    inherit_stderr: bool = False,
) -> Worker:
    """Starts a worker and waits until it is ready for its first frame.

    command: the program and its arguments, as for `subprocess`; no shell.
    input: what goes to the worker; None for nothing.
    output: what comes back, the same as the input unless given; None for nothing. The worker may state another.
    slots: frames each pool has room for.
    name: the worker's name in messages; the program's unless given.
    env: variables set beside those of this process.
    ready_timeout: seconds the worker may take to its first `recv`.
    deadline: seconds a `loan()` waits for a slot.
    grace: seconds a stopped worker may take to leave by itself, and again after SIGTERM.
    meta_capacity: bytes of JSON metadata a frame may carry.
    output_limit: bytes of the largest pool a worker gets that states its own output.
    wait: how both sides wait: "spin" burns a core on each, "park" sleeps at once.
    isolate: whether the worker is kept from other processes' memory where the kernel can do that.
    require_isolation: the least isolation that will do.
    inherit_stderr: whether the worker writes straight to this process's stderr; errors then lack its last words.
    """
    if isinstance(command, os.PathLike):
        command = [command]
    elif isinstance(command, str):
        raise TypeError(f"command is {command!r}, must be a list such as ['python', 'worker.py']")
    options = {
        "slots": slots,
        "delivery": delivery,
        "name": name,
        "cwd": None if cwd is None else os.fspath(cwd),
        "env": list((env or {}).items()),
        "ready_timeout": ready_timeout,
        "deadline": deadline,
        "grace": grace,
        "meta_capacity": meta_capacity,
        "output_limit": output_limit,
        "wait": wait,
        "isolate": isolate,
        "require_isolation": require_isolation,
        "inherit_stderr": inherit_stderr,
    }
    arguments = [os.fsdecode(argument) for argument in command]
    return _native.spawn(arguments, input, input if output is SAME_AS_INPUT else output, options)

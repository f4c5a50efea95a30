"""Starting a worker."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, Final, Literal, TypeAlias

from . import _native
from ._events import Event, listener
from ._native import Audience, Spec, Worker
from ._params import encoded

SAME_AS_INPUT: Final = ...
Command: TypeAlias = Sequence[str | os.PathLike[str]] | os.PathLike[str]


@dataclass(frozen=True)
class newest:  # noqa: N801  (reads like the words "lossless" and "latest" beside it)
    """The delivery that keeps the newest `depth` frames: the sender takes back older ones nobody has received."""

    depth: int


@dataclass(frozen=True)
class Restart:
    """When a dead worker is started again: after each death, until so many starts in a row have failed."""

    starts: int = 3
    """Starts that may fail in a row."""
    backoff: tuple[float, float] = (0.02, 1.0)
    """Seconds until the next start: the first after a life that took or sent a frame, twice as long after each that did
    not, up to the second."""


@dataclass(frozen=True)
class Stall:
    """What to do with a worker that has had frames for longer than `after` seconds and let go of none."""

    after: float
    """Seconds; the worker may take them for a frame."""
    action: Literal["kill", "write-off"] = "kill"
    """"kill" ends it, with `Stalled` or a restart; "write-off" counts its frames as lost and does not wait for its slots."""


Delivery: TypeAlias = Literal["lossless", "latest"] | newest
"""What a channel does when its receiver is slower than its sender."""

Frames: TypeAlias = Spec | Audience
"""What a channel carries: frames of its own, or those of an audience, which other workers receive too."""

Channels: TypeAlias = Frames | Mapping[str, Frames | tuple[Frames, Delivery]]
"""One channel, or several by their names, each with a delivery of its own if it is to have one."""


def spawn(
    command: Command,
    input: Channels | None = None,
    output: Channels | EllipsisType | None = SAME_AS_INPUT,
    *,
    slots: int = 4,
    delivery: Delivery = "lossless",
    quota: int = 3,
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
    params: Mapping[str, Any] | None = None,
    on_event: Callable[[Event], object] | None = None,
    restart: bool | Restart = False,
    stall: Stall | None = None,
    shared_memory: bool = False,
) -> Worker:
    """Starts a worker and waits until it is ready for its first frame.

    command: the program and its arguments, as for `subprocess`; no shell.
    input: what goes to the worker; None for nothing; for several channels a dict of their names,
        `{"left": spec, "right": spec, "gps": (fp.Spec.bytes(4096), "latest")}`: see `Worker.channel`.
    output: what comes back, the same as the (first) input unless given; None for nothing; several as above. The worker may
        state another spec for the first.
    slots: frames each pool has room for.
    delivery: what a channel to the worker does when the worker is slower than this side. "lossless": every frame arrives,
        a loan waits for a slot; "latest" or `newest(n)`: the newest frames only, nothing waits. What comes back is
        lossless unless its channel says otherwise.
    quota: of an audience's frames, how many this worker may have at once, received or not.
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
    params: what `worker.params` is from the start.
    on_event: gets what the worker reports and logs, instead of the logger `frameport.<name>`; on a thread of its own.
    restart: whether the worker is started again when it has died, in the background and behind the same `Worker`: `True`, or
        when and how often (`Restart`). `recv()` raises each death once, after what was sent before it, and goes on.
    stall: what to do with a worker that does not move (`Stall`); nothing unless given.
    shared_memory: whether the worker is given nothing but shared memory and pipes, as descriptors. On Linux it never is given
        anything else; on macOS it then needs no Mach port, which a sandbox may deny (`Denied`), and its frames are not in
        IOSurfaces.
    """
    options = {
        "slots": slots,
        "name": name,
        "cwd": cwd,
        "env": env,
        "ready_timeout": ready_timeout,
        "deadline": deadline,
        "grace": grace,
        "meta_capacity": meta_capacity,
        "output_limit": output_limit,
        "wait": wait,
        "isolate": isolate,
        "require_isolation": require_isolation,
        "inherit_stderr": inherit_stderr,
        "params": params,
        "on_event": on_event,
        "restart": restart,
        "stall": stall,
        "shared_memory": shared_memory,
    }
    sent = _channels("in", input, delivery)
    if output is SAME_AS_INPUT:
        first = sent[0][1] if sent else None
        output = first.spec if isinstance(first, Audience) else first
    received = _channels("out", output, "lossless")
    wanted = [(name, True, (frames, quota) if isinstance(frames, Audience) else frames, how) for name, frames, how in sent]
    wanted += [(name, False, frames, how) for name, frames, how in received]
    return _native.spawn(words(command), wanted, plain(options))


def _channels(name: str, wanted: Channels | None, delivery: Delivery) -> list[tuple[str, Any, Delivery]]:
    """Each channel's name, spec and delivery."""
    if wanted is None:
        return []
    if isinstance(wanted, (Spec, Audience)):
        return [(name, wanted, delivery)]
    return [(key, *(value if isinstance(value, tuple) else (value, delivery))) for key, value in wanted.items()]


def words(command: Command) -> list[str]:
    """A command as a list of its words."""
    if isinstance(command, os.PathLike):
        command = [command]
    elif isinstance(command, str):
        raise TypeError(f"command is {command!r}, must be a list such as ['python', 'worker.py']")
    return [os.fsdecode(argument) for argument in command]


def plain(options: dict[str, Any]) -> dict[str, Any]:
    """The options of `spawn()` as the native module takes them."""
    cwd, env, ears = options["cwd"], options["env"], listener()
    # A group starts its workers again by itself.
    restart, stall = options.get("restart"), options.get("stall")
    policy = Restart() if restart is True else restart or None
    return options | {
        "cwd": None if cwd is None else os.fspath(cwd),
        "env": list((env or {}).items()),
        "params": encoded(options["params"] or {}),
        "events": (ears.events, ears.add(options["on_event"])),
        "restart": policy and (policy.starts, *policy.backoff),
        "stall": stall and (stall.after, stall.action),
    }

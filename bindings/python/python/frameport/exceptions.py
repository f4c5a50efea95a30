"""Everything frameport raises, all of it a `FrameportError`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._native import SlotHolder


class FrameportError(Exception):
    """What all of them are."""


class LinkClosed(FrameportError):
    """The link has ended in order: leave the loop."""


class WorkerDied(FrameportError):
    """The worker is dead."""

    name: str = ""
    """Its name."""
    pid: int = 0
    """The process the host started."""
    returncode: int | None = None
    """Its exit status as `subprocess` says it: a negative one is a signal; None if somebody else collected it."""
    signal: int | None = None
    """The signal that killed it, if one did."""
    reason: str | None = None
    """What it said of itself before it went: "ValueError: no such model"."""
    stderr_tail: str = ""
    """The end of what it wrote to stdout and stderr, 64 KiB at most."""


class NotReady(FrameportError):
    """The worker did not come to its first `recv` in time; it was killed."""

    pid: int = 0
    """The process the host started."""
    stderr_tail: str = ""
    """The end of what it wrote to stdout and stderr, 64 KiB at most."""


class PoolExhausted(FrameportError):
    """No slot is free; the message says who has them."""

    holders: list[SlotHolder] = []
    """Who has which slot."""
    received: list[SlotHolder] = []
    """The link's other received frames that this side has not released."""


class Timeout(FrameportError, TimeoutError):
    """Nothing came in time."""


class FormatError(FrameportError, ValueError):
    """A spec, an array or a frame that is not what the channel carries."""


class MetaError(FrameportError, ValueError):
    """Metadata that is not a JSON object."""


class MetaTooLong(MetaError):
    """More metadata than a slot has room for."""


class ParamsError(FrameportError, ValueError):
    """Parameters that JSON cannot say, or more than 64 KiB of it. They are as they were."""


class ConfigError(FrameportError, ValueError):
    """Arguments that contradict each other, or a channel the link does not have."""


class FrameReleased(FrameportError, ValueError):
    """The frame was released or sent: its pixels are not this side's any more."""


class ForkedError(FrameportError, RuntimeError):
    """This process is a fork of the one the link or the frame belongs to."""


class MemoryLimit(FrameportError, MemoryError):
    """The pools do not fit into the memory that is left. Nothing was started."""


class SpawnError(FrameportError, OSError):
    """The program could not be started."""


class Denied(FrameportError, PermissionError):
    """A sandbox denies this process or its worker what they need to come together; on macOS only."""

    operation: str = ""
    """Its name in a sandbox profile: "mach-register", "mach-lookup", "iokit-open", "ipc-posix-shm"."""
    profile_line: str = ""
    """The line of a profile that allows it."""


class NotAWorker(FrameportError, RuntimeError):
    """This process was not started by a frameport host, or has connected already."""


class ProtocolError(FrameportError):
    """The control channel carried something that makes no sense."""


class CutOff(FrameportError):
    """The worker was too slow for an audience it joined without leave to miss frames; it was killed."""


class Stalled(FrameportError):
    """The worker let go of nothing for longer than `stall` allows; it was killed."""


class Untold(FrameportError):
    """A pool or parameters could not be handed over to the worker, for want of what that takes; it was killed."""


class StaleLoan(FrameportError):
    """The loan was made before its worker died, and cannot be sent to the next life: make another."""


class Violation(ProtocolError):
    """The other side provably misbehaved and was cut off."""


class VersionError(ProtocolError):
    """Host and worker have no protocol version in common."""


class Refused(ProtocolError):
    """The host would not go on with this worker."""


class IsolationError(FrameportError, RuntimeError):
    """This system gives less isolation than was demanded."""


class FrameLost(FrameportError):
    """A group gave a frame up; the cause is the death of the worker that had it last."""

    def __init__(self, seq: int, why: Exception) -> None:
        super().__init__(f"frame {seq} is lost: {why}")
        self.seq = seq

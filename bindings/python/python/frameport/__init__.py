"""Exchange video frames with worker processes, zero-copy, with nothing to install or clean up.

A worker, the whole of it::

    import frameport as fp

    @fp.worker
    def process(frame):
        frame.array[:] = 255 - frame.array  # edited in place: the same slot goes back

and a host in Python::

    with fp.spawn([sys.executable, "worker.py"], fp.Spec("bgr24", 1920, 1080)) as w:
        with w.loan() as frame:  # sent when the block ends
            camera.read_into(frame.array)
        result = w.recv()

Frames, loans and their planes are arrays by themselves: `frame.array`, `numpy.asarray(frame)`, `memoryview(frame)` and
`from_dlpack(frame)` are views that keep the frame's slot for as long as they live.
"""

from ._events import Event, LogHandler
from ._group import Lost, map
from ._host import Delivery, Restart, Stall, newest, spawn
from ._loop import DROP, Drop, main, worker
from ._native import (
    Audience,
    AudienceStats,
    Channel,
    ChannelStats,
    Frame,
    Frames,
    Link,
    Loan,
    Pixels,
    Plane,
    SlotHolder,
    Spec,
    Stats,
    Worker,
    __version__,
    now,
)
from ._params import Params
from ._select import select
from ._worker import connect
from .exceptions import (
    ConfigError,
    CutOff,
    Denied,
    ForkedError,
    FormatError,
    FrameLost,
    FrameportError,
    FrameReleased,
    IsolationError,
    LinkClosed,
    MemoryLimit,
    MetaError,
    MetaTooLong,
    NotAWorker,
    NotReady,
    ParamsError,
    PoolExhausted,
    ProtocolError,
    Refused,
    SpawnError,
    StaleLoan,
    Stalled,
    Timeout,
    Untold,
    VersionError,
    Violation,
    WorkerDied,
)

__all__ = [
    "DROP",
    "Audience",
    "AudienceStats",
    "Channel",
    "ChannelStats",
    "ConfigError",
    "CutOff",
    "Delivery",
    "Denied",
    "Drop",
    "Event",
    "ForkedError",
    "FormatError",
    "Frame",
    "FrameLost",
    "FrameReleased",
    "FrameportError",
    "Frames",
    "IsolationError",
    "Link",
    "LinkClosed",
    "Loan",
    "LogHandler",
    "Lost",
    "MemoryLimit",
    "MetaError",
    "MetaTooLong",
    "NotAWorker",
    "NotReady",
    "Params",
    "ParamsError",
    "Pixels",
    "Plane",
    "PoolExhausted",
    "ProtocolError",
    "Refused",
    "Restart",
    "SlotHolder",
    "SpawnError",
    "Spec",
    "StaleLoan",
    "Stall",
    "Stalled",
    "Stats",
    "Timeout",
    "Untold",
    "VersionError",
    "Violation",
    "Worker",
    "WorkerDied",
    "__version__",
    "connect",
    "main",
    "map",
    "newest",
    "now",
    "select",
    "spawn",
    "worker",
]

"""Events: what workers report, and their logs, on both sides."""

from __future__ import annotations

import atexit
import itertools
import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._native import Events

if TYPE_CHECKING:
    from ._native import Link

LEVELS = {"error": logging.ERROR, "warn": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG, "trace": 5}
"""The words of the protocol, and what `logging` calls them."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@dataclass(frozen=True)
class Event:
    """Something a worker reported: by `link.report()`, or a record of its log."""

    worker: str
    """The worker's name."""
    pid: int
    """The process this host started."""
    level: str
    """"error", "warn", "info", "debug" or "trace"."""
    message: str
    """What happened."""
    source: str
    """The name of the worker's logger; "" for `link.report()`."""
    fields: dict[str, Any]
    """The rest, by name."""
    dropped: int
    """Events of this worker lost since the last one that got through: it reports faster than this host listens."""


Callback = Callable[[Event], object]


class LogHandler(logging.Handler):
    """A worker's log goes to its host: `logging.getLogger().addHandler(fp.LogHandler(link))`.

    What a record was given as `extra` arrives as fields. Never waits: what the host does not take in time is dropped, and
    counted in the next record it takes.
    """

    def __init__(self, link: Link, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
            self._link._report(word(record.levelno), record.name, self.format(record), said(fields))
        except Exception:
            self.handleError(record)


def install(link: Link, level: bool | int) -> None:
    """Sends this process's log to the host; a number is the level of its root logger."""
    if level is not False:
        root = logging.getLogger()
        root.addHandler(LogHandler(link))
        if level is not True:
            root.setLevel(level)


def report(link: Link, message: str, level: str | int | None, fields: dict[str, Any]) -> bool:
    """The work of `link.report()`."""
    return link._report(word("info" if level is None else level), "", message, said(fields))


def word(level: str | int) -> str:
    """A level of `logging`, by number or name, as the protocol says it."""
    if isinstance(level, str):
        known = {"warning": "warn", "critical": "error"}.get(level.lower(), level.lower())
        if known not in LEVELS:
            raise ValueError(f"level is {level!r}, must be one of {', '.join(LEVELS)}, or a number of logging")
        return known
    return next((known for known, number in LEVELS.items() if level >= number), "trace")


def said(fields: dict[str, Any]) -> str:
    """Fields as JSON, whatever they are: what JSON cannot say is shown as Python shows it."""
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False, default=repr)
    except (TypeError, ValueError, RecursionError):
        return json.dumps({str(name): repr(value) for name, value in fields.items()}, ensure_ascii=False)


def log(event: Event) -> None:
    """What becomes of events nobody asked for: records of the logger `frameport.<worker>`, from the worker's process."""
    logger, level = logging.getLogger(f"frameport.{event.worker}"), LEVELS[event.level]
    if logger.isEnabledFor(level):
        extra = {"worker": event.worker, "source": event.source, "fields": event.fields, "dropped": event.dropped}
        record = logger.makeRecord(logger.name, level, "", 0, event.message, (), None, extra=extra)
        record.process, record.processName = event.pid, event.worker
        logger.handle(record)


class Listener:
    """The one thread of a host that hands out what its workers report."""

    def __init__(self) -> None:
        self.events = Events()
        self.process = os.getpid()
        self._callbacks: dict[int, Callback] = {}
        self._numbers = itertools.count()
        self._thread = threading.Thread(target=self._run, name="frameport-events", daemon=True)
        self._thread.start()
        atexit.register(self._close)

    def add(self, callback: Callback | None) -> int:
        """The number under which a worker's events shall come."""
        number = next(self._numbers)
        self._callbacks[number] = callback or log
        return number

    def _run(self) -> None:
        while (item := self.events.next()) is not None:
            number, parts = item
            if parts is None:
                self._callbacks.pop(number, None)
                continue
            worker, pid, level, message, source, fields, dropped = parts
            event = Event(worker, pid, level, message, source, json.loads(fields), dropped)
            try:
                self._callbacks[number](event)
            except Exception:
                logging.getLogger("frameport").exception("on_event of worker %r raised", worker)

    def _close(self) -> None:
        """Before the interpreter ends: what has arrived is handed out, unless a callback takes too long."""
        if os.getpid() == self.process:
            self.events.close()
            self._thread.join(1)


_listener: Listener | None = None
_lock = threading.Lock()


def listener() -> Listener:
    """This process's listener, started when first needed; a fork has none of its parent's."""
    global _listener
    with _lock:
        if _listener is None or _listener.process != os.getpid():
            _listener = Listener()
        return _listener


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)

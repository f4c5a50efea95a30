"""Waiting for many channels at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from . import _native
from ._native import Channel, Link, Worker
from .exceptions import ConfigError, Timeout

Source = TypeVar("Source", bound="Link | Worker | Channel")


def select(sources: Sequence[Source], timeout: float | None = None) -> list[Source]:
    """Waits until some of these links, workers or channels have a frame or have ended, and returns those.

    `timeout` in seconds, None for ever; Timeout after it.
    """
    places = _native.select_channels([_end(source, sends=False) for source in sources], timeout)
    return [sources[place] for place in places]


def receiving(sources: Sequence[Source], timeout: float) -> list[Source]:
    """The same, with nothing for nothing."""
    try:
        return select(sources, timeout)
    except Timeout:
        return []


def sending(source: Link | Worker | Channel) -> Channel:
    """The channel it sends on."""
    return _end(source, sends=True)


def _end(source: Link | Worker | Channel, *, sends: bool) -> Channel:
    if isinstance(source, Channel):
        return source
    ends = (source.channel(name) for name in source.channels)
    first = next((end for end in ends if end.sends == sends), None)
    if first is None:
        raise ConfigError(f"{source!r} has no channel to {'send' if sends else 'receive'} on")
    return first

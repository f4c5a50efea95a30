"""Links in an event loop: asyncio (uvloop too) and trio.

`async for frame in link`, and for the rest::

    import frameport as fp, frameport.aio as aio

    frame = await aio.recv(link)         # a Link, a Worker or a Channel
    loan = await aio.loan(worker)        # waits for a slot without blocking the loop
    ready = await aio.select([a, b])     # those that have a frame, or have ended

A frame or slot is only taken in the step that returns it: cancelling loses nothing. Nothing here makes a thread, and a link
that nobody awaits costs its other users nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterable
from weakref import WeakKeyDictionary

from ._native import Channel, Frame, Link, Loan, Worker
from ._select import receiving, sending
from .exceptions import LinkClosed

Source = Link | Worker | Channel


async def recv(source: Source) -> Frame:
    """The next frame. Raises as `source.recv()` does."""
    while (frame := source.try_recv()) is None:
        await _readable(source.fileno())
    return frame


async def loan(source: Source) -> Loan:
    """A slot to fill, as `source.loan()`: `with await aio.loan(worker) as frame: ...` sends it."""
    channel = sending(source)
    # First, so that the search below is one the descriptor knows of.
    fileno = channel.fileno()
    while (free := channel.try_loan()) is None:
        await _readable(fileno)
    return free


async def select(sources: Iterable[Source]) -> list[Source]:
    """Waits until some of them have a frame or have ended, and returns those."""
    wanted = list(sources)
    if not wanted:
        return []
    while True:
        if ready := receiving(wanted, timeout=0):
            return ready
        await _any_readable([source.fileno() for source in wanted])


async def frames(source: Source) -> AsyncIterator[Frame]:
    """The frames until the other side has finished: what `async for frame in source` goes through."""
    while True:
        try:
            frame = await recv(source)
        except LinkClosed:
            return
        yield frame
        # As the plain loop does: the next turn gives up the loop's hold on this one.
        frame.release()
        del frame


# For each asyncio loop and descriptor, who waits: a loop watches a descriptor for one callback only.
_waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, set[asyncio.Future[None]]]] = WeakKeyDictionary()


async def _readable(fd: int) -> None:
    await _any_readable([fd])


async def _any_readable(fds: list[int]) -> None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        await _trio_readable(fds)
        return
    of_loop = _waiting.setdefault(loop, {})
    future = loop.create_future()
    for fd in fds:
        waiters = of_loop.setdefault(fd, set())
        if not waiters:
            loop.add_reader(fd, _wake, of_loop, fd)
        waiters.add(future)
    try:
        await future
    finally:
        for fd in fds:
            waiters = of_loop.get(fd, set())
            waiters.discard(future)
            if not waiters and of_loop.pop(fd, None) is not None:
                loop.remove_reader(fd)


def _wake(of_loop: dict[int, set[asyncio.Future[None]]], fd: int) -> None:
    for future in of_loop.get(fd, ()):
        if not future.done():
            future.set_result(None)


async def _trio_readable(fds: list[int]) -> None:
    trio = sys.modules.get("trio")
    if trio is None or not trio.lowlevel.in_trio_run():
        raise RuntimeError("frameport.aio waits in asyncio or trio: no event loop is running here")

    async def one(fd: int) -> None:
        # A copy: trio watches a descriptor for one task only.
        copy = os.dup(fd)
        try:
            await trio.lowlevel.wait_readable(copy)
        finally:
            os.close(copy)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for fd in set(fds):
            nursery.start_soon(one, fd)

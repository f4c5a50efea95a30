"""Event loops: asyncio, trio, select, and bare descriptors."""

import asyncio
import select
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import frameport as fp
from conftest import ECHO
from frameport import aio

SPEC = fp.Spec("gray", 8, 6)


def picture(seq: int) -> np.ndarray:
    return np.full((6, 8), seq % 251, np.uint8)


async def converse(workers):
    """Frames through all workers at once; the loop is never blocked."""

    async def one(worker):
        for n in range(100):
            with await aio.loan(worker) as frame:
                frame.array[:] = n
            back = await aio.recv(worker)
            assert back.seq == n and (back.array == n).all()
        worker.finish()
        assert [frame.seq async for frame in worker] == []

    await asyncio.gather(*(one(worker) for worker in workers))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_many_workers_in_one_event_loop(start, loop):
    workers = [start(ECHO, SPEC) for _ in range(3)]
    if loop == "uvloop":
        uvloop = pytest.importorskip("uvloop")
        uvloop.run(converse(workers))
    else:
        asyncio.run(converse(workers))


def test_a_cancelled_receive_loses_no_frame(start):
    worker = start(ECHO, SPEC)

    async def main():
        for n in range(50):
            waiting = asyncio.ensure_future(aio.recv(worker))
            await asyncio.sleep(0)
            worker.send(picture(n))
            if n % 2:
                await asyncio.sleep(0)
            waiting.cancel()
            try:
                frame = await waiting
            except asyncio.CancelledError:
                frame = await asyncio.wait_for(aio.recv(worker), 30)
            assert frame.seq == n

    asyncio.run(main())


def test_two_tasks_wait_for_two_channels_of_one_link(start):
    worker = start("""
        import frameport as fp
        with fp.connect() as link:
            for frame in link:
                name = "odd" if frame.seq % 2 else "even"
                link.channel(name).send(frame.array)
    """, SPEC, {"odd": SPEC, "even": SPEC})

    async def take(name, seqs):
        channel, got = worker.channel(name), []
        async for frame in channel:
            got.append(int(frame.array[0, 0]))
        assert got == seqs

    async def main():
        tasks = [asyncio.ensure_future(take("odd", [1, 3, 5])), asyncio.ensure_future(take("even", [0, 2, 4]))]
        for n in range(6):
            with await aio.loan(worker) as frame:
                frame.array[:] = n
        worker.finish()
        await asyncio.gather(*tasks)

    asyncio.run(main())


def test_trio_waits_too(start):
    trio = pytest.importorskip("trio")
    workers = [start(ECHO, SPEC) for _ in range(2)]

    async def one(worker):
        for n in range(50):
            with await aio.loan(worker) as frame:
                frame.array[:] = n
            assert (await aio.recv(worker)).seq == n
        worker.send(picture(50))
        assert await aio.select([worker]) == [worker]

    async def main():
        async with trio.open_nursery() as nursery:
            for worker in workers:
                nursery.start_soon(one, worker)

    trio.run(main)


def test_an_asyncio_worker(start):
    worker = start("""
        import asyncio
        import frameport as fp
        async def main():
            with fp.connect() as link:
                async for frame in link:
                    await asyncio.sleep(0)
                    link.send_back(frame)
        asyncio.run(main())
    """, SPEC)
    for n in range(50):
        worker.send(picture(n))
        assert worker.recv(timeout=30).seq == n
    worker.finish()
    assert worker.wait(timeout=30) == 0


def test_select_and_a_bare_descriptor(start):
    one, two = start(ECHO, SPEC), start(ECHO, SPEC)
    for n in range(20):
        worker = (one, two)[n % 2]
        worker.send(picture(n))
        assert fp.select([one, two], timeout=30) == [worker]
        assert worker.recv().seq == n // 2
    with pytest.raises(fp.Timeout):
        fp.select([one, two.channel("out")], timeout=0.01)
    one.send(picture(0))
    assert select.select([one], [], [], 30)[0] == [one]
    assert one.recv() and one.try_recv() is None
    # A ring may come late, once; it costs a look.
    while select.select([one], [], [], 0)[0]:
        assert one.try_recv() is None


def test_without_an_event_loop_there_is_an_error(start):
    worker = start(ECHO, SPEC)
    with pytest.raises(RuntimeError, match="asyncio or trio"):
        aio.recv(worker).send(None)


def test_a_program_on_asyncio_ends_on_ctrl_c(program):
    code = textwrap.dedent(f"""
        import asyncio, os, signal, sys
        import frameport as fp
        from frameport import aio
        async def main():
            with fp.spawn({program(ECHO)!r}, fp.Spec("gray", 8, 6)) as worker:
                asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
                await aio.recv(worker)
        asyncio.run(main())
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "KeyboardInterrupt" in done.stderr, done.stderr

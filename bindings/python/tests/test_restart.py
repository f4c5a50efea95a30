"""spawn(restart=..., stall=...): one Worker over all lives of its process."""

import asyncio
import os
import signal
import time

import numpy as np
import pytest
from conftest import ECHO, picture

import frameport as fp

SPEC = fp.Spec("gray", 8, 6)
QUICK = fp.Restart(backoff=(0.001, 0.02))

STATED = """
    import os, sys
    import frameport as fp
    again = os.path.exists(sys.argv[0] + ".mark")
    open(sys.argv[0] + ".mark", "w").close()
    with fp.connect(output=fp.Spec("gray", 3, 2) if again else None) as link:
        for frame in link:
            with link.reply(frame) as out:
                out.array[:] = frame.array.flat[0]
                out.meta = dict(frame.params)
"""

ONCE = """
    import os, sys
    import frameport as fp
    if os.path.exists(sys.argv[0] + ".mark"):
        raise RuntimeError("no such model")
    open(sys.argv[0] + ".mark", "w").close()
    with fp.connect() as link:
        for frame in link:
            link.send_back(frame)
"""


def image(seq):
    return np.frombuffer(picture(seq, 48), np.uint8).reshape(6, 8)


def kill(worker):
    pid = worker.pid
    os.kill(pid, signal.SIGKILL)
    return pid


def send(worker, seq):
    with worker.loan(timeout=60) as frame:
        frame.fill(image(seq))
        frame.seq = seq


def test_the_same_worker_goes_on_and_tells_each_death_once(start):
    worker = start(ECHO, SPEC, restart=QUICK)
    kept = []
    for life in range(5):
        send(worker, life)
        kept.append(worker.recv(timeout=60).array)
        pid = kill(worker)
        with pytest.raises(fp.WorkerDied) as died:
            worker.recv(timeout=60)
        assert (died.value.pid, died.value.signal) == (pid, signal.SIGKILL)
    for life, view in enumerate(kept):
        assert view.tobytes() == picture(life, 48)
    send(worker, 5)
    assert worker.recv(timeout=60).seq == 5
    stats = worker.stats()
    assert (stats.restarts, stats.sent, stats.received, stats.lost) == (5, 6, 6, 0)
    assert worker.stop() == 0


def test_a_loan_of_an_earlier_life_is_refused(start):
    worker = start(ECHO, SPEC, restart=True)
    loan = worker.loan()
    kill(worker)
    with pytest.raises(fp.WorkerDied):
        worker.recv(timeout=60)
    loan.fill(image(0))
    with pytest.raises(fp.StaleLoan, match="loan another"):
        worker.send(loan)
    assert worker.stats().refused == 1


def test_parameters_and_another_output_reach_the_next_life(start):
    worker = start(STATED, SPEC, restart=QUICK, params={"n": 1})
    for life, (spec, n) in enumerate([(SPEC, 1), (fp.Spec("gray", 3, 2), 2)]):
        if life:
            kill(worker)
            with pytest.raises(fp.WorkerDied):
                worker.recv(timeout=60)
            worker.params["n"] = 2
        with worker.loan(timeout=60) as frame:
            frame.array[:] = 7
        result = worker.recv(timeout=60)
        assert (result.spec, result.array.shape, result.meta) == (spec, (spec.height, spec.width), {"n": n})
        assert (result.array == 7).all() and worker.output_spec == spec


def test_it_is_given_up_with_the_last_cause(start):
    worker = start(ONCE, SPEC, restart=fp.Restart(starts=2, backoff=(0.001, 0.01)))
    kill(worker)
    with pytest.raises(fp.WorkerDied):
        worker.recv(timeout=60)
    for call in (worker.recv, worker.loan, worker.try_recv):
        with pytest.raises(fp.WorkerDied, match="2 starts in a row have failed") as given_up:
            call()
        assert "no such model" in given_up.value.stderr_tail


def test_an_event_loop_goes_on(start):
    worker = start(ECHO, SPEC, restart=QUICK)
    number = worker.fileno()

    async def run():
        for life in range(3):
            await asyncio.to_thread(send, worker, life)
            async for frame in worker:
                assert frame.seq == life
                break
            kill(worker)
            with pytest.raises(fp.WorkerDied):
                async for frame in worker:
                    raise AssertionError(frame)

    asyncio.run(asyncio.wait_for(run(), 60))
    assert worker.fileno() == number


def test_a_forked_child_is_told(start):
    worker = start(ECHO, SPEC, restart=QUICK)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for call in (worker.recv, worker.loan, worker.fileno, worker.stop):
                try:
                    call()
                except fp.ForkedError:
                    continue
                os._exit(2)
            worker.stats()
            worker.holders()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    send(worker, 0)
    assert worker.recv(timeout=60).seq == 0


@pytest.mark.parametrize("action", ["kill", "write-off"])
def test_a_stalled_worker_holds_nobody_up(start, action):
    worker = start(ECHO, SPEC, stall=fp.Stall(0.1, action), slots=2)
    os.kill(worker.pid, signal.SIGSTOP)
    send(worker, 0)
    send(worker, 1)
    began = time.monotonic()
    if action == "kill":
        with pytest.raises(fp.Stalled, match="has had frame 0"):
            worker.loan(timeout=60)
        assert worker.wait(timeout=60) == -signal.SIGKILL
    else:
        with pytest.raises(fp.PoolExhausted, match="has stalled") as error:
            worker.loan(timeout=60)
        assert [slot.state for slot in error.value.holders] == ["written off"] * 2
        assert worker.stats().lost == 2
        os.kill(worker.pid, signal.SIGCONT)
        assert [np.asarray(worker.recv(timeout=60)).tobytes() for _ in range(2)] == [picture(0, 48), picture(1, 48)]
        send(worker, 2)
        assert worker.recv(timeout=60).seq == 2
    assert time.monotonic() - began < 50


def test_options_that_make_no_sense_are_refused(program):
    for options in ({"restart": fp.Restart(starts=0)}, {"stall": fp.Stall(1, "shout")}, {"stall": fp.Stall(0)}):
        with pytest.raises(fp.ConfigError):
            fp.spawn(program(ECHO), SPEC, **options)
    with pytest.raises(TypeError):
        list(fp.map(program(ECHO), [np.zeros((6, 8), np.uint8)], restart=True))

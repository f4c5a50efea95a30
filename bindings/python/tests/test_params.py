"""Parameters: what a host sets is there with the next frame."""

import os
import signal

import numpy as np
import pytest

import frameport as fp

SPEC = fp.Spec("gray", 8, 6)
PIXELS = np.zeros((6, 8), np.uint8)

TELL = """
    import json
    import frameport as fp

    def plain(value):
        return {name: plain(item) for name, item in value.items()} if hasattr(value, "items") else value

    with fp.connect() as link:
        early = plain(link.params)
        for frame in link:
            seen = frame.params
            assert frame.params is seen
            frame.meta = {"early": early, "seen": plain(seen), "newest": plain(link.params), "kept": plain(frame.params)}
            link.send_back(frame)
"""


def turn(worker):
    worker.send(PIXELS)
    return worker.recv(timeout=60).meta


def test_a_frame_comes_with_what_was_set_before_it_was_sent(start):
    worker = start(TELL, SPEC, params={"threshold": np.float32(0.5), "roi": (1, 2)})
    assert turn(worker)["early"] == {"threshold": 0.5, "roi": [1, 2]}
    for n in range(1000):
        worker.params["n"] = n
        meta = turn(worker)
        assert meta["seen"]["n"] == meta["newest"]["n"] == n
    assert meta["seen"] == meta["kept"]
    assert worker.params == {"threshold": 0.5, "roi": [1, 2], "n": 999}
    assert worker.params["roi"] == [1, 2] and len(worker.params) == 3 and "x" not in worker.params
    del worker.params["roi"]
    worker.params.update(n=0, nested={"a": [1]})
    assert turn(worker)["seen"] == {"threshold": 0.5, "n": 0, "nested": {"a": [1]}}
    worker.params.clear()
    assert turn(worker)["seen"] == {}
    for missing in (lambda: worker.params["x"], lambda: worker.params.pop("x")):
        with pytest.raises(KeyError):
            missing()


def test_a_function_reads_them_from_its_frame(start):
    worker = start(
        """
        import frameport as fp

        @fp.worker
        def process(frame):
            frame.array[:] = frame.params["value"]
        """,
        SPEC,
        params={"value": 3},
    )
    for value in (3, 7):
        worker.params["value"] = value
        worker.send(PIXELS)
        assert (worker.recv(timeout=60).array == value).all()


def test_what_a_worker_sees_cannot_be_changed(start):
    worker = start(
        """
        import frameport as fp

        with fp.connect() as link:
            for frame in link:
                refused = 0
                for change in ("seen['a'] = 1", "seen['nested']['a'] = 1", "seen['list'][0] = 1"):
                    seen = frame.params
                    try:
                        exec(change)
                    except TypeError:
                        refused += 1
                frame.release()
                settled = frame.params == seen
                with link.loan() as out:
                    out.meta = {"refused": refused, "settled": settled}
        """,
        SPEC,
        params={"nested": {}, "list": [0]},
    )
    assert turn(worker) == {"refused": 3, "settled": True}


def test_a_stopped_worker_holds_up_no_setter(start):
    worker = start(TELL, SPEC)
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        for n in range(100_000):
            worker.params["n"] = n
        worker.send(PIXELS)
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    assert worker.recv(timeout=60).meta["seen"] == {"n": 99_999}


def test_what_cannot_be_said_is_refused_and_changes_nothing(start, program):
    worker = start(TELL, SPEC, params={"keep": 1})
    for value, why in [(float("nan"), "JSON"), (object(), "JSON"), ("x" * 65536, "65536"), ([[[]]] * 30000, "65536")]:
        with pytest.raises(fp.ParamsError, match=why):
            worker.params["bad"] = value
    with pytest.raises(TypeError, match="name"):
        worker.params[3] = 1
    with pytest.raises(fp.ParamsError):
        fp.spawn(program(TELL), SPEC, params={"big": "x" * 65536})
    assert turn(worker)["seen"] == {"keep": 1}


def test_a_frame_a_host_got_has_none(start):
    worker = start(TELL, SPEC, params={"a": 1})
    worker.send(PIXELS)
    frame = worker.recv(timeout=60)
    assert frame.params == {}
    frame = None


def test_forked_children_get_an_error_and_their_parents_go_on(start):
    worker = start(
        """
        import os
        import frameport as fp

        with fp.connect(logging=True) as link:
            for frame in link:
                child = os.fork()
                if child == 0:
                    refused = 0
                    for look in (lambda: link.params, lambda: frame.params):
                        try:
                            look()
                        except fp.ForkedError:
                            refused += 1
                    assert link.report("from a fork") is False
                    os._exit(refused)
                frame.meta["refused"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                frame.meta["seen"] = frame.params["a"]
                link.send_back(frame)
        """,
        SPEC,
        params={"a": 1},
    )
    assert turn(worker) == {"refused": 2, "seen": 1}
    child = os.fork()
    if child == 0:
        try:
            worker.params["a"] = 2
        except fp.ForkedError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    worker.params["a"] = 3
    assert turn(worker) == {"refused": 2, "seen": 3}

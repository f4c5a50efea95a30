"""Events: what workers report and log arrives attributed, holds nobody up, and what is lost is counted."""

import logging
import queue
import subprocess
import sys
import threading

import numpy as np
import pytest

import frameport as fp

SPEC = fp.Spec("gray", 8, 6)
PIXELS = np.zeros((6, 8), np.uint8)

REPORT = """
    import logging
    import frameport as fp

    with fp.connect(logging=logging.DEBUG) as link:
        for frame in link:
            assert link.report("loaded", model="x", shape=(1, 2), odd=object)
            assert link.report("careful", level=logging.WARNING)
            logging.getLogger("detector.db").info("%d rows", 3, extra={"table": "faces"})
            try:
                1 / 0
            except ZeroDivisionError:
                logging.getLogger("detector").exception("failed")
            link.report("x" * 10_000, level="trace", deep=[[]] * 10_000)
            link.send_back(frame)
"""


@pytest.fixture
def records():
    """What arrives at the logger of this test's worker."""
    got = queue.Queue()

    class Keep(logging.Handler):
        def emit(self, record):
            got.put(record)

    logger, handler = logging.getLogger("frameport"), Keep()
    logger.addHandler(handler)
    logger.setLevel(1)
    yield got
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def turn(worker, meta=None):
    with worker.loan() as frame:
        frame.meta = meta or {}
    return worker.recv(timeout=60).meta


def test_reports_and_logs_are_records_of_the_worker(start, records):
    worker = start(REPORT, SPEC, name="detector")
    turn(worker)
    got = [records.get(timeout=60) for _ in range(5)]
    for record in got:
        assert (record.name, record.process, record.worker) == ("frameport.detector", worker.pid, "detector")
    assert [record.levelno for record in got] == [20, 30, 20, 40, 5]
    assert [record.source for record in got] == ["", "", "detector.db", "detector", ""]
    loaded, careful, rows, failed, long = got
    assert (loaded.getMessage(), loaded.fields) == ("loaded", {"model": "x", "shape": [1, 2], "odd": "<class 'object'>"})
    assert (careful.getMessage(), careful.fields) == ("careful", {})
    assert (rows.getMessage(), rows.fields) == ("3 rows", {"table": "faces"})
    assert failed.getMessage().startswith("failed\nTraceback") and "ZeroDivisionError" in failed.getMessage()
    assert long.getMessage() == "x" * 4096 and list(long.fields) == ["cut"]


def test_a_callback_gets_them_instead(start, records):
    got = queue.Queue()

    def on_event(event):
        got.put(event)
        if event.message == "loaded":
            raise ValueError("the application's own")

    worker = start(REPORT, SPEC, name="detector", on_event=on_event)
    turn(worker)
    event = got.get(timeout=60)
    assert event == fp.Event("detector", worker.pid, "info", "loaded", "", event.fields, 0)
    assert event.fields["model"] == "x"
    assert got.get(timeout=60).level == "warn", "an exception costs its own event only"
    assert "raised" in records.get(timeout=60).getMessage()
    assert records.empty()


def test_a_function_may_log_to_its_host(start, records):
    worker = start(
        """
        import logging
        import frameport as fp

        @fp.worker(logging=True)
        def process(frame):
            logging.warning("frame %d", frame.seq)
        """,
        SPEC,
        name="short",
    )
    turn(worker)
    record = records.get(timeout=60)
    assert (record.getMessage(), record.process, record.source) == ("frame 0", worker.pid, "root")
    assert worker.stderr_tail == ""


def test_a_flood_holds_up_no_frame_and_its_losses_are_told(start):
    gate, counted, last = threading.Event(), [], queue.Queue()

    def on_event(event):
        gate.wait(60)
        counted.append(1 + event.dropped)
        if event.message == "last":
            last.put((sum(counted), event.fields["reported"]))

    worker = start(
        """
        import frameport as fp
        reported = 0
        with fp.connect() as link:
            for frame in link:
                for _ in range(1 if frame.meta else 2000):
                    reported += 1
                    link.report("last" if frame.meta else "x" * 500, reported=reported)
                link.send_back(frame)
        """,
        SPEC,
        on_event=on_event,
    )
    for _ in range(10):
        turn(worker)
    gate.set()
    while True:
        turn(worker, {"last": True})
        try:
            arrived, reported = last.get(timeout=0.2)
            break
        except queue.Empty:
            continue
    assert arrived == reported > 20_000
    assert max(counted) > 1


def test_a_host_that_ends_at_once_has_its_workers_last_words(program):
    worker = program("""
        import frameport as fp
        with fp.connect() as link:
            for frame in link:
                for n in range(300):
                    assert link.report(str(n), level="warn")
                link.send_back(frame)
    """)
    code = f"""
import threading
import frameport as fp

ended = threading.Event()

def on_event(event):
    ended.wait(60)
    print(event.message)

with fp.spawn({worker!r}, fp.Spec("gray", 8, 6), on_event=on_event) as w:
    w.send(memoryview(bytes(48)).cast("B", (6, 8)))
    w.recv()
ended.set()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [str(n) for n in range(300)]


def test_a_forked_host_listens_to_workers_of_its_own(program):
    worker = program(REPORT)
    code = f"""
import os, logging
import frameport as fp
logging.basicConfig(format="%(name)s %(message).9s", level=logging.INFO)

def use(name):
    with fp.spawn({worker!r}, fp.Spec("gray", 8, 6), name=name) as w:
        w.send(memoryview(bytes(48)).cast("B", (6, 8)))
        w.recv()

use("parent")
child = os.fork()
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    use("again")
else:
    use("child")
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.endswith("loaded")]
    assert said == [f"frameport.{name} loaded" for name in ("parent", "child", "again")], done.stderr


def test_a_level_that_is_none_is_refused(start):
    worker = start(
        """
        import frameport as fp
        with fp.connect() as link:
            for frame in link:
                try:
                    link.report("x", level="loud")
                except ValueError as error:
                    frame.meta["error"] = str(error)
                link.send_back(frame)
        """,
        SPEC,
    )
    assert "'loud'" in turn(worker)["error"]


def test_the_command_shows_them(program, tmp_path):
    worker = program("""
        import logging
        import frameport as fp

        @fp.worker(logging=True)
        def process(frame):
            logging.warning("frame %d", frame.seq, extra={"side": "left"})
    """)
    arguments = ["run", "--input", "pattern:32x32@30:2", "--output", str(tmp_path / "out.y4m"), "--"]
    command = [sys.executable, "-m", "frameport", *arguments, *worker]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("warn")]
    assert said == [f"""warn worker 'program1.py' (root): frame {n} {{"side":"left"}}""" for n in range(2)]


def test_a_flood_loses_nothing_of_another_worker(start):
    gate, got = threading.Event(), queue.Queue()
    flood = start(
        """
        import frameport as fp
        with fp.connect() as link:
            for frame in link:
                for _ in range(5000):
                    link.report("x" * 500)
                link.send_back(frame)
        """,
        SPEC,
        on_event=lambda event: gate.wait(60),
    )
    turn(flood)
    calm = start(REPORT, SPEC, on_event=got.put)
    turn(calm)
    gate.set()
    assert [got.get(timeout=60).dropped for _ in range(5)] == [0] * 5

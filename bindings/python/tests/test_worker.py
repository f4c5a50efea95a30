"""A worker's side: links, loops, replies, the decorator."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import ECHO, HERE, picture

import frameport as fp

SPEC = fp.Spec("gray", 8, 6)
PIXELS = np.frombuffer(picture(1, 48), np.uint8).reshape(6, 8)


def test_none_sends_the_same_slot_back_with_what_was_changed(start):
    worker = start("""
        import frameport as fp
        @fp.worker
        def process(frame):
            frame.array[:] = 255 - frame.array
            if frame.seq == 1:
                frame.meta["faces"] = 3
            if frame.seq == 2:
                frame.meta = {"new": True}
            if frame.seq == 3:
                frame.meta.get("from")
    """, SPEC)
    metas = []
    for _ in range(5):
        with worker.loan() as loan:
            np.asarray(loan)[:] = PIXELS
            loan.meta["from"] = "host"
        frame = worker.recv()
        assert np.array_equal(np.asarray(frame), 255 - PIXELS)
        metas.append(frame.meta)
    assert metas == [{}, {"from": "host", "faces": 3}, {"new": True}, {}, {}]


def test_an_array_is_copied_into_the_return_pool_and_keeps_number_and_times(start):
    worker = start("""
        import numpy as np
        import frameport as fp
        @fp.worker(output=fp.Spec.tensor("float32", (2, 2)))
        def process(frame):
            return np.full((2, 2), frame.array.sum(), np.float32)
    """, SPEC)
    assert worker.output_spec == fp.Spec.tensor("float32", (2, 2))
    with worker.loan() as loan:
        np.asarray(loan)[:] = PIXELS
        loan.seq, loan.timestamp_ns, loan.pts, loan.duration = 17, 1000, -5, 3
    frame = worker.recv()
    assert (frame.seq, frame.timestamp_ns, frame.pts, frame.duration) == (17, 1000, -5, 3)
    assert np.array_equal(np.asarray(frame), np.full((2, 2), PIXELS.sum(), np.float32))


def test_drop_sends_nothing_back_and_frees_the_slot(start):
    worker = start("""
        import frameport as fp
        @fp.worker
        def process(frame):
            return None if frame.seq % 3 == 2 else fp.DROP
    """, SPEC, slots=2)
    for _ in range(30):
        worker.send(PIXELS)
        if _ % 3 == 2:
            worker.recv().release()
    worker.finish()
    assert [frame.seq for frame in worker] == []
    assert worker.wait(timeout=30) == 0


def test_a_wrong_array_ends_the_worker_with_both_shapes_named(start):
    worker = start("""
        import numpy as np
        import frameport as fp
        @fp.worker
        def process(frame):
            return np.zeros((3, 3))
    """, SPEC)
    worker.send(PIXELS)
    with pytest.raises(fp.WorkerDied, match=r"float64 \[3, 3\], a frame of gray 8x6 is uint8 \[6, 8\]") as raised:
        worker.recv()
    assert raised.value.returncode == 1 and raised.value.reason.startswith("frameport.exceptions.FormatError")


def test_a_reply_that_raises_is_discarded(start):
    worker = start("""
        import frameport as fp
        with fp.connect() as link:
            for frame in link:
                try:
                    with link.reply(frame) as out:
                        if frame.seq == 0:
                            raise RuntimeError("not this one")
                        out.array[:] = 7
                except RuntimeError:
                    pass
    """, SPEC, slots=1)
    for _ in range(3):
        worker.send(PIXELS)
    worker.finish()
    assert [(frame.seq, int(np.asarray(frame).max())) for frame in worker] == [(1, 7), (2, 7)]


def test_a_host_that_closes_in_the_middle_of_a_reply_ends_the_loop_quietly(start):
    worker = start("""
        import sys
        import frameport as fp
        with fp.connect() as link:
            for frame in link:
                with link.reply(frame) as out:
                    link.send(link.loan())
                    try:
                        link.recv()
                    except fp.LinkClosed:
                        pass
            print("after the loop")
            link.recv()
            print("never here")
        print("after the block")
    """, SPEC)
    worker.send(PIXELS)
    worker.recv()
    assert worker.stop() == 0
    assert worker.stderr_tail == "after the loop\nafter the block\n"


def test_a_link_knows_its_name_and_specs_and_sends_by_itself(start):
    worker = start("""
        import os
        import numpy as np
        import frameport as fp
        link = fp.connect()
        assert link.name == "counter", link.name
        assert link.input_spec is None
        assert link.output_spec == fp.Spec.tensor("uint32", (1,))
        assert "FRAMEPORT_LINK" not in os.environ
        try:
            fp.connect()
        except fp.NotAWorker:
            pass
        for n in range(5):
            assert link.send(np.array([n], np.uint32)) == n
        try:
            link.recv()
        except fp.ConfigError:
            pass
        link.close()
    """, None, fp.Spec.tensor("uint32", (1,)), name="counter")
    assert [int(np.asarray(frame)[0]) for frame in worker] == [0, 1, 2, 3, 4]
    with pytest.raises(fp.ConfigError, match="no input channel"):
        worker.loan()


def test_try_recv_and_timeouts_do_not_wait(start):
    worker = start("""
        import frameport as fp
        link = fp.connect()
        assert link.try_recv() is None
        with link.loan() as out:  # the host sends nothing before this
            pass
        frame = None
        while frame is None:
            try:
                frame = link.recv(timeout=0.01)
            except TimeoutError as error:
                assert isinstance(error, fp.Timeout)
        try:
            link.send(frame)
        except TypeError as error:
            assert "send_back" in str(error)
        link.send_back(frame)
        try:
            link.send_back(frame)
        except fp.FrameReleased as error:
            assert "sent back" in str(error)
        link.close()
    """, SPEC)
    worker.recv(timeout=30)
    assert worker.try_recv() is None
    with pytest.raises(fp.Timeout, match="no frame on channel 'out'"):
        worker.recv(timeout=0)
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            worker.recv(timeout=wrong)
    worker.send(PIXELS)
    assert len(list(worker)) == 1


def test_metadata_is_any_json_object_up_to_its_room(start):
    worker = start("""
        import frameport as fp
        @fp.worker
        def process(frame):
            frame.meta = dict(frame.meta)
    """, SPEC, meta_capacity=200)
    told = {"text": "Grüße 🎥", "list": [1, 2.5, None, True], "np": np.float32(0.5), "array": np.arange(3)}
    with worker.loan() as loan:
        loan.meta.update(told)
    assert worker.recv().meta == told | {"np": 0.5, "array": [0, 1, 2]}
    for wrong, error in [({"x": "y" * 200}, fp.MetaTooLong), ({"x": {1, 2}}, fp.MetaError), ({"x": float("nan")}, fp.MetaError)]:
        with pytest.raises(error) as raised, worker.loan() as loan:
            loan.meta = wrong
        assert isinstance(raised.value, ValueError)
        loan.discard()
    with pytest.raises(TypeError, match="meta is a dict"):
        loan.meta = [1]
    assert worker.holders() == []


def test_a_decorated_function_is_a_plain_one_when_imported(program):
    import importlib.util

    [_, path] = program("""
        import frameport as fp
        @fp.worker
        def process(frame):
            return frame + 1
    """)
    loaded = importlib.util.spec_from_file_location("plain", path)
    module = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(module)
    assert module.process(1) == 2


@pytest.mark.parametrize("last", ["@fp.worker\ndef process(frame): pass", "fp.main(print)"])
def test_a_worker_started_by_hand_says_how_to_run_it(program, last):
    command = program("import frameport as fp\n" + last)
    done = subprocess.run(command, capture_output=True, text=True)
    name = os.path.basename(command[1])
    assert (done.returncode, done.stdout) == (2, "")
    assert f"frameport run --input pattern -- python {name}" in done.stderr


def test_connecting_without_a_host_is_an_error():
    with pytest.raises(fp.NotAWorker, match="FRAMEPORT_LINK"):
        fp.connect()


def test_threads_share_a_link(start):
    worker = start("""
        import threading
        import frameport as fp
        link = fp.connect()
        def work():
            for frame in link:
                link.send_back(frame)
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        link.close()
    """, SPEC, slots=4)
    seen = []
    for _ in range(200):
        worker.send(PIXELS)
        frame = worker.recv(timeout=30)
        seen.append(frame.seq)
        frame.release()
    assert sorted(seen) == list(range(200))


def test_a_forked_child_gets_an_error_and_its_parent_goes_on(start):
    worker = start("""
        import multiprocessing, os
        import numpy as np
        import frameport as fp
        context = multiprocessing.get_context("fork")
        def child(link, frame, view, answers):
            said = []
            for call in (link.recv, link.try_recv, link.loan, lambda: np.asarray(frame), lambda: memoryview(frame),
                         lambda: frame.array, lambda: frame.tobytes(), lambda: link.send_back(frame)):
                try:
                    call()
                    said.append("nothing")
                except fp.ForkedError:
                    said.append("forked")
            frame.release()
            link.close()
            del view, frame, link
            answers.put(said)
        with fp.connect() as link:
            for frame in link:
                view = np.asarray(frame)
                answers = context.Queue()
                process = context.Process(target=child, args=(link, frame, view, answers))
                process.start()
                said = answers.get(timeout=60)
                process.join()
                assert process.exitcode == 0, process.exitcode
                assert said == ["forked"] * 8, said
                assert (view == frame.array).all()
                del view
                link.send_back(frame)
    """, SPEC)
    for _ in range(2):
        worker.send(PIXELS)
        with worker.recv(timeout=60) as frame:
            assert np.array_equal(np.asarray(frame), PIXELS)


def test_without_numpy_frames_are_memoryviews_and_bytes(tmp_path):
    block = "import sys\nsys.modules['numpy'] = None\n"
    worker = tmp_path / "worker.py"
    worker.write_text(block + (
        "import frameport as fp\n"
        "@fp.worker\n"
        "def process(frame):\n"
        "    flat = memoryview(frame).cast('B')\n"
        "    flat[:] = bytes(255 - value for value in flat)\n"
        "    if frame.seq: return frame.tobytes() and memoryview(frame)\n"
    ))
    host = block + f"""
import frameport as fp
spec = fp.Spec("bgr24", 4, 3)
with fp.spawn([sys.executable, {str(worker)!r}], spec) as w:
    for seq in range(2):
        with w.loan() as f:
            memoryview(f).cast("B")[:] = bytes(range(36))
        out = w.recv()
        assert out.copy() == out.tobytes() == bytes(255 - n for n in range(36)) and type(out.copy()) is bytes
        assert memoryview(out).shape == (3, 4, 3)
        for needs in (lambda: out.array, out.to_ndarray):
            try:
                needs()
            except ModuleNotFoundError as error:
                assert "pip install numpy" in str(error), error
            else:
                raise AssertionError
    w.send(memoryview(bytes(36)).cast("B", (3, 4, 3)))
    assert w.recv().tobytes() == bytes([255]) * 36
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", host], capture_output=True, text=True, cwd=HERE)
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_the_packages_command_is_there():
    done = subprocess.run([sys.executable, "-m", "frameport", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "run" in done.stdout and "doctor" in done.stdout


def test_echo_keeps_every_frame_in_order(start):
    worker = start(ECHO, SPEC, slots=3)
    for seq in range(500):
        worker.send(np.frombuffer(picture(seq, 48), np.uint8).reshape(6, 8))
        with worker.recv() as frame:
            assert (frame.seq, frame.tobytes()) == (seq, picture(seq, 48))
    stats = worker.stats()
    assert (stats.sent, stats.received, stats.lost, stats.in_flight, stats.results) == (500, 500, 0, 0, 500)


@pytest.mark.parametrize("wait", ["adaptive", "park"])
def test_a_signal_handler_may_close_the_link_its_thread_waits_on(start, wait):
    worker = start("""
        import signal
        import frameport as fp
        link = fp.connect()
        signal.signal(signal.SIGTERM, lambda *_: link.close())
        for frame in link:
            link.send_back(frame)
    """, SPEC, wait=wait)
    worker.send(PIXELS)
    assert worker.recv(timeout=60).seq == 0
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(timeout=60) == 0


def test_a_fork_of_the_host_reads_no_shared_word(start):
    worker = start(ECHO, SPEC)
    child = os.fork()
    if child == 0:
        worker.stats(), worker.holders(), worker.finish()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    worker.send(PIXELS)
    assert worker.recv(timeout=60).seq == 0

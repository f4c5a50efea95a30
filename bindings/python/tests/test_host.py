"""A host's side: starting, ending, dying, interrupting."""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ECHO, HERE

import frameport as fp

SPEC = fp.Spec("gray", 8, 6)
PIXELS = np.zeros((6, 8), np.uint8)


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_leaving_the_block_ends_the_worker(program):
    with fp.spawn(program(ECHO), SPEC) as worker:
        worker.send(PIXELS)
        frame = worker.recv()
    assert gone(worker.pid)
    assert worker.stop() == 0
    assert np.asarray(frame).sum() == 0, "a received frame stays"
    for call in (worker.recv, worker.try_recv, worker.loan):
        with pytest.raises(fp.LinkClosed, match="closed"):
            call()


def test_a_worker_under_uv_is_met_and_ends_with_it(program):
    """`uv run` stays as the worker's parent: the process that connects is not the one that was spawned."""
    uv = Path(sys.executable).with_name("uv")
    python, *script = program(ECHO.replace("with fp", "import os\n    with fp").replace(
        "link.send_back(frame)", "frame.meta['pid'] = os.getpid(); link.send_back(frame)"))
    command = [uv, "run", "--no-project", "--offline", "--python", python, *script]
    with fp.spawn(command, SPEC) as worker:
        worker.send(PIXELS)
        ours = worker.recv().meta["pid"]
        assert ours != worker.pid
    assert gone(worker.pid) and gone(ours)
    with fp.spawn(command, SPEC) as worker:
        worker.send(PIXELS)
        os.kill(worker.recv().meta["pid"], signal.SIGKILL)
        with pytest.raises((fp.WorkerDied, fp.LinkClosed)):
            worker.recv(timeout=30)
    assert gone(worker.pid)


def test_an_exception_in_the_block_kills_a_worker_that_would_not_leave(program):
    deaf = """
        import signal, time
        import frameport as fp
        link = fp.connect()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        link.try_recv()
        while True: time.sleep(1)
    """
    with pytest.raises(ZeroDivisionError), fp.spawn(program(deaf), SPEC, grace=600) as worker:
        raise ZeroDivisionError
    assert worker.stop() == -signal.SIGKILL
    assert gone(worker.pid)


def test_a_worker_nobody_keeps_is_ended(program):
    worker = fp.spawn(program(ECHO), SPEC)
    pid = worker.pid
    del worker
    gc.collect()
    assert gone(pid)


def test_a_host_that_just_ends_leaves_nothing_behind(program):
    code = f"""
import frameport as fp
w = fp.spawn({program(ECHO)!r}, fp.Spec("gray", 8, 6))
w.send(memoryview(bytes(48)).cast("B", (6, 8)))
frame = w.recv()
view = memoryview(frame)
loan = w.loan()
capsule = frame.__dlpack__()
print(w.pid)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert gone(int(done.stdout))


def test_finish_lets_the_worker_send_its_last(start):
    worker = start("""
        import frameport as fp
        with fp.connect() as link:
            kept = [link.recv() for _ in range(3)]
            for frame in link: pass
            for frame in kept: link.send_back(frame)
    """, SPEC)
    for _ in range(3):
        worker.send(PIXELS)
    worker.finish()
    assert [frame.seq for frame in worker] == [0, 1, 2]
    assert worker.wait(timeout=60) == 0
    with pytest.raises(fp.LinkClosed, match="finished here|closed"):
        worker.loan()


def test_a_worker_that_raises_is_quoted(start):
    worker = start("""
        import frameport as fp
        @fp.worker
        def process(frame):
            raise ValueError("no such model")
    """, SPEC, name="detector")
    worker.send(PIXELS)
    with pytest.raises(fp.WorkerDied, match="worker 'detector' .* failed: ValueError: no such model") as raised:
        worker.recv()
    died = raised.value
    assert (died.name, died.pid, died.returncode, died.signal) == ("detector", worker.pid, 1, None)
    assert died.reason == "ValueError: no such model"
    assert "in process" in died.stderr_tail and "ValueError: no such model" in died.stderr_tail
    for call in (worker.loan, worker.try_recv):
        with pytest.raises(fp.WorkerDied):
            call()


def test_a_worker_that_raises_in_its_own_loop_is_quoted_too(start):
    worker = start("""
        import frameport as fp
        with fp.connect() as link:
            for frame in link:
                {}["key"]
    """, SPEC)
    worker.send(PIXELS)
    with pytest.raises(fp.WorkerDied, match="KeyError: 'key'"):
        list(worker)


IN_WITH = "with fp.connect() as link:"
WITHOUT = "link = fp.connect()\n        if True:"


@pytest.mark.parametrize("connect", [IN_WITH, WITHOUT], ids=["with", "without"])
@pytest.mark.parametrize(("how", "returncode", "number"), [
    ("os._exit(7)", 7, None), ("sys.exit(3)", 3, None), ("os.kill(os.getpid(), 9)", -9, 9), ("os.abort()", -6, 6),
    ("raise ValueError", 1, None),
])
def test_a_worker_that_is_gone_says_how(start, connect, how, returncode, number):
    worker = start(f"""
        import os, sys
        import frameport as fp
        {connect}
            for frame in link:
                {how}
    """, SPEC)
    worker.send(PIXELS)
    with pytest.raises(fp.WorkerDied) as raised:
        worker.recv()
    assert (raised.value.returncode, raised.value.signal) == (returncode, number)
    assert raised.value.reason == ("ValueError" if "ValueError" in how else raised.value.reason)


@pytest.mark.parametrize("connect", [IN_WITH, WITHOUT], ids=["with", "without"])
def test_a_worker_that_ends_in_order_has_not_died(start, connect):
    worker = start(f"""
        import sys
        import frameport as fp
        {connect}
            link.send_back(link.recv())
            sys.exit()
    """, SPEC)
    worker.send(PIXELS)
    assert [frame.seq for frame in worker] == [0]
    assert worker.wait(timeout=60) == 0


def test_an_exception_can_be_pickled():
    import pickle

    died = fp.WorkerDied("gone")
    died.returncode = 3
    again = pickle.loads(pickle.dumps(died))
    assert (str(again), again.returncode, again.signal) == ("gone", 3, None)


def test_what_a_worker_prints_goes_to_stderr_and_is_kept(start, capfd):
    worker = start("""
        import sys
        import frameport as fp
        print("on stdout", flush=True)
        print("on stderr", file=sys.stderr, flush=True)
        with fp.connect() as link:
            for frame in link: link.send_back(frame)
    """, SPEC)
    worker.send(PIXELS)
    worker.recv()
    worker.stop()
    assert worker.stderr_tail == "on stdout\non stderr\n"
    out, err = capfd.readouterr()
    assert (out, err) == ("", "on stdout\non stderr\n")


def test_a_program_that_is_not_there_is_an_error_before_anything_else():
    with pytest.raises(fp.SpawnError, match="no-such-program.*PATH"):
        fp.spawn(["no-such-program"], SPEC)
    with pytest.raises(TypeError, match="must be a list"):
        fp.spawn("python worker.py", SPEC)
    with pytest.raises(fp.ConfigError, match="command is empty"):
        fp.spawn([], SPEC)
    for wrong, says in [({"delivery": "maybe"}, "lossless"), ({"wait": "long"}, "adaptive"), ({"slots": 0}, "slots"),
                        ({"require_isolation": "total"}, "scoped")]:
        with pytest.raises(fp.ConfigError, match=says):
            fp.spawn([sys.executable], SPEC, **wrong)
    with pytest.raises(fp.ConfigError, match="channel"):
        fp.spawn([sys.executable])


def test_a_worker_that_never_connects_is_killed_at_the_deadline(program):
    with pytest.raises(fp.NotReady, match="did not connect") as raised:
        fp.spawn(program("import time\ntime.sleep(600)"), SPEC, ready_timeout=0.5)
    assert gone(raised.value.pid)


def test_a_worker_that_ends_before_connecting_says_why(program):
    with pytest.raises(fp.WorkerDied, match="before it connected(.|\n)*ImportError: no model") as raised:
        fp.spawn(program("raise ImportError('no model')"), SPEC)
    assert raised.value.returncode == 1


def test_a_worker_in_a_sandbox_says_what_must_be_allowed(program):
    sandboxed = """
        import json, os, struct
        told = json.dumps({"type": "sandboxed", "operation": "mach-lookup", "message": "no way to a Mach port"}).encode()
        numbers = os.environ["FRAMEPORT_LINK"].removeprefix("fd:").split(",")
        os.write(int(numbers[:2][-1]), struct.pack("<I", len(told)) + told)
        raise SystemExit(3)
    """
    with pytest.raises(fp.Denied, match="no way to a Mach port") as raised:
        fp.spawn(program(sandboxed), SPEC, shared_memory=True)
    assert raised.value.operation == "mach-lookup" and isinstance(raised.value, PermissionError)
    assert raised.value.profile_line.startswith("(allow mach-lookup ")


def test_more_than_there_is_memory_is_an_error_before_anything_starts():
    with pytest.raises(fp.MemoryLimit, match="MiB"):
        fp.spawn(["no-such-program"], fp.Spec.bytes(1 << 39))
    assert issubclass(fp.MemoryLimit, MemoryError)


def test_directory_and_environment_are_the_callers(start, tmp_path):
    worker = start("""
        import os
        import frameport as fp
        with fp.connect() as link:
            for frame in link:
                frame.meta = {"cwd": os.getcwd(), "var": os.environ["OF_MINE"], "path": "PATH" in os.environ}
                link.send_back(frame)
    """, SPEC, cwd=tmp_path, env={"OF_MINE": "yes"})
    worker.send(PIXELS)
    assert worker.recv().meta == {"cwd": str(tmp_path), "var": "yes", "path": True}


def test_an_exhausted_pool_names_its_holders(start):
    worker = start("""
        import frameport as fp
        link = fp.connect()
        kept = [link.recv() for _ in range(2)]
        with link.loan() as out: pass
        for frame in link: pass
    """, SPEC, slots=2)
    worker.send(PIXELS)
    worker.send(PIXELS)
    worker.recv()
    with pytest.raises(fp.PoolExhausted, match=f"held by worker .* .pid {worker.pid}.") as raised:
        worker.loan(timeout=0.01)
    assert [holder.seq for holder in raised.value.holders] == [0, 1]
    assert worker.stats().no_slot == 1


def test_loans_and_frames_of_others_are_refused(start):
    one, other = start(ECHO, SPEC), start(ECHO, SPEC)
    loan = one.loan()
    with pytest.raises(fp.FormatError, match="another link"):
        other.send(loan)
    assert one.send(loan) == 0
    with pytest.raises(fp.FrameReleased, match="was sent"):
        one.send(loan)
    with pytest.raises(fp.FrameReleased, match="was sent"), loan:
        pass
    with pytest.raises(TypeError, match="send_back"):
        one.send(one.recv())


INTERRUPTED = {
    "recv": ("echo", "w.recv()"),
    "recv with timeout": ("echo", "w.recv(timeout=600)"),
    "loop": ("echo", "list(w)"),
    "loan": ("keeper", "while True: w.send(memoryview(bytes(48)).cast('B', (6, 8)))"),
    "wait": ("echo", "w.wait()"),
}
KEEPER = """
import frameport as fp
link = fp.connect()
kept = []
while True: kept.append(link.recv())
"""


@pytest.mark.parametrize("where", INTERRUPTED)
def test_ctrl_c_ends_a_wait(program, where):
    worker, call = INTERRUPTED[where]
    command = program(ECHO if worker == "echo" else KEEPER)
    interrupt(f"""
with fp.spawn({command!r}, fp.Spec("gray", 8, 6), deadline=None) as w:
    print(w.pid, flush=True)
    {call}
""")


def test_ctrl_c_ends_a_start(program):
    command = program("import os, sys, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)")
    interrupt(f"""
import os, sys
os.dup2(1, 2)
fp.spawn({command!r}, fp.Spec("gray", 8, 6), ready_timeout=None)
""")


def interrupt(code):
    """Runs a host, interrupts it once it has said its worker's pid, and expects both to end."""
    # Python does not do this by itself in a shell's background job, which ignores Ctrl-C.
    answer = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    catch = f"{answer}import frameport as fp\ntry:\n{code.replace(chr(10), chr(10) + '    ')}\nexcept KeyboardInterrupt:\n    print('caught')\n"
    host = subprocess.Popen([sys.executable, "-c", catch], stdout=subprocess.PIPE, text=True, cwd=HERE)
    try:
        pid = int(host.stdout.readline())
        host.send_signal(signal.SIGINT)
        out, _ = host.communicate(timeout=60)
    finally:
        host.kill()
    assert (out.strip(), host.returncode) == ("caught", 0)
    assert gone(pid)


def test_other_threads_run_during_a_wait(start):
    import threading

    worker = start(ECHO, SPEC)
    received = []
    thread = threading.Thread(target=lambda: received.append(worker.recv()))
    thread.start()
    worker.send(PIXELS)
    thread.join(timeout=60)
    assert received[0].seq == 0


def in_use():
    """This process's descriptors, and how many threads it has where the system says so."""
    if sys.platform == "darwin":
        return sorted(os.listdir("/dev/fd")), None
    return sorted(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is other descriptors")
def test_a_link_is_two_descriptors_of_its_worker(start):
    worker = start("""
        import os
        inherited = len(os.listdir("/proc/self/fd")) - 1
        import frameport as fp
        with fp.connect() as link:
            for frame in link:
                frame.meta["files"] = len(os.listdir("/proc/self/fd")) - inherited
                link.send_back(frame)
    """, SPEC)
    for _ in range(3):
        worker.send(PIXELS)
        assert worker.recv().meta["files"] == 2, "the link, inherited, and its doorbell"


def test_descriptors_and_threads_do_not_pile_up(program):
    command = program(ECHO)

    def use():
        with fp.spawn(command, SPEC) as worker:
            for _ in range(50):
                worker.send(PIXELS)
                worker.recv()

    use()
    gc.collect()
    before = in_use()
    for _ in range(3):
        use()
    gc.collect()
    assert in_use() == before

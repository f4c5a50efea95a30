"""fp.map: several workers behind one queue."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import ENV

import frameport as fp

INVERT = """
    import frameport as fp

    @fp.worker
    def process(frame):
        frame.array[:] = 255 - frame.array
"""


def numbered(count):
    """Frames that say which they are in every pixel."""
    for number in range(count):
        yield np.full((6, 8), number, np.uint8)


def children():
    """Processes this one started and did not yet collect."""
    if sys.platform == "darwin":
        listed = subprocess.run(["/bin/ps", "-axo", "pid=,ppid=,comm="], capture_output=True, text=True, check=True)
        lines = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
        return {int(pid) for pid, parent, *name in lines if int(parent) == os.getpid() and not "".join(name).endswith("ps")}
    own = []
    # The library's spawner is a thread of its own.
    for task in os.listdir("/proc/self/task"):
        # Other threads may end meanwhile.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/self/task/{task}/children") as file:
            own += file.read().split()
    return {int(pid) for pid in own}


@pytest.mark.parametrize("redeliver", ["at-least-once", "at-most-once"])
def test_results_come_in_the_order_of_the_frames(program, redeliver):
    before = children()
    results = fp.map(program(INVERT), numbered(100), workers=2, env=ENV, redeliver=redeliver)
    for number, frame in enumerate(results):
        assert frame.seq == number
        assert frame.spec == fp.Spec("gray", 8, 6)
        assert (frame.array == 255 - number).all()
    assert number == 99
    assert children() <= before


def test_unordered_results_say_which_frame_they_are_of(program, tmp_path):
    # The first frame is finished when the other worker has its fourth: with two slots, its first result was received by then.
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    code = f"""
        import frameport as fp

        met = []

        @fp.worker
        def process(frame):
            met.append(frame.seq)
            if frame.seq == 0:
                open({str(gate)!r}, "rb").close()
            elif 0 not in met and len(met) == 4:
                open({str(gate)!r}, "wb").close()
    """
    seqs = [frame.seq for frame in fp.map(program(code), numbered(20), workers=2, env=ENV, ordered=False, slots=2)]
    assert sorted(seqs) == list(range(20))
    assert seqs != sorted(seqs)


def test_frames_passed_over_have_no_result(program):
    every_other = """
        import frameport as fp

        @fp.worker
        def process(frame):
            return fp.DROP if frame.seq % 2 else None
    """
    by_hand = """
        import frameport as fp

        kept = None
        with fp.connect() as link:
            for frame in link:
                kept = frame.array  # the view keeps the slot until the next frame is there
                if frame.seq % 2 == 0:
                    with link.reply(frame) as out:
                        out.fill(kept)
    """
    for code in (every_other, by_hand):
        results = fp.map(program(code), numbered(40), workers=2, window=2, env=ENV)
        assert [frame.seq for frame in results] == list(range(0, 40, 2))


def test_a_poisonous_frame_is_reported_in_its_place(program):
    poison = """
        import os
        import frameport as fp

        @fp.worker
        def process(frame):
            if frame.array[0, 0] == 3:
                os.abort()
            if frame.array[0, 0] == 7:
                raise ValueError("seven is odd")
    """

    def results(**options):
        return fp.map(program(poison), numbered(12), workers=2, tries=2, env=ENV, **options)

    got = list(results(on_lost="yield"))
    assert [one.seq for one in got] == list(range(12))
    crashed, failed = (one for one in got if isinstance(one, fp.Lost))
    assert (crashed.seq, failed.seq) == (3, 7)
    assert isinstance(crashed.why, fp.WorkerDied)
    assert crashed.why.signal == signal.SIGABRT
    assert failed.why.reason == "ValueError: seven is odd"
    seen = []
    with pytest.raises(fp.FrameLost, match="frame 3 is lost: .*SIGABRT") as raised:
        seen.extend(frame.seq for frame in results())
    assert raised.value.seq == 3
    assert isinstance(raised.value.__cause__, fp.WorkerDied)


def test_killed_workers_lose_nothing(program):
    """Whoever is killed, starting or serving: every child at random, some twenty a second."""
    before, over = children(), threading.Event()

    def kill():
        generator, kills = np.random.default_rng(7), 0
        while kills < 40 and not over.wait(0.05):
            if mine := sorted(children() - before):
                try:
                    os.kill(generator.choice(mine), signal.SIGKILL)
                    kills += 1
                except ProcessLookupError:
                    pass
        over.set()

    killing = threading.Thread(target=kill)
    killing.start()

    def frames():
        # As many as it takes for the workers to have died often.
        number = 0
        while not over.is_set() or number < 100:
            yield np.full((6, 8), number % 256, np.uint8)
            number += 1

    number = -1
    try:
        for number, frame in enumerate(fp.map(program(INVERT), frames(), env=ENV)):
            assert frame.seq == number
            assert (frame.array == 255 - number % 256).all()
    finally:
        over.set()
        killing.join()
    assert number >= 99
    assert children() <= before


def test_a_worker_that_cannot_start_raises_its_error(program):
    with pytest.raises(fp.WorkerDied, match="no model here"):
        list(fp.map(program("raise SystemExit('no model here')"), numbered(3), workers=2, env=ENV))
    with pytest.raises(fp.SpawnError):
        list(fp.map(["no-such-program"], numbered(3)))


def test_leaving_the_loop_or_a_frame_that_does_not_fit_ends_the_workers(program):
    before = children()
    for frame in fp.map(program(INVERT), numbered(100), workers=2, env=ENV):
        if frame.seq == 3:
            break
    del frame
    assert children() <= before
    odd = [np.zeros((6, 8), np.uint8), np.zeros((6, 9), np.uint8)]
    with pytest.raises(fp.FormatError):
        list(fp.map(program(INVERT), odd, workers=2, env=ENV))
    assert children() <= before


def test_the_first_frame_says_what_they_are(program):
    reply = """
        import frameport as fp

        @fp.worker
        def process(frame):
            pass
    """
    for first, spec in [
        (np.zeros((4, 6), np.uint8), fp.Spec("gray", 6, 4)),
        (np.zeros((4, 6, 3), np.uint8), fp.Spec("bgr24", 6, 4)),
        (np.zeros((4, 6, 4), np.uint8), fp.Spec("bgra", 6, 4)),
        (np.zeros((4, 6, 2), np.float32), fp.Spec.tensor("float32", (4, 6, 2))),
    ]:
        [result] = [frame.spec for frame in fp.map(program(reply), [first], workers=1, env=ENV)]
        assert result == spec
    assert list(fp.map(["never-started"], [])) == []
    with pytest.raises(fp.ConfigError, match="spec="):
        list(fp.map(program(reply), [b"bytes"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_lost": "ignore"}, "on_lost"),
        ({"redeliver": "sometimes"}, "redeliver"),
        ({"workers": 0}, "0 workers"),
        ({"window": 0}, "window"),
    ],
)
def test_arguments_that_make_no_sense_are_errors(options, message):
    with pytest.raises(fp.ConfigError, match=message):
        list(fp.map(["never-started"], numbered(1), **options))
    with pytest.raises(TypeError, match="no option wrokers"):
        fp.map(["never-started"], numbered(1), wrokers=2)

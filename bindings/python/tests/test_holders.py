"""Who holds what: both sides tell slot, holder, frame, age and live views, and where those were made if asked to."""

import os

import numpy as np
import pytest
from conftest import ECHO

import frameport as fp

SPEC = fp.Spec("bgr24", 16, 12)
PIXELS = np.zeros((12, 16, 3), np.uint8)

# Keeps an array of the first frame, a memoryview of the second and the third itself, and takes the whole return pool.
HOARDER = """
    import sys
    import numpy as np
    import frameport as fp

    def process(frame):
        return frame.array

    def told(holder):
        return [holder.channel, holder.slot, holder.state, holder.worker, holder.pid, holder.seq, holder.bytes, holder.views]

    with fp.connect() as link:
        kept = [process(link.recv()), memoryview(link.recv()), link.recv()]
        loans = [link.loan() for _ in range(3)]
        try:
            link.loan(timeout=0)
        except fp.PoolExhausted as full:
            text = str(full)
            both = [[told(holder) for holder in holders] for holders in (full.holders, full.received)]
        same = [told(holder) for holder in link.holders()] == both[0] + both[1]
        same &= [told(holder) for holder in link.channel("in").holders()] == both[1]
        made_at = [holder.made_at for holder in link.channel("in").holders()]
        kept[0] = kept[0][2:][0]
        before = len(link.channel("in").holders()[0].made_at)
        kept[:2] = []
        with loans.pop() as out:
            left = [told(holder) for holder in link.channel("in").holders()]
            out.meta = {"text": text, "both": both, "same": same, "made_at": made_at, "before": before, "left": left}
        del kept, loans
        for frame in link: pass
"""


@pytest.mark.parametrize("trace", ["1", "0"])
def test_a_worker_tells_which_of_its_arrays_keep_what(start, trace):
    worker = start(HOARDER, SPEC, slots=3, env={"FRAMEPORT_TRACE_VIEWS": trace})
    for _ in range(3):
        worker.send(PIXELS)
    report = worker.recv().meta
    held, received = report["both"]
    size = SPEC.size
    assert sorted(held) == [["out", slot, "loan", None, None, None, size, 0] for slot in range(3)]
    assert [held[5:] for held in received] == [[0, size, 1], [1, size, 1], [2, size, 0]]
    assert {tuple(held[i] for i in (0, 2, 3, 4)) for held in received} == {("in", "received", None, None)}
    assert report["same"], "link.holders() is both, the channel's its part"
    assert [held[5:] for held in report["left"]] == [[2, size, 0]]

    text = report["text"]
    assert f"slot {received[0][1]} received from the host and held here for 0." in text
    assert f"frame 0, by a live array of {size} bytes" in text
    assert "release the 3 frames received here" in text
    if trace == "1":
        [process], [view], [] = report["made_at"]
        assert process.endswith("in <module>") and ".py:7 in process, from " in process and ".py:13 in " in process
        assert ".py:13 in <module>" in view and "process" not in view
        assert f"by a live array of {size} bytes made at {process}" in text
        assert report["before"] == 1, "a slice of the array is no view of its own"
    else:
        assert report["made_at"] == [[], [], []] and "made at" not in text


def test_a_host_tells_who_has_each_slot(start):
    worker = start(ECHO, SPEC, slots=4)
    loan = worker.loan()
    view = loan.array
    [holder] = worker.holders()
    assert (holder.state, holder.seq, holder.age, holder.views) == ("loan", None, None, 1)
    worker.send(loan)
    frame = worker.recv()
    arrays = [np.asarray(frame), memoryview(frame), np.from_dlpack(frame)]
    [holder] = worker.holders()
    assert (holder.channel, holder.state, holder.views) == ("out", "returned", 3)
    assert (holder.worker, holder.pid, holder.seq) == (worker.name, worker.pid, 0) and holder.age >= 0
    assert worker.channel("out").holders()[0].slot == holder.slot
    frame.release()
    del arrays[0]
    assert worker.holders()[0].views == 2
    del arrays[:]
    [holder] = worker.holders()
    assert (holder.channel, holder.state, holder.views) == ("in", "views", 1)
    assert str(holder).endswith(f" s, frame 0, by a live array of {SPEC.size} bytes")
    del view
    assert worker.holders() == worker.channel("out").holders() == []


def test_the_error_of_a_host_names_the_frames_it_has_not_released(start):
    worker = start(ECHO, SPEC, slots=2)
    for _ in range(2):
        worker.send(PIXELS)
    kept = [worker.recv() for _ in range(2)]
    array = kept[1].array
    with pytest.raises(fp.PoolExhausted, match="release the 2 frames received here") as raised:
        worker.loan(timeout=0)
    assert sorted((holder.state, holder.seq, holder.views) for holder in raised.value.holders) == [
        ("returned", 0, 0),
        ("returned", 1, 1),
    ]
    assert raised.value.received == [] and str(raised.value).count("slot ") == 3, "each is told once"
    del array
    kept[0].release()
    worker.loan().discard()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_leaves_its_parents_records_alone(start):
    worker = start("""
        import os
        import frameport as fp
        with fp.connect() as link:
            for frame in link:
                array = frame.array
                child = os.fork()
                if child == 0:
                    del array, frame
                    os._exit(7)
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                [holder] = link.holders()
                told = [status, holder.views, len(holder.made_at)]
                del array
                told += [link.holders()[0].views, len(link.holders()[0].made_at)]
                with link.reply(frame) as out:
                    out.meta = {"told": told}
    """, SPEC, env={"FRAMEPORT_TRACE_VIEWS": "1"})
    worker.send(PIXELS)
    assert worker.recv().meta == {"told": [7, 1, 1, 0, 0]}


def test_an_audience_tells_what_it_and_its_members_have(start):
    audience = fp.Audience(SPEC, 3)
    worker = start("""
        import frameport as fp
        with fp.connect() as link:
            kept = link.recv()
            link.send(b"x")
            for frame in link: pass
    """, audience, fp.Spec.bytes(1), slots=2, quota=1)
    with audience.loan() as frame:
        view = frame.array
    worker.recv().release()
    told = [(held.state, held.slot, held.worker, held.seq, held.views) for held in audience.holders()]
    assert told == [("views", 0, None, None, 1), ("peer", 0, worker.name, 0, 0)]
    loans = [audience.loan(), audience.loan()]
    with pytest.raises(fp.PoolExhausted, match="kept here, by a live array of 576 bytes; .* drop the loans and views") as full:
        audience.loan()
    assert [held.state for held in full.value.holders] == ["views", "loan", "loan", "peer"]
    del view, loans
    assert [held.state for held in audience.holders()] == ["peer"]

"""A view never changes under its user, and the slot comes back exactly when the last one is gone."""

import gc
import itertools

import numpy as np
import pytest
from conftest import ECHO, REPLY, picture

import frameport as fp

SPEC = fp.Spec("bgr24", 16, 12)
SHAPE = (12, 16, 3)
TURNS = 10


def send(worker, seq):
    worker.send(np.frombuffer(picture(seq, SPEC.size), np.uint8).reshape(SHAPE))


def pyav(frame):
    import av

    return av.VideoFrame.from_numpy_buffer(np.asarray(frame), format="bgr24")


VIEWS = {
    "asarray": np.asarray,
    "array": lambda frame: frame.array,
    "slice": lambda frame: np.asarray(frame)[3:5, ::2],
    "memoryview": memoryview,
    "cast": lambda frame: memoryview(frame).cast("B"),
    "dlpack": np.from_dlpack,
    "plane": lambda frame: np.asarray(frame.planes[0]),
    "frombuffer": lambda frame: np.frombuffer(frame, np.uint8),
    "pyav": pyav,
}

LETTING_GO = {
    "kept": lambda frame: None,
    "release": lambda frame: frame.release(),
    "with": lambda frame: frame.__exit__(None, None, None),
}


def content(view):
    return view.to_ndarray().tobytes() if hasattr(view, "to_ndarray") else np.asarray(view).tobytes()


def truth(kind, seq):
    whole = np.frombuffer(picture(seq, SPEC.size), np.uint8).reshape(SHAPE)
    return (whole[3:5, ::2] if kind == "slice" else whole).tobytes()


@pytest.mark.parametrize("code", [ECHO, REPLY], ids=["in place", "return pool"])
@pytest.mark.parametrize("how", LETTING_GO)
def test_a_view_stays_what_it_was_while_its_pool_turns(start, code, how):
    worker = start(code, SPEC, slots=3)
    seq = 0
    for kind, view_of in VIEWS.items():
        send(worker, seq)
        frame, kept = worker.recv(), seq
        view = view_of(frame)
        LETTING_GO[how](frame)
        del frame
        assert content(view) == truth(kind, kept)
        for _ in range(TURNS * 3):
            seq += 1
            send(worker, seq)
            with worker.recv() as other:
                assert other.tobytes() == picture(seq, SPEC.size)
            assert content(view) == truth(kind, kept), kind
        assert worker.stats().held == 1, kind
        del view
        assert worker.stats().held == 0, kind
        seq += 1


@pytest.mark.parametrize("release", [False, True])
def test_the_slot_comes_back_with_the_last_view_in_any_order(start, release):
    worker = start(ECHO, SPEC, slots=2)
    kinds = ["asarray", "slice", "cast", "dlpack"]
    for order in itertools.permutations(range(len(kinds) + 1)):
        send(worker, 0)
        frame = worker.recv()
        alive = [VIEWS[kind](frame) for kind in kinds] + [frame]
        del frame
        if release:
            alive[-1].release()
            alive[-1].release()
        for count, index in enumerate(order, 1):
            alive[index] = None
            only_the_released_frame = release and all(view is None for view in alive[:-1])
            expected = 0 if count == len(order) or only_the_released_frame else 1
            assert worker.stats().held == expected, (order, count)


def test_a_reference_cycle_gives_the_slot_back_when_it_is_collected(start):
    worker = start(ECHO, SPEC)
    send(worker, 0)
    cycle = [np.asarray(worker.recv())]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert worker.stats().held == 0


def test_a_view_is_no_copy(start):
    worker = start(ECHO, SPEC)
    send(worker, 5)
    frame = worker.recv()
    addresses = {np.asarray(frame).ctypes.data, np.from_dlpack(frame).ctypes.data, frame.array.ctypes.data}
    assert len(addresses) == 1
    assert pyav(frame).planes[0].buffer_ptr in addresses
    np.asarray(frame)[0, 0, 0] = 77
    assert memoryview(frame)[0, 0, 0] == 77
    assert np.asarray(frame).flags.writeable and not memoryview(frame).readonly


def test_a_released_frame_makes_no_new_view_but_keeps_its_facts(start):
    worker = start("""
        import frameport as fp
        with fp.connect() as link:
            for frame in link:
                with link.reply(frame) as out:
                    out.meta["told"] = frame.meta["asked"] + 1
    """, SPEC)
    with worker.loan() as loan:
        loan.meta = {"asked": 41}
        loan.pts = 7
        loan.duration = 2
        loan.timestamp_ns = 1234
    frame = worker.recv()
    plane = frame.planes[0]
    frame.release()
    for make in (np.asarray, np.array, memoryview, np.from_dlpack, lambda f: f.array, lambda f: f.copy(), bytes,
                 lambda f: f.tobytes(), lambda f: f.to_ndarray(), lambda f: np.asarray(plane), lambda f: f.planes[0].array):
        with pytest.raises(fp.FrameReleased, match="was released"):
            make(frame)
    assert frame.released
    assert (frame.seq, frame.pts, frame.duration, frame.timestamp_ns, frame.spec) == (0, 7, 2, 1234, SPEC)
    assert frame.meta == {"told": 42}
    assert "was released" in repr(frame)


def test_a_loop_lets_go_of_a_frame_at_its_next_turn_but_not_of_its_views(start):
    worker = start(ECHO, SPEC, slots=4)
    for seq in range(3):
        send(worker, seq)
    worker.finish()
    frames, views = [], []
    for frame in worker:
        assert not frame.released
        assert all(before.released for before in frames)
        frames.append(frame)
        views.append(np.asarray(frame))
    assert [content(view) for view in views] == [picture(seq, SPEC.size) for seq in range(3)]
    assert worker.stats().held == 3
    frames.clear()
    views.clear()
    del frame
    assert worker.stats().held == 0


def test_a_workers_view_stays_what_it_was(start):
    worker = start("""
        import numpy as np
        import frameport as fp
        from conftest import picture
        kept = {}
        with fp.connect() as link:
            for frame in link:
                if frame.seq in (0, 5):
                    kept[frame.seq] = np.asarray(frame)
                for seq, view in kept.items():
                    assert view.tobytes() == picture(seq, 576), seq
                link.send_back(frame)
            assert link.copied == 2, link.copied
    """, SPEC, slots=4)
    for seq in range(40):
        send(worker, seq)
        with worker.recv() as frame:
            assert frame.tobytes() == picture(seq, SPEC.size)
    worker.finish()
    with pytest.raises(fp.LinkClosed):
        worker.recv()


def test_a_senders_own_view_keeps_its_slot_and_is_named(start):
    worker = start(ECHO, SPEC, slots=2)
    with worker.loan() as loan:
        view = np.asarray(loan)
        view[:] = 9
    with pytest.raises(fp.FrameReleased, match="was sent"):
        np.asarray(loan)
    worker.recv().release()
    for seq in range(TURNS * 2):
        send(worker, seq)
        worker.recv().release()
    assert (view == 9).all()
    [holder] = worker.holders()
    assert (holder.state, holder.views, holder.seq) == ("views", 1, 0)
    assert "kept here for" in str(holder) and "frame 0, by a live array of 576 bytes" in str(holder)
    other = worker.loan()
    with pytest.raises(fp.PoolExhausted, match="live array") as raised:
        worker.loan(timeout=0)
    assert {holder.slot for holder in raised.value.holders} == {0, 1}
    other.discard()
    del view
    assert worker.holders() == []


def test_a_view_outlives_its_worker(start):
    worker = start(ECHO, SPEC)
    send(worker, 3)
    view = np.asarray(worker.recv())
    worker.kill()
    worker.stop()
    del worker
    gc.collect()
    assert content(view) == picture(3, SPEC.size)


def test_a_frame_is_not_pickled(start):
    import copy
    import pickle

    worker = start(ECHO, SPEC)
    send(worker, 0)
    frame = worker.recv()
    for make in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="send it through a link, or .copy.. it"):
            make(frame)
    owned = frame.copy()
    np.asarray(frame)[:] = 0
    assert owned.tobytes() == picture(0, SPEC.size)


def test_dlpack_says_what_it_is_asked_for(start):
    worker = start(ECHO, SPEC)
    send(worker, 0)
    frame = worker.recv()
    assert frame.__dlpack_device__() == (1, 0)
    assert '"dltensor"' in repr(frame.__dlpack__())
    assert '"dltensor"' in repr(frame.__dlpack__(max_version=(0, 8)))
    assert '"dltensor_versioned"' in repr(frame.__dlpack__(max_version=(1, 0), dl_device=(1, 0)))
    for refused in ({"dl_device": (2, 0)}, {"stream": 1}):
        with pytest.raises(BufferError):
            frame.__dlpack__(**refused)
    copied = np.from_dlpack(frame, copy=True)
    np.asarray(frame)[:] = 0
    assert copied.tobytes() == picture(0, SPEC.size)
    frame.release()
    assert worker.stats().held == 0, "unused capsules let go"
    with pytest.raises(fp.FrameReleased):
        frame.__dlpack__()

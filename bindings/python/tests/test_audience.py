"""One pool of frames for many workers, as a user of the package has it."""

import numpy as np
import pytest

import frameport as fp

SPEC = fp.Spec("gray", 8, 6)

READER = """
    import numpy as np
    import frameport as fp
    with fp.connect() as link:
        for frame in link:
            view = frame.array
            for shared in (view, np.asarray(frame), np.from_dlpack(frame)):
                assert (shared == frame.seq % 251).all() and not shared.flags.writeable
            assert memoryview(frame).readonly
            try:
                view[0, 0] = 1
                raise SystemExit("written")
            except ValueError:
                pass
            copy = frame.copy()
            copy[0, 0] = 1
            link.send(np.array([frame.seq, view.sum()], np.uint32))
"""


def test_many_workers_read_what_was_written_once(start):
    audience = fp.Audience(SPEC, slots=13, shared_memory=True)
    total = fp.Spec.tensor("uint32", (2,))
    workers = [start(READER, audience, total, slots=64) for _ in range(3)]
    late = None
    for n in range(60):
        if n == 30:
            late = start(READER, {"in": (audience, "latest")}, total, slots=64, shared_memory=True)
        with audience.loan() as frame:
            frame.array[:] = n
    for worker in workers:
        assert [worker.recv(timeout=30).array.tolist() for _ in range(60)] == [[n, n * 48] for n in range(60)]
    newest = 0
    while newest < 59:
        newest = int(late.recv(timeout=30).array[0])
        assert newest >= 30
    stats = audience.stats()
    assert (stats.sent, stats.members, stats.copied, stats.no_slot) == (60, 4, 0, 0)
    with pytest.raises(fp.ConfigError, match="audience"):
        workers[0].loan()
    with pytest.raises(fp.FormatError, match="another link"):
        fp.Audience(SPEC, 3).send(audience.loan())
    with pytest.raises(fp.ConfigError, match="13 slots, of which others have 12"):
        start(READER, audience, total)


def test_a_lossless_member_that_takes_nothing_is_cut_off(start):
    audience = fp.Audience(SPEC, slots=4)
    worker = start("""
        import frameport as fp
        with fp.connect() as link:
            held = []
            while True:
                held.append(link.recv())
    """, audience, deadline=0.05)
    for n in range(5):
        audience.send(np.full((6, 8), n, np.uint8))
    with pytest.raises(fp.CutOff, match="no room for frame"):
        worker.recv(timeout=30)


def test_members_go_over_to_another_spec(start):
    reader = """
        import frameport as fp
        with fp.connect(output=fp.Spec.tensor("int64", (3,))) as link:
            for frame in link:
                with link.reply(frame) as out:
                    out.array[:] = (*frame.array.shape, int(frame.array.sum()))
    """
    audience = fp.Audience(SPEC, slots=9)
    workers = [start(reader, audience) for _ in range(2)]
    for n in range(30):
        spec = fp.Spec("gray", 8 + n // 10, 6)
        audience.change_spec(spec)
        with audience.loan() as frame:
            assert audience.spec == frame.spec == spec
            frame.array[:] = n
        for worker in workers:
            assert worker.recv(timeout=30).array.tolist() == [6, 8 + n // 10, n * 6 * (8 + n // 10)]

"""Another spec while a link runs, as a user of the package has it."""

import numpy as np
import pytest

import frameport as fp
from conftest import ECHO, REPLY

SIZES = [(8, 6), (64, 48), (1, 1), (33, 17)]


def spec(turn: int) -> fp.Spec:
    return fp.Spec("gray", *SIZES[turn % len(SIZES)])


def picture(turn: int) -> np.ndarray:
    width, height = SIZES[turn % len(SIZES)]
    return (np.arange(width * height, dtype=np.uint32).reshape(height, width) * 7 + turn).astype(np.uint8)


@pytest.mark.parametrize("code", [ECHO, REPLY], ids=["in place", "reply"])
def test_each_frame_is_what_it_was_sent_as(start, code):
    worker = start(code, spec(0))
    kept = []
    for turn in range(12):
        worker.change_spec(spec(turn))
        assert worker.input_spec == worker.output_spec == spec(turn)
        assert worker.send(picture(turn)) == turn
        if turn:
            frame = worker.recv(timeout=30)
            assert frame.spec == spec(turn - 1) and (frame.array == picture(turn - 1)).all()
            if turn == 12 - 1:
                kept.append(frame.array)
            frame.release()
    with worker.loan() as loan:
        assert loan.spec == spec(11) and loan.array.shape == picture(11).shape
        loan.array[:] = 0
    worker.stop()
    assert (kept[0] == picture(10)).all()


def test_a_view_of_an_older_spec_stays_and_is_named_where_it_is_in_the_way(start):
    worker = start(ECHO, spec(0))
    worker.send(picture(0))
    kept = worker.recv(timeout=30).array
    for turn in range(1, 3):
        if turn == 2:
            with pytest.raises(fp.PoolExhausted, match="sent back in place"):
                worker.change_spec(spec(turn), timeout=0.05)
            assert (kept == picture(0)).all()
            del kept
        worker.change_spec(spec(turn))
        worker.send(picture(turn))
        assert (worker.recv(timeout=30).array == picture(turn)).all()


def test_a_worker_changes_what_it_sends(start):
    worker = start(
        """
        import numpy as np
        import frameport as fp
        with fp.connect() as link:
            for frame in link:
                size = fp.Spec("gray", frame.spec.width * 2, frame.spec.height * 2)
                if link.output_spec != size:
                    link.change_spec(size)
                with link.reply(frame) as out:
                    out.array[:] = np.kron(frame.array, np.ones((2, 2), np.uint8))
                try:
                    link.change_spec(fp.Spec("gray", 30000, 30000))
                except fp.ConfigError as error:
                    assert "over the output limit" in str(error), error
        """,
        spec(0),
        spec(0),
        output_limit=1 << 20,
    )
    for turn in range(8):
        worker.channel("in").change_spec(spec(turn // 2))
        worker.send(picture(turn // 2))
        out = worker.recv(timeout=30).array
        assert (out == np.kron(picture(turn // 2), np.ones((2, 2), np.uint8))).all()


def test_a_decorated_worker_goes_on_with_every_size(start):
    worker = start(
        """
        import frameport as fp
        @fp.worker
        def process(frame):
            return 255 - frame.array
        """,
        spec(0),
    )
    for turn in range(6):
        worker.change_spec(spec(turn))
        worker.send(picture(turn))
        assert (worker.recv(timeout=30).array == 255 - picture(turn)).all()

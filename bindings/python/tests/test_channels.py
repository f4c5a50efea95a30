"""Live deliveries and links of several channels, as a user of the package has them."""

import json

import numpy as np
import pytest

import frameport as fp

SPEC = fp.Spec("gray", 8, 6)


def picture(seq: int) -> np.ndarray:
    return np.full((6, 8), seq % 251, np.uint8)


GATED = """
    import frameport as fp
    with fp.connect() as link:
        for message in link.channel("gate"):
            frame = link.recv()
            assert (frame.array == frame.seq % 251).all()
            with link.channel("told").reply(frame) as told:
                told.meta["skipped"] = link.channel("in").stats().skipped
"""


@pytest.mark.parametrize("delivery, behind", [("latest", 1), (fp.newest(2), 2)])
def test_a_worker_that_pauses_gets_the_newest_frames(start, delivery, behind):
    worker = start(GATED, {"in": (SPEC, delivery), "gate": fp.Spec.bytes(1)}, {"told": fp.Spec.bytes(1)}, slots=6)
    assert worker.channels == ["in", "gate", "told"] and worker.channel("in").delivery == delivery
    sent = 0
    for burst in (3, 1, 40, 7):
        for _ in range(burst):
            assert worker.send(picture(sent)) == sent
            sent += 1
        for _ in range(min(behind, burst)):
            worker.channel("gate").send(b".")
        told = [worker.recv(timeout=30) for _ in range(min(behind, burst))]
        assert [frame.seq for frame in told] == list(range(sent - len(told), sent))
    stats = worker.channel("in").stats()
    assert stats.offered == stats.sent == sent == stats.received + stats.retracted + stats.in_flight
    assert stats.no_slot == 0 and told[-1].meta["skipped"] == stats.retracted


def test_a_link_of_many_channels_of_every_kind(start):
    worker = start("""
        import json
        import numpy as np
        import frameport as fp
        with fp.connect() as link:
            assert link.channels == ["left", "right", "mask", "boxes", "sound"], link.channels
            boxes = link.channel("boxes")
            for left in link:
                right = link.channel("right").recv()
                with link.channel("mask").reply(left) as mask:
                    mask.array[:] = np.maximum(left.array, right.array[..., 0])
                boxes.send(json.dumps({"n": left.seq}).encode())
                with link.channel("sound").loan() as sound:
                    sound.array[:] = left.seq / 2
    """, {"left": SPEC, "right": fp.Spec("rgb24", 8, 6)}, {
        "mask": SPEC, "boxes": (fp.Spec.bytes(1000), "latest"), "sound": fp.Spec.tensor("float32", (2, 480)),
    })
    for n in range(20):
        worker.send(picture(n))
        worker.channel("right").send(np.full((6, 8, 3), 5, np.uint8))
        assert (worker.recv(timeout=30).array == max(n, 5)).all()
        assert (worker.channel("sound").recv(timeout=30).array == n / 2).all()
        assert json.loads(bytes(worker.channel("boxes").recv(timeout=30))) == {"n": n}
    for wrong in (lambda: worker.channel("nose"), lambda: worker.channel("mask").loan(), lambda: worker.channel("left").recv()):
        with pytest.raises(fp.ConfigError):
            wrong()
    with pytest.raises(fp.FormatError, match="another link"):
        other = start(GATED, {"in": SPEC, "gate": fp.Spec.bytes(1)}, {"told": fp.Spec.bytes(1)})
        other.send(worker.loan())


def test_a_live_frame_goes_back_in_place_or_as_a_copy_on_a_live_channel(start):
    for back, copied in (("lossless", 0), ("latest", 10)):
        worker = start(f"""
            import frameport as fp
            with fp.connect() as link:
                for frame in link:
                    frame.array[:] += 1
                    link.send_back(frame)
                assert link.copied == {copied}, link.copied
        """, SPEC, {"out": (SPEC, back)}, delivery="latest")
        for n in range(10):
            worker.send(picture(n))
            out = worker.recv(timeout=30)
            assert out.seq == n and (out.array == n + 1).all()
        worker.finish()
        assert worker.wait(timeout=30) == 0
        assert worker.stats().received == worker.channel("out").stats().received == 10


@pytest.mark.parametrize("delivery", ["lossy", 3, fp.newest(0), fp.newest(4)])
def test_a_delivery_that_is_none_is_an_error_before_anything_starts(delivery):
    with pytest.raises(fp.ConfigError, match="delivery|newest"):
        fp.spawn(["/nowhere"], SPEC, delivery=delivery)

"""Shapes and strides of every format, and every byte of it through a worker and back."""

import numpy as np
import pytest
from conftest import REPLY, picture

import frameport as fp

# Planes as (rows, columns[, values]) of a picture of W x H, with w and h its halves rounded up.
FORMATS = {
    "gray": ("uint8", lambda W, H, w, h: [(H, W)]),
    "gray16le": ("uint16", lambda W, H, w, h: [(H, W)]),
    "rgb24": ("uint8", lambda W, H, w, h: [(H, W, 3)]),
    "bgr24": ("uint8", lambda W, H, w, h: [(H, W, 3)]),
    "rgba": ("uint8", lambda W, H, w, h: [(H, W, 4)]),
    "bgra": ("uint8", lambda W, H, w, h: [(H, W, 4)]),
    "rgb48le": ("uint16", lambda W, H, w, h: [(H, W, 3)]),
    "rgbaf16le": ("float16", lambda W, H, w, h: [(H, W, 4)]),
    "yuyv422": ("uint8", lambda W, H, w, h: [(H, 2 * w, 2)]),
    "uyvy422": ("uint8", lambda W, H, w, h: [(H, 2 * w, 2)]),
    "nv12": ("uint8", lambda W, H, w, h: [(H, W), (h, w, 2)]),
    "p010le": ("uint16", lambda W, H, w, h: [(H, W), (h, w, 2)]),
    "yuv420p": ("uint8", lambda W, H, w, h: [(H, W), (h, w), (h, w)]),
    "yuv422p": ("uint8", lambda W, H, w, h: [(H, W), (H, w), (H, w)]),
    "yuv444p": ("uint8", lambda W, H, w, h: [(H, W), (H, W), (H, W)]),
}
HALF_MORE = {"nv12", "p010le", "yuv420p"}


def whole_shape(name, planes, odd):
    """The shape of the one array a frame is, if it is one."""
    height, width = planes[0][:2]
    if name == "yuv444p":
        return (3, height, width)
    if name in HALF_MORE and not odd:
        return (height * 3 // 2, width)
    if len(planes) == 1 and not (odd and name in ("yuyv422", "uyvy422")):
        return planes[0]
    return None


@pytest.mark.parametrize(("width", "height"), [(8, 6), (7, 5)], ids=["even", "odd"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_format_has_ffmpegs_planes_and_keeps_every_byte(start, name, width, height):
    dtype, shapes = FORMATS[name]
    shapes = shapes(width, height, (width + 1) // 2, (height + 1) // 2)
    spec = fp.Spec(name, width, height)
    whole = whole_shape(name, shapes, odd=width % 2 == 1)
    assert (spec.dtype, spec.shape) == (dtype, whole)
    worker = start("""
        import numpy as np
        import frameport as fp
        with fp.connect() as link:
            for frame in link:
                with link.reply(frame) as out:
                    out.fill([np.asarray(plane) for plane in frame.planes])
    """, spec)
    sent = picture(3, spec.size)
    with worker.loan() as loan:
        assert [np.asarray(plane).shape for plane in loan.planes] == shapes
        at = 0
        for plane in loan.planes:
            view = np.asarray(plane)
            assert (view.dtype, plane.stride) == (dtype, view.strides[0])
            view[:] = np.frombuffer(sent, dtype, view.size, at).reshape(view.shape)
            at += view.nbytes
        assert at == spec.size
    frame = worker.recv()
    assert frame.tobytes() == sent
    # Where the system puts gaps between planes, those of two are no array. The spec is the one that was asked for.
    assert frame.spec == spec and (frame.spec.shape == whole or len(shapes) > 1)
    if whole is not None:
        assert frame.copy().shape == whole
        with worker.loan() as loan:
            loan.fill(frame.copy())
        assert worker.recv().tobytes() == sent
    if frame.spec.shape is not None:
        assert np.asarray(frame).shape == whole
        assert np.asarray(frame).tobytes() == sent
        assert memoryview(frame).nbytes == spec.size
        assert frame.copy().tobytes() == sent
    else:
        for refused, error in ((memoryview, BufferError), (np.from_dlpack, BufferError), (np.asarray, TypeError)):
            with pytest.raises(error, match=r"frame\.planes.*to_ndarray"):
                refused(frame)


@pytest.mark.parametrize("name", ["yuv420p", "nv12", "yuv422p", "yuv444p", "bgr24", "gray16le"])
def test_the_copy_as_one_array_is_pyavs(start, name):
    import av

    spec = fp.Spec(name, 16, 8)
    worker = start("""
        import frameport as fp
        with fp.connect() as link:
            for frame in link:
                link.send_back(frame)
    """, spec)
    with worker.loan() as loan:
        for index, plane in enumerate(loan.planes):
            np.asarray(plane).view(np.uint8)[:] = index + 1
    frame = worker.recv()
    ours = frame.to_ndarray()
    assert ours.flags.owndata or ours.base is not None
    theirs = av.VideoFrame(16, 8, name)
    for plane, source in zip(theirs.planes, frame.planes, strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        wanted = np.asarray(source).view(np.uint8)
        rows[: wanted.shape[0], : wanted[0].size] = wanted.reshape(wanted.shape[0], -1)
    assert ours.tobytes() == b"".join(
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : np.asarray(source)[0].nbytes].tobytes()
        for plane, source in zip(theirs.planes, frame.planes, strict=True)
    )
    if name in ("yuv420p", "nv12", "bgr24", "gray16le"):
        assert ours.shape == theirs.to_ndarray().shape


def test_an_odd_planar_frame_is_no_one_array_even_as_a_copy(start):
    spec = fp.Spec("yuv420p", 7, 5)
    worker = start("""
        import frameport as fp
        with fp.connect() as link:
            for frame in link:
                link.send_back(frame)
    """, spec)
    with worker.loan():
        pass
    with pytest.raises(fp.FormatError, match=r"frame\.planes"):
        worker.recv().to_ndarray()


def test_rows_with_gaps_are_strided_views(start):
    spec = fp.Spec("bgr24", 5, 4, planes=[(32, 64)])
    worker = start(REPLY, spec)
    pixels = np.frombuffer(picture(1, 60), np.uint8).reshape(4, 5, 3)
    worker.send(pixels)
    frame = worker.recv()
    view = np.asarray(frame)
    assert (view.strides, view.flags.c_contiguous) == ((64, 3, 1), False)
    assert np.array_equal(view, pixels) and np.array_equal(np.from_dlpack(frame), pixels)
    assert frame.tobytes() == pixels.tobytes() == memoryview(frame).tobytes()
    assert frame.planes[0].stride == 64
    with pytest.raises(BufferError):
        np.frombuffer(frame, np.uint8)


def test_planes_with_gaps_take_the_array_they_would_be_without(start):
    spec = fp.Spec("nv12", 6, 4, planes=[(0, 16), (128, 8)])
    worker = start("""
        import frameport as fp
        with fp.connect() as link:
            for frame in link:
                with link.reply(frame) as out:
                    out.fill(frame.to_ndarray())
    """, spec)
    pixels = np.frombuffer(picture(1, 36), np.uint8).reshape(6, 6)
    worker.send(pixels[:, ::-1])
    frame = worker.recv()
    assert (frame.spec.shape, [plane.stride for plane in frame.planes]) == (None, [16, 8])
    assert np.array_equal(frame.to_ndarray(), pixels[:, ::-1])
    for other in (pixels[:5], pixels.astype(np.uint16), pixels.reshape(-1)):
        with pytest.raises(fp.FormatError, match=r"frame\.planes"):
            worker.send(other)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16",
                                   "float32", "float64", "bool"])
def test_a_tensor_keeps_type_shape_and_values(start, dtype):
    spec = fp.Spec.tensor(dtype, (2, 3, 4))
    assert spec == fp.Spec.tensor(np.dtype(dtype), [2, 3, 4]) == fp.Spec.tensor(getattr(np, dtype.replace("bool", "bool_")), (2, 3, 4))
    worker = start(REPLY, spec)
    sent = (np.arange(24).reshape(2, 3, 4) % 2).astype(dtype)
    worker.send(sent)
    frame = worker.recv()
    for received in (np.asarray(frame), np.from_dlpack(frame)):
        assert (received.dtype, received.shape) == (np.dtype(dtype), (2, 3, 4))
        assert np.array_equal(received, sent)


def test_a_single_value_is_a_tensor(start):
    worker = start(REPLY, fp.Spec.tensor("float64", ()))
    worker.send(np.float64(2.5))
    assert float(np.asarray(worker.recv())) == 2.5


def test_bytes_have_a_length_of_their_own(start):
    worker = start("""
        import frameport as fp
        @fp.worker
        def process(frame):
            return frame.tobytes()[::-1]
    """, fp.Spec.bytes(100))
    for data in (b"", b"abc", bytes(range(100))):
        assert worker.send(data) is not None
        with worker.recv() as frame:
            assert frame.tobytes() == data[::-1] == bytes(memoryview(frame))
            assert np.asarray(frame).shape == (len(data),)
    with worker.loan() as loan:
        assert loan.nbytes == 100
        loan.nbytes = 3
        memoryview(loan)[:] = b"xyz"
    assert worker.recv().tobytes() == b"zyx"
    with pytest.raises(fp.FormatError, match="101 bytes"):
        worker.send(bytes(101))


def test_what_does_not_fit_is_refused_with_both_sides_named(start):
    worker = start(REPLY, fp.Spec("bgr24", 8, 6))
    for wrong, says in [
        (np.zeros((6, 8), np.uint8), r"uint8 \[6, 8\].*bgr24 8x6 is uint8 \[6, 8, 3\]"),
        (np.zeros((6, 8, 3)), r"float64 \[6, 8, 3\].*uint8"),
        (np.zeros((6, 8, 3), ">u2"), r"format"),
        (b"abc", r"uint8 \[3\]"),
    ]:
        with pytest.raises(fp.FormatError, match=says):
            worker.send(wrong)
    with pytest.raises(fp.FormatError, match="2 arrays for the 1 planes"):
        worker.loan().fill([np.zeros(1), np.zeros(1)])
    with pytest.raises(TypeError, match="an array or bytes"):
        worker.send("abc")
    assert worker.holders() == [], "a refused array gives its slot back"


def test_strided_sources_are_copied_right(start):
    worker = start(REPLY, fp.Spec("bgr24", 8, 6))
    big = np.frombuffer(picture(2, 12 * 16 * 3), np.uint8).reshape(12, 16, 3)
    for source in (big[::2, ::2], big[:6, :8], big[:6, :8, ::-1], big[5::-1, :8], np.asfortranarray(big[:6, :8])):
        worker.send(source)
        assert np.array_equal(np.asarray(worker.recv()), source)


def test_a_spec_says_what_it_is_and_what_is_wrong_with_it():
    import pickle
    from fractions import Fraction

    spec = fp.Spec("nv12", 640, 360, fps=Fraction(30000, 1001), time_base=(1, 90000), primaries=1, transfer=1, matrix=1,
                   full_range=False)
    assert (spec.kind, spec.format, spec.width, spec.height) == ("video", "nv12", 640, 360)
    assert (spec.fps, spec.time_base, spec.shape) == ((30000, 1001), (1, 90000), (540, 640))
    assert (spec.primaries, spec.transfer, spec.matrix, spec.full_range) == (1, 1, 1, False)
    assert pickle.loads(pickle.dumps(spec)) == spec == fp.Spec.from_json(spec.to_json())
    assert hash(spec) == hash(fp.Spec.from_json(spec.to_json())) and spec != fp.Spec("nv12", 640, 360)
    assert str(spec) == "nv12 640x360 29.97 fps"
    for wrong, says in [
        (lambda: fp.Spec("rgb42", 1, 1), "rgb42.*supported are gray"),
        (lambda: fp.Spec("gray", 0, 1), "width is 0"),
        (lambda: fp.Spec("gray", 1, 70000), "height is 70000"),
        (lambda: fp.Spec("gray", 1, 1, fps=(0, 1)), "fps is 0/1"),
        (lambda: fp.Spec.tensor("complex64", (1,)), "complex64.*float32"),
        (lambda: fp.Spec.tensor(np.dtype(">f4"), (1,)), "big-endian"),
        (lambda: fp.Spec.tensor("f32", (1,) * 9), "rank"),
        (lambda: fp.Spec.bytes(0), "capacity"),
        (lambda: fp.Spec.from_json("{}"), "not a spec"),
    ]:
        with pytest.raises(fp.FormatError, match=says):
            wrong()
    with pytest.raises(TypeError, match="fps"):
        fp.Spec("gray", 1, 1, fps="fast")

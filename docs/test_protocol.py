"""PROTOCOL.md is enough to write a worker: one that was serves a real host."""

import sys
from pathlib import Path

import pytest

import frameport as fp


@pytest.mark.skipif(sys.platform != "linux", reason="the document describes how a worker on Linux comes by its memory")
def test_a_worker_written_from_the_document_alone_serves_a_host():
    worker = Path(__file__).with_name("protocol_worker.py")
    spec = fp.Spec("gray", 17, 5)
    with fp.spawn([sys.executable, str(worker)], spec, params={"n": -1}) as w:
        for n in range(50):
            # It does not know of parameters, and never reads them.
            w.params["n"] = [n] * 5000
            picture = bytes((n * 7 + index) % 256 for index in range(17 * 5))
            with w.loan() as frame:
                memoryview(frame).cast("B")[:] = picture
            out = w.recv(timeout=20)
            assert out.seq == n
            assert memoryview(out).tobytes() == bytes(255 - value for value in picture)
            out.release()
        w.finish()
        assert list(w) == []

"""What the tests share: workers from a few lines of code, and pictures known to the last byte."""

import os
import sys
import textwrap
from pathlib import Path

import pytest

import frameport as fp

HERE = Path(__file__).parent

# What workers need to find this folder, and the package that this process uses.
ENV = {"PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))}

ECHO = """
    import frameport as fp
    with fp.connect() as link:
        for frame in link:
            link.send_back(frame)
"""

REPLY = """
    import numpy as np
    import frameport as fp
    with fp.connect() as link:
        for frame in link:
            with link.reply(frame) as out:
                out.fill(np.asarray(frame))
"""


def picture(seq: int, length: int) -> bytes:
    """The bytes of frame `seq`: any byte of another frame, or another place, differs."""
    return bytes((seq * 31 + at * 7 + (at >> 8)) & 255 for at in range(length))


@pytest.fixture
def program(tmp_path):
    """A program from its code: the command that runs it."""
    made = 0

    def write(code: str) -> list[str]:
        nonlocal made
        made += 1
        file = tmp_path / f"program{made}.py"
        file.write_text(textwrap.dedent(code))
        return [sys.executable, str(file)]

    return write


@pytest.fixture
def start(program):
    """A running worker from its code; stopped when the test ends."""
    running = []

    def spawn(code: str, *specs, **options) -> fp.Worker:
        env = ENV | options.pop("env", {})
        worker = fp.spawn(program(code), *specs, env=env, ready_timeout=60, **options)
        running.append(worker)
        return worker

    yield spawn
    for worker in running:
        worker.kill()
        worker.stop()

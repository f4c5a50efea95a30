"""Claims of the README that need a machine of a certain kind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HOST = Path(__file__).parent.parent / "examples" / "host.py"


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /dev/shm")
def test_frames_travel_where_dev_shm_has_one_mebibyte() -> None:
    """Containers give /dev/shm 64 MiB, which is where other ways of sharing frames end in SIGBUS."""
    small_shm = "mount -t tmpfs -o size=1m none /dev/shm && df --output=size /dev/shm && exec \"$@\""
    unshare = ["unshare", "--mount", "--map-root-user"] if os.getuid() else ["unshare", "--mount"]
    if subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", "/dev/shm"], capture_output=True).returncode:
        pytest.skip("SKIPPED: this machine lets nobody mount a small /dev/shm of their own")
    command = [*unshare, "sh", "-c", small_shm, "sh", sys.executable, str(HOST)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "1024\n" in done.stdout and "frame 29" in done.stdout

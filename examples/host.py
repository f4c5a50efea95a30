"""A host in Python: sends a moving ramp through a worker and prints what comes back.

python examples/host.py
"""

import sys
from pathlib import Path

import numpy as np

import frameport as fp

spec = fp.Spec("bgr24", 640, 360, fps=(30, 1))
worker = Path(__file__).with_name("overlay.py")

with fp.spawn([sys.executable, str(worker)], spec) as w:
    for n in range(30):
        with w.loan() as frame:  # sent when the block ends
            frame.array[:] = np.roll(np.linspace(0, 255, 640, dtype=np.uint8), n * 8)[None, :, None]
        out = w.recv(timeout=10)
        print(f"frame {out.seq}: mean {out.array.mean():.1f}, {(fp.now() - out.timestamp_ns) / 1e6:.2f} ms after it was sent")

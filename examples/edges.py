"""Neon edges: fills a slot of the return pool, the input stays as it was.

frameport run --input clip.mp4 --output edges.mp4 -- python examples/edges.py
"""

import cv2
import numpy as np

import frameport as fp

with fp.connect() as link:
    for frame in link:
        image = frame.array
        smooth = cv2.GaussianBlur(image, (5, 5), 0)
        strength = np.maximum(*(cv2.convertScaleAbs(cv2.Sobel(smooth, cv2.CV_16S, dx, 1 - dx)) for dx in (1, 0)))
        with link.reply(frame) as out:  # sent when the block ends
            cv2.addWeighted(image, 0.25, strength, 2.0, 0, dst=out.array)
            out.meta["edge_level"] = round(float(strength.mean()), 2)

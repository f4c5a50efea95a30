"""Draws on the very memory the frame came in: nothing is copied, the same slot goes back.

frameport run --input pattern --output overlay.mp4 -- python examples/overlay.py
"""

import cv2
import numpy as np

import frameport as fp


@fp.worker
def process(frame):
    image = frame.array
    height, width = image.shape[:2]
    x = width // 2 + int(width * 0.35 * np.sin(frame.seq / 12))
    cv2.circle(image, (x, height // 2), height // 8, (0, 200, 255), -1, cv2.LINE_AA)
    cv2.putText(image, f"frame {frame.seq}", (16, height - 16), cv2.FONT_HERSHEY_DUPLEX, height / 480, (255, 255, 255), 2)

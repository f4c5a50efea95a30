"""A classical face detector whose data comes inside the opencv-python-headless package (4.x).

frameport run --input clip.mp4 --output faces.mp4 -- python examples/faces.py
"""

import cv2

import frameport as fp

# Before the first frame: the host sends none until the worker is ready.
detector = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")


@fp.worker
def process(frame):
    image = frame.array
    gray = cv2.equalizeHist(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    faces = detector.detectMultiScale(gray, 1.1, 4, minSize=(32, 32))
    for x, y, width, height in faces:
        cv2.rectangle(image, (x, y), (x + width, y + height), (80, 255, 80), 2)
    frame.meta["faces"] = [[int(value) for value in face] for face in faces]

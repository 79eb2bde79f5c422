"""Draw a camera's frames in a window, or a video file into another.

usage: python examples/video_loop.py --camera 0
       python examples/video_loop.py clip.mp4 painted.mp4 --model great-wave
A camera and the window need OpenCV: pip install opencv-python
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

import impasto
from impasto.videos import redraw


def camera(number: int) -> Iterator[np.ndarray]:
    """Frames of a camera, uint8 (H, W, 3) RGB, until it ends."""
    import cv2

    capture = cv2.VideoCapture(number)
    while True:
        there, frame = capture.read()
        if not there:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def show(frames: Iterator[np.ndarray]) -> None:
    """A window, until Escape is pressed."""
    import cv2

    for frame in frames:
        cv2.imshow("Impasto", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        if cv2.waitKey(1) == 27:
            break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?")
    parser.add_argument("target", nargs="?")
    parser.add_argument("--camera", type=int)
    parser.add_argument("--model", default="great-wave")
    parser.add_argument("--backend", default="auto")
    given = parser.parse_args()
    if given.camera is None and not (given.source and given.target):
        parser.error("name a video and the file to write, or --camera NUMBER")
    with impasto.load(given.model, backend=given.backend) as model:
        if given.camera is not None:
            show(model.stream(camera(given.camera)))  # the next frame is read while this one is drawn
        else:
            print(redraw(given.source, given.target, model.stream))


if __name__ == "__main__":
    main()

"""OpenCV's dnn module in a process of its own: a script that opencv_runtime.py starts.

It reads pickled requests from standard input and answers on what was standard output. It imports
nothing of fastlstm, so that it starts fast.
"""

from __future__ import annotations

import os
import pickle
import sys
from typing import IO, Any

import cv2
import numpy as np


def main() -> None:
    """Answer each request with ("ok", value) or ("refused", OpenCV's words)."""
    # OpenCV itself may print; what it prints must not get among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    cv2.setNumThreads(1)
    net: Any = None
    for kind, value in requests(sys.stdin.buffer):
        try:
            if kind == "load":
                net = cv2.dnn.readNetFromONNX(np.frombuffer(value, np.uint8))
                outputs = net.getUnconnectedOutLayersNames()
                answer: Any = None
            else:
                for name, array in value.items():
                    net.setInput(np.ascontiguousarray(array), name)
                found = net.forward(outputs)
                answer = {n: np.array(a) for n, a in zip(outputs, found, strict=True)}
        except cv2.error as error:
            reply = ("refused", str(error))
        else:
            reply = ("ok", answer)
        pickle.dump(reply, answers)
        answers.flush()


def requests(source: IO[bytes]) -> Any:
    """Every request, until the other side closes the pipe."""
    while True:
        try:
            yield pickle.load(source)
        except EOFError:
            return


if __name__ == "__main__":
    main()

"""A program that ships one .onnx file and runs it with OpenCV's dnn module, one thread.

OpenCV hands out no metadata, so they are read from the file: an ONNX file is a protobuf message
whose field 14 holds pairs of a key (1) and a value (2).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def load(path: str) -> Callable[[Any], Any]:
    """A step: x (I,) float32 -> (O,), the state carried."""
    cv2.setNumThreads(1)
    with open(path, "rb") as file:
        content = file.read()
    states = metadata(content)["states"]
    net = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))
    outputs = ["y", *(state["output"] for state in states)]
    carried = {state["input"]: np.array([state["initial"]], np.float32) for state in states}

    def step(x: Any) -> Any:
        net.setInput(x.reshape(1, 1, -1), "x")
        for name, array in carried.items():
            net.setInput(array, name)
        y, *new = net.forward(outputs)
        carried.update(zip(carried, new, strict=True))
        return y.reshape(-1)

    return step


def metadata(content: bytes) -> Any:
    """What the file says of itself under the key `fastlstm`."""
    for number, value in fields(content):
        if number == 14:
            pair = dict(fields(value))
            if pair[1] == b"fastlstm":
                return json.loads(pair[2])
    raise ValueError("expected an .onnx file that fastlstm exported, found no such metadata")


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a protobuf message that have a length, by number; others are passed over."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        number, wire = divmod(varint(), 8)
        if wire == 0:
            varint()
            continue
        size = {1: 8, 5: 4}.get(wire) or varint()
        if wire == 2:
            yield number, message[at : at + size]
        at += size

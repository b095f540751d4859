"""OpenCV's dnn module, in this process for the clock, after a try in a process of its own.

OpenCV may end the process on a graph that it cannot run; a try that ends so is a refusal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import UnsupportedError
from fastlstm.export import onnx_graph
from fastlstm.export.card import state_names
from fastlstm.export.opencv_runtime import NAME, SOURCE_PLACE, OpenCvRunner, opencv
from fastlstm.export.replay import need_no_future
from fastlstm.export.runtimes import not_installed, refusal

from .contender import Contender

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from fastlstm.model import Model

    Floats = NDArray[np.float32]


class Net:
    """The graph: x (steps, streams, I) and states (1, streams, H) in, y and new states out."""

    def __init__(self, model: Model, data: bytes) -> None:
        """Load it; raises UnsupportedError, in OpenCV's words, where it refuses the graph."""
        import cv2

        # For the whole process, which runs nothing else in OpenCV.
        cv2.setNumThreads(1)
        names = [state_names(state) for state in model.states]
        self.before = [before for before, _ in names]
        self.results = ["y", *(after for _, after in names)]
        try:
            self.net = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
        except cv2.error as error:
            raise _refused(error) from None
        self.put = self.net.setInput
        forward: Any = self.net.forward
        self.forward: Callable[[list[str]], Sequence[Floats]] = forward

    def __call__(self, x: Floats, states: Sequence[Floats]) -> Sequence[Floats]:
        """One call: y and the new states."""
        put = self.put
        put(x, "x")
        for name, state in zip(self.before, states, strict=True):
            put(state, name)
        return self.forward(self.results)


class OpenCvSession:
    """One stream, the states fed back."""

    def __init__(self, model: Model) -> None:
        """Raises UnsupportedError where OpenCV refuses the graph or crashes on it."""
        self.model = model
        for k, layer in enumerate(model.layers):
            if any(name.startswith("peephole") for name in layer.arrays):
                raise UnsupportedError(
                    f"{NAME}: layer {k} ({layer.kind}) has peepholes, which it computes wrong"
                )
        self.data = onnx_graph.build(model, bare=True).SerializeToString()
        self.initial = [state.initial.reshape(1, 1, -1) for state in model.states]
        self._try(2 if model.bidirectional else 1, 1)
        self.net = Net(model, self.data)
        self.x = np.zeros((1, 1, model.input_size), np.float32)
        self.sample = self.x.reshape(-1)
        self.reset()

    def _try(self, steps: int, streams: int) -> None:
        """One call in a process of its own."""
        runner = OpenCvRunner(self.data)
        try:
            x = np.zeros((steps, streams, self.model.input_size), np.float32)
            names = (state_names(state)[0] for state in self.model.states)
            runner.run({"x": x, **dict(zip(names, wide(self.initial, streams), strict=True))})
        finally:
            runner.close()

    def reset(self) -> None:
        """See Session."""
        self.carried: Sequence[Floats] = self.initial

    def timed_step(self, x: Floats) -> Floats:
        """One sample: x (I,) -> (O,)."""
        self.sample[:] = x
        y, *self.carried = self.net(self.x, self.carried)
        return y.reshape(-1)

    def step(self, x: Floats) -> Floats:
        """As `timed_step`, a fresh array; raises UnsupportedError for a bidirectional model."""
        need_no_future(self.model, NAME)
        return self.timed_step(x).copy()

    def run(self, x: Floats) -> Floats:
        """A block of samples: x (time, I) -> (time, O)."""
        y, *self.carried = self.net(np.ascontiguousarray(x[:, None]), self.carried)
        return y.reshape(len(x), -1).copy()

    def batch(self, streams: int) -> OpenCvStreams:
        """See Session."""
        need_no_future(self.model, NAME)
        self._try(1, streams)
        return OpenCvStreams(Net(self.model, self.data), self.initial, self.x.shape[-1], streams)

    def close(self) -> None:
        """Nothing to let go of."""


class OpenCvStreams:
    """So many streams as one batch."""

    def __init__(self, net: Net, initial: list[Floats], inputs: int, streams: int) -> None:
        """In a net of their own."""
        self.net, self.initial = net, wide(initial, streams)
        self.x = np.zeros((1, streams, inputs), np.float32)
        self.samples = self.x[0]
        self.reset()

    def reset(self) -> None:
        """See Streams."""
        self.carried: Sequence[Floats] = self.initial

    def step(self, x: Floats) -> Floats:
        """See Streams."""
        self.samples[:] = x
        y, *self.carried = self.net(self.x, self.carried)
        return y.reshape(len(self.samples), -1)


def wide(states: list[Floats], streams: int) -> list[Floats]:
    """The same state for each of so many streams: (1, streams, H)."""
    return [np.repeat(state, streams, axis=1) for state in states]


def _refused(error: Any) -> Exception:
    return refusal(NAME, SOURCE_PLACE.sub("", str(error)).strip(" >\n"))


OPEN_CV = Contender(
    NAME,
    "the engine that it chooses by itself, cv2.setNumThreads(1), the states fed back",
    OpenCvSession,
    not_installed("onnx", "cv2"),
    opencv.version,
)
CONTENDERS = (OPEN_CV,)

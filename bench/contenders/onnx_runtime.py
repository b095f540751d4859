"""ONNX Runtime: by `run` with a feed that is kept, and by IOBinding over buffers of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.export.onnx_sessions import OnnxBindingSession, OnnxSession
from fastlstm.export.replay import need_no_future
from fastlstm.export.runtimes import version_of

from .contender import Contender
from .installed import needs_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastlstm.model import Model

    Floats = NDArray[np.float32]


class FeedSession(OnnxSession):
    """ONNX Runtime by `run`: one feed, in which the sample is overwritten and the states change."""

    def __init__(self, model: Model) -> None:
        """The leanest graph of `model`."""
        self.x = np.zeros((1, 1, model.input_size), np.float32)
        self.sample = self.x.reshape(-1)
        self.feed: dict[str, Any] = {}
        super().__init__(model)
        self.feed["x"] = self.x
        self.call = self.session.run

    @property
    def carried(self) -> list[Floats]:
        """The states, which are in the feed."""
        return [self.feed[name] for name in self.states]

    @carried.setter
    def carried(self, states: list[Floats]) -> None:
        self.feed.update(zip(self.states, states, strict=True))

    def timed_step(self, x: Floats) -> Floats:
        """One sample: x (I,) -> a fresh (O,)."""
        self.sample[:] = x
        y, *states = self.call(self.outputs, self.feed)
        self.feed.update(zip(self.states, states, strict=True))
        return y.reshape(-1)  # type: ignore[no-any-return]

    def step(self, x: Floats) -> Floats:
        """As `timed_step`; raises UnsupportedError for a bidirectional model."""
        need_no_future(self.model, "ONNX Runtime by step")
        return self.timed_step(x)

    def batch(self, streams: int) -> FeedStreams:  # type: ignore[override]
        """See Session."""
        need_no_future(self.model, "ONNX Runtime by step")
        return FeedStreams(self, streams)

    def close(self) -> None:
        """Nothing to let go of."""


class FeedStreams:
    """So many streams as one batch, by `run`."""

    def __init__(self, one: FeedSession, streams: int) -> None:
        """In the same runtime session as `one`."""
        self.one, self.call = one, one.session.run
        self.outputs, self.states, self.size = one.outputs, one.states, one.size
        self.x = np.zeros((1, streams, one.model.input_size), np.float32)
        self.samples = self.x[0]
        self.feed: dict[str, Any] = {"x": self.x}
        self.reset()

    def reset(self) -> None:
        """See Streams."""
        self.feed.update(zip(self.states, _wide(self.one, len(self.samples)), strict=True))

    def step(self, x: Floats) -> Floats:
        """See Streams."""
        self.samples[:] = x
        y, *states = self.call(self.outputs, self.feed)
        self.feed.update(zip(self.states, states, strict=True))
        return y.reshape(-1, self.size)  # type: ignore[no-any-return]


class BoundSession(OnnxBindingSession):
    """ONNX Runtime by IOBinding: the output stays in the buffer that is bound to it."""

    def __init__(self, model: Model) -> None:
        """The leanest graph of `model`."""
        super().__init__(model)

    def timed_step(self, x: Floats) -> Floats:
        """One sample: x (I,) -> (O,), a buffer."""
        self.x[:] = x
        self.call(self.now)
        self.now, self.next = self.next, self.now
        return self.y

    def step(self, x: Floats) -> Floats:
        """As `timed_step`, a fresh array; raises UnsupportedError for a bidirectional model."""
        need_no_future(self.model, "ONNX Runtime by step")
        return self.timed_step(x).copy()

    def batch(self, streams: int) -> BoundStreams:
        """See Session."""
        need_no_future(self.model, "ONNX Runtime by step")
        return BoundStreams(self, streams)

    def close(self) -> None:
        """Nothing to let go of."""


class BoundStreams:
    """So many streams as one batch, by two bindings whose states change places."""

    def __init__(self, one: BoundSession, streams: int) -> None:
        """In the same runtime session as `one`."""
        self.one, self.call = one, one.session.run_with_iobinding
        self.count = streams
        x = np.zeros((1, streams, one.model.input_size), np.float32)
        self.buffers = [_wide(one, streams), _wide(one, streams)]
        y = one.session.run(
            one.outputs[:1], dict(zip(one.inputs, (x, *self.buffers[0]), strict=True))
        )[0]
        self.samples, self.y = x[0], y.reshape(streams, one.size)
        self.values = [[one._value(array) for array in side] for side in self.buffers]
        self.bindings = []
        for before, after in (self.values, self.values[::-1]):
            binding = one.session.io_binding()
            for name, value in zip(one.inputs, (one._value(x), *before), strict=True):
                binding.bind_ortvalue_input(name, value)
            for name, value in zip(one.outputs, (one._value(y), *after), strict=True):
                binding.bind_ortvalue_output(name, value)
            self.bindings.append(binding)
        self.reset()

    def reset(self) -> None:
        """See Streams."""
        self.now, self.next = self.bindings
        for buffer, initial in zip(self.buffers[0], _wide(self.one, self.count), strict=True):
            buffer[...] = initial

    def step(self, x: Floats) -> Floats:
        """See Streams; the result is a buffer."""
        self.samples[:] = x
        self.call(self.now)
        self.now, self.next = self.next, self.now
        return self.y  # type: ignore[no-any-return]


def _wide(one: FeedSession | BoundSession, streams: int) -> list[Floats]:
    """The initial states of so many streams, each (1, streams, H)."""
    return [np.repeat(state, streams, axis=-2) for state in one.initial()]


_HOW = "one thread that never spins, CPU provider, every graph optimisation, the leanest graph"
RUN_CALLS = Contender(
    "ONNX Runtime",
    f"{_HOW}; `run` with a feed that is kept",
    FeedSession,
    needs_of("ONNX Runtime, by step"),
    version_of("onnxruntime", "onnxruntime-gpu"),
)
BOUND = Contender(
    "ONNX Runtime bound",
    f"{_HOW}; IOBinding, the output read in place",
    BoundSession,
    needs_of("ONNX Runtime bound, by step"),
    version_of("onnxruntime", "onnxruntime-gpu"),
)
CONTENDERS = (RUN_CALLS, BOUND)

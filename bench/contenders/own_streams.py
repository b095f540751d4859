"""Our own runtime: a Stream by push, by step and by run, and a Stream each for many."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import UnsupportedError
from fastlstm.roads import PushSession, SequenceSession, StreamSession
from fastlstm.stream import Stream

from .contender import BATCH, RUN, STEP, Contender
from .installed import nothing

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fastlstm.model import Model

    from .contender import Session

    Floats = NDArray[np.float32]


class StepSession(StreamSession):
    """A Stream by `step`: a fresh array each time."""

    def __init__(self, model: Model) -> None:
        """Raises UnsupportedError for a bidirectional model."""
        super().__init__(model)
        # The method itself, as a program calls it: this class is a frame around it.
        self.timed_step: Callable[[Any], Any] = self.stream.step

    def batch(self, streams: int) -> OwnStreams:
        """See Session."""
        return OwnStreams(self.stream.model, streams)

    def close(self) -> None:
        """Nothing to let go of."""


class OnePushSession(PushSession):
    """A Stream by `push`: what it puts out is read in place, in Stream.output."""

    def __init__(self, model: Model) -> None:
        """Raises UnsupportedError for a bidirectional model."""
        super().__init__(model)
        self.timed_step: Callable[[Any], Any] = self.stream.push

    def batch(self, streams: int) -> OwnStreams:
        """See Session."""
        return OwnStreams(self.stream.model, streams)

    def close(self) -> None:
        """Nothing to let go of."""


class WholeSession(SequenceSession):
    """Model.run: whole sequences of a bidirectional model, each from the initial state."""

    def batch(self, streams: int) -> OwnStreams:
        """No live streams of such a model: raises UnsupportedError."""
        raise UnsupportedError("fastlstm: a bidirectional model has no live streams")

    def close(self) -> None:
        """Nothing to let go of."""


class OwnStreams:
    """A Stream each, pushed one after the other."""

    def __init__(self, model: Model, streams: int) -> None:
        """So many streams of one model, which share its weights."""
        self.streams = [Stream(model) for _ in range(streams)]
        self.pushes = [stream.push for stream in self.streams]
        self.outputs = [stream.output for stream in self.streams]
        self.y = np.empty((streams, model.output_size), np.float32)
        self.flat = self.y.reshape(-1)
        self.scalar = model.input_size == 1

    def reset(self) -> None:
        """See Streams."""
        for stream in self.streams:
            stream.reset()

    def timed_step(self, x: Floats) -> None:
        """One sample for each stream: x (streams, I); each output is read in place."""
        # One value a sample goes in as a plain float, which is quicker than a row made of it.
        samples: Any = x[:, 0].tolist() if self.scalar else x
        for push, sample in zip(self.pushes, samples, strict=True):
            push(sample)

    def step(self, x: Floats) -> Floats:
        """As `timed_step`, and the outputs side by side: (streams, O)."""
        self.timed_step(x)
        np.concatenate(self.outputs, out=self.flat)
        return self.y


def _open_run(model: Model) -> Session:
    return WholeSession(model) if model.bidirectional else StepSession(model)


def _version() -> str:
    return metadata.version("fastlstm")


def _own(
    name: str, configuration: str, open_session: Callable[[Model], Session], ability: str
) -> Contender:
    return Contender(name, configuration, open_session, nothing, _version, frozenset((ability,)))


PUSH = _own(
    "fastlstm push", "one thread; Stream.push, the output read in place", OnePushSession, STEP
)
STEPS = _own("fastlstm step", "one thread; Stream.step, a fresh array each time", StepSession, STEP)
WHOLE = _own(
    "fastlstm run",
    "one thread; Stream.run, or Model.run of a bidirectional model",
    _open_run,
    RUN,
)
MANY = _own(
    "fastlstm streams",
    "one thread; a Stream each, pushed in a Python loop, the outputs read in place",
    StepSession,
    BATCH,
)
CONTENDERS = (PUSH, STEPS, WHOLE, MANY)

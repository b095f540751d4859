"""Every road that a Model can take on this machine, each opened as a session of one live sequence.

verify.py judges them; a library is imported only when its road is opened.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm import sequence
from fastlstm.errors import UnsupportedError
from fastlstm.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from fastlstm.export.sessions import Session
    from fastlstm.model import Array, Model
    from fastlstm.verify import Run


_LOOKS_AHEAD = "a bidirectional layer needs the whole sequence, the samples to come included"


class StreamSession:
    """Our own Stream under the protocol of the others."""

    def __init__(self, model: Model) -> None:
        """Open a stream of `model`; raises UnsupportedError for a bidirectional one."""
        if model.bidirectional:
            raise UnsupportedError(_LOOKS_AHEAD)
        self.stream = Stream(model)

    def reset(self) -> None:
        """Go back to the model's initial state."""
        self.stream.reset()

    def step(self, x: Array) -> Array:
        """One step: x (input_size,) float32 -> a fresh (output_size,)."""
        return self.stream.step(x)

    def run(self, x: Array) -> Array:
        """A block of steps: x (time, input_size) float32 -> (time, output_size)."""
        return self.stream.run(x)

    def state(self) -> tuple[Array, ...]:
        """Copies of the state vectors, in the order of Model.states."""
        return self.stream.state


class PushSession(StreamSession):
    """A Stream driven by `push`; its output is copied out, as the protocol wants."""

    def step(self, x: Array) -> Array:
        """One step: x (input_size,) float32 -> a fresh (output_size,)."""
        self.stream.push(x)
        return self.stream.output.copy()


class SequenceSession:
    """Model.run under the protocol of the others: whole sequences, each from the initial state."""

    def __init__(self, model: Model) -> None:
        """Take `model`; it compiles when the first sequence comes."""
        self.model = model
        self.reset()

    def reset(self) -> None:
        """Go back to the model's initial state."""
        self._state = tuple(state.initial.copy() for state in self.model.states)

    def step(self, x: Array) -> Array:
        """No steps here: raises UnsupportedError."""
        raise UnsupportedError("a road for whole sequences takes no single samples")

    def run(self, x: Array) -> Array:
        """A whole sequence: x (time, input_size) float32 -> (time, output_size)."""
        result = sequence.run(self.model, x)
        self._state = result.state
        return result.output

    def state(self) -> tuple[Array, ...]:
        """The state vectors after the last sequence, in the order of Model.states."""
        return self._state


@dataclass(frozen=True)
class Road:
    """A way of running a model: what it needs, how to open it, and how a sequence is fed."""

    name: str
    open: Callable[[Model], Session]
    by_step: bool
    libraries: tuple[str, ...] = ()
    extra: str = ""
    compiler: bool = False

    def missing(self) -> str:
        """What has to be installed before this road can be opened; empty if nothing."""
        absent = [name for name in self.libraries if importlib.util.find_spec(name) is None]
        if absent:
            return f"{', '.join(absent)} not installed: pip install 'fastlstm[{self.extra}]'"
        if self.compiler and not any(map(shutil.which, _compilers())):
            return "no C++ compiler found: install g++ or clang++, or name one in CXX"
        return ""

    def prepare(self, model: Model) -> Run:
        """The road as verify.judge takes it: from the initial state, outputs and final state.

        Raises UnsupportedError for a model that it cannot express.
        """
        if self.by_step and model.bidirectional:
            raise UnsupportedError(_LOOKS_AHEAD)
        session = self.open(model)

        def run(x: NDArray[np.float32]) -> tuple[NDArray[Any], Sequence[NDArray[Any]]]:
            session.reset()
            y = np.stack([session.step(sample) for sample in x]) if self.by_step else session.run(x)
            return y, session.state()

        return run


def _compilers() -> list[str]:
    """The C++ compilers to look for; CXX may hold a launcher and options, as make takes it."""
    named = shlex.split(os.environ.get("CXX", ""))
    return named[:1] or ["g++", "clang++"]


def _session(name: str) -> Callable[[Model], Session]:
    """Open a session of fastlstm.export.sessions, which is imported only then."""

    def open_session(model: Model) -> Session:
        module = importlib.import_module("fastlstm.export.sessions")
        session: Session = getattr(module, name)(model)
        return session

    return open_session


def _torch(name: str, session: str, *, by_step: bool, compiler: bool = False) -> Road:
    return Road(name, _session(session), by_step, ("torch",), "train", compiler)


def _onnx(name: str, session: str, *, by_step: bool) -> Road:
    return Road(name, _session(session), by_step, ("onnx", "onnxruntime"), "onnx")


ROADS = (
    Road("stream, by step", StreamSession, by_step=True),
    Road("stream, by push", PushSession, by_step=True),
    Road("stream, by run", StreamSession, by_step=False),
    Road("whole sequence", SequenceSession, by_step=False),
    _torch("torch eager, by step", "TorchSession", by_step=True),
    _torch("torch eager, sequence", "TorchSession", by_step=False),
    _torch("torch cells, by step", "TorchCellSession", by_step=True),
    _torch("TorchScript, by step", "TorchScriptSession", by_step=True),
    _torch("TorchScript, sequence", "TorchScriptSession", by_step=False),
    _torch("torch.compile, by step", "InductorSession", by_step=True, compiler=True),
    _torch("AOTInductor, by step", "AotiSession", by_step=True, compiler=True),
    _onnx("ONNX Runtime, by step", "OnnxSession", by_step=True),
    _onnx("ONNX Runtime bound, by step", "OnnxBindingSession", by_step=True),
    _onnx("ONNX Runtime, sequence", "OnnxSession", by_step=False),
)

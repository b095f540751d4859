"""The reference itself as a contender: the equations in NumPy, float64, the state carried."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm import reference
from fastlstm.export.replay import need_no_future
from fastlstm.model import Residual

from .contender import Contender
from .installed import nothing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastlstm.model import Model

    Floats = NDArray[np.floating[Any]]

NAME = "NumPy reference"


class ReferenceSession:
    """One stream through the layers of fastlstm.reference."""

    def __init__(self, model: Model) -> None:
        """The weights of `model`, lifted to float64."""
        self.model = model
        # A bidirectional model runs whole, where nothing is carried.
        whole = model.bidirectional
        self.layers = [] if whole else [_lifted(layer) for layer in model.layers]
        self.reset()

    def reset(self) -> None:
        """See Session."""
        self.states: list[reference.State] = [
            tuple(state.initial.astype(np.float64) for state in layer.states)
            for layer in self.model.layers
        ]

    def step(self, x: NDArray[np.float32]) -> Floats:
        """One sample: x (I,) float32 -> a fresh (O,) float64."""
        if self.model.bidirectional:
            need_no_future(self.model, NAME)
        y: Floats = x.astype(np.float64)
        inputs: list[Floats] = []
        for k, layer in enumerate(self.layers):
            inputs.append(y)
            if isinstance(layer, Residual):
                y = reference.residual_step(y, inputs[k - layer.back], layer.columns)
            else:
                y, self.states[k] = layer.step(y, self.states[k])
        return y

    def run(self, x: NDArray[np.float32]) -> Floats:
        """A block of samples: x (time, I) float32 -> (time, O) float64."""
        if self.model.bidirectional:
            return reference.run(self.model, x)
        y = np.empty((len(x), self.model.output_size))
        for t, sample in enumerate(x):
            y[t] = self.step(sample)
        return y

    def batch(self, streams: int) -> ReferenceStreams:
        """See Session."""
        need_no_future(self.model, NAME)
        return ReferenceStreams(self.model, streams)

    def close(self) -> None:
        """Nothing to let go of."""


class ReferenceStreams:
    """A session each, in a loop."""

    def __init__(self, model: Model, streams: int) -> None:
        """So many sessions."""
        self.sessions = [ReferenceSession(model) for _ in range(streams)]
        self.y = np.empty((streams, model.output_size))

    def reset(self) -> None:
        """See Streams."""
        for session in self.sessions:
            session.reset()

    def step(self, x: NDArray[np.float32]) -> Floats:
        """See Streams."""
        for k, session in enumerate(self.sessions):
            self.y[k] = session.step(x[k])
        return self.y


def _lifted(layer: Any) -> Any:
    return layer if isinstance(layer, Residual) else reference._Lifted(layer, np.float64)


def _version() -> str:
    return f"NumPy {metadata.version('numpy')}"


REFERENCE = Contender(
    NAME,
    "plain NumPy with its BLAS as it is, one layer after the other; many streams in a loop",
    ReferenceSession,
    nothing,
    _version,
    precision="float64",
)
CONTENDERS = (REFERENCE,)

"""The floor as a session: each step loads the weights of the model once, and computes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .load_only import FORWARD, Way, load_only
from .roofline import weights_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fastlstm.model import Model

# What tables call it; its ways of loading are timed apart, and the fastest is the floor.
NAME = "only loading the weights"


class FloorSession:
    """Loads, in one compiled loop, all packed weights of our runtime once for each time step."""

    def __init__(self, model: Model, way: Way) -> None:
        """Over the very memory that a Stream of `model` reads."""
        self.weights, self.way = weights_of(model), way

    def reset(self) -> None:
        """There is no state."""

    def run(self, x: NDArray[np.float32]) -> Any:
        """As many passes over the weights as x (time, I) has time steps."""
        return load_only(self.way, self.weights, len(x))


def floor_sessions(model: Model) -> dict[str, FloorSession]:
    """Every way of loading the weights in order, by name."""
    return {f"{NAME}, {way.name}": FloorSession(model, way) for way in FORWARD}

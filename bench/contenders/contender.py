"""What a contender is: one way of running a model, opened as a session that carries the state.

A session is used twice: first its outputs are compared with the reference, then the very same
session is timed. So nothing here may compute something else when it is timed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from fastlstm.model import Model

    Floats = NDArray[np.floating[Any]]

# What a session can do beside `step`, which all can but those of a bidirectional model.
STEP, RUN, BATCH = "step", "run", "batch"
ALL = frozenset((STEP, RUN, BATCH))
# `run` of a session that cannot `run`: a loop of its steps, for who wants blocks of all.
STEPS_IN_A_BLOCK = "steps in a block"


class Streams(Protocol):
    """Several live streams of one model that get their samples at the same moments."""

    def reset(self) -> None:
        """All streams back to the model's initial state."""

    def step(self, x: NDArray[np.float32]) -> Floats:
        """One sample for each stream: x (streams, I) float32 -> (streams, O).

        The result may be a buffer that the next call overwrites.
        """


class Session(Protocol):
    """One live stream of a model in one runtime, batch 1, its state carried from call to call."""

    def reset(self) -> None:
        """Go back to the model's initial state."""

    def step(self, x: NDArray[np.float32]) -> Floats:
        """One sample: x (I,) float32 -> (O,). It may be a buffer that the next call overwrites."""

    def run(self, x: NDArray[np.float32]) -> Floats:
        """A block of samples in one call: x (time, I) float32 -> (time, O)."""

    def batch(self, streams: int) -> Streams:
        """So many live streams, each with a state of its own, apart from this session's."""

    def close(self) -> None:
        """Let go of what the session holds, such as a process; again does nothing."""


@dataclass(frozen=True)
class Contender:
    """One way of running a model: how it is opened, what it can do, and how it is set up.

    `open` raises UnsupportedError for a model that it cannot express. `missing` says what has to
    be installed first, and nothing ("") where all is there; `version` may be asked only then.
    """

    name: str
    # In a few words: threads, mode, buffers. Printed beside every result.
    configuration: str
    open: Callable[[Model], Session]
    missing: Callable[[], str]
    version: Callable[[], str]
    can: frozenset[str] = ALL
    # "float32", "float64", "int8": what the weights are held in. Below float32 the outputs are
    # those of another network, and a table says so.
    precision: str = "float32"
    # Compiles C++ when it is opened, which takes seconds.
    builds: bool = False

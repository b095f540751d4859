"""How a session is driven while the clock runs: the one interface between contenders and modes.

A session in this process is driven by local.py. One that lives in another process times itself,
so that the pipe is in no figure; see contenders/pipe.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Taken:
    """What one turn of one contender took.

    `step_ns` is nanoseconds a time step over the whole turn (of many streams, a time step of one
    of them). `calls_ns` (calls,) int64 are single calls: how long each took or, where calls were
    scheduled, how long after its scheduled start each was done.
    """

    step_ns: float
    calls_ns: NDArray[np.int64]


@runtime_checkable
class Driver(Protocol):
    """Runs a turn of each kind. Every turn begins with a reset and some calls that do not count."""

    def steps(self, x: Floats, singles: int) -> Taken:
        """A loop of steps over x (samples, I), then `singles` more, each timed by itself."""

    def sequences(self, x: Floats, calls: int) -> Taken:
        """`calls` calls, each of the whole of x (time, I)."""

    def scheduled(self, blocks: Floats, due_ns: NDArray[np.int64]) -> Taken:
        """A call for each block (calls, block, I), at its time after the start, never earlier.

        `due_ns` (calls,) rises. A call that comes late because the ones before it took long is
        still timed from when it was due: a stall is seen by all that had to wait. A block of one
        sample is a step, a longer one is one call of `run`, or that many steps where `run` would
        be a loop of steps. `step_ns` is the median latency of a call over its steps.
        """

    def batches(self, x: Floats) -> Taken:
        """One call for each x[k] (streams, I) of x (samples, streams, I), a sample a stream."""


def as_array(values: Any) -> NDArray[np.int64]:
    """Nanoseconds as Taken holds them."""
    return np.asarray(values, np.int64)

"""When calls are due: at an even rate, or at random moments that do not know of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def periodic(calls: int, rate_hz: float) -> NDArray[np.int64]:
    """So many due times at an even rate, in nanoseconds after the start: (calls,) int64."""
    due: NDArray[np.int64] = np.rint(np.arange(calls) * (1e9 / rate_hz)).astype(np.int64)
    return due


def poisson(calls: int, rate_hz: float, seed: int) -> NDArray[np.int64]:
    """So many due times of a Poisson process, in nanoseconds after the start: (calls,) int64.

    The gaps are independent and exponential with the mean 1 / rate_hz, so that calls come in
    bunches, as requests of many independent sources do.
    """
    gaps = np.random.default_rng(seed).exponential(1e9 / rate_hz, calls)
    return np.rint(np.cumsum(gaps)).astype(np.int64)

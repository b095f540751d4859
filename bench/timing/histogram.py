"""Single calls as an HdrHistogram and the percentiles that so many calls support.

The histogram is the standard one (V2, compressed, base64), so that other tools read and merge it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import MissingExtraError

from ..reports.document import Latency, Percentile
from .statistics import CONFIDENCE, interval_ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PERCENTS = (50.0, 90.0, 99.0, 99.9)
# One nanosecond to a hundred seconds, with values kept to one part in a thousand.
LEAST_NS, MOST_NS, DIGITS = 1, 100_000_000_000, 3


def latency_of(turns: Sequence[NDArray[np.int64]], confidence: float = CONFIDENCE) -> Latency:
    """All single calls of some turns together; percentiles are exact values of single calls.

    A percentile is left out where there are too few calls for its interval, see least_samples.
    Raises ValueError where there is no call.
    """
    calls = np.sort(np.concatenate(turns)) if turns else np.empty(0, np.int64)
    if not len(calls):
        raise ValueError("latency_of: expected at least one call, found none")
    percentiles = []
    for percent in PERCENTS:
        ranks = interval_ranks(len(calls), percent / 100, confidence)
        if ranks is not None:
            at = -(-len(calls) * round(percent * 10) // 1000)
            value, low, high = (int(calls[rank - 1]) for rank in (at, *ranks))
            percentiles.append(Percentile(percent=percent, ns=value, low=low, high=high))
    return Latency(
        samples=len(calls),
        histogram=encode(calls),
        percentiles=tuple(percentiles),
        max_ns=int(calls[-1]),
    )


def encode(calls: NDArray[np.int64]) -> str:
    """Nanoseconds of single calls as an HdrHistogram's text."""
    histogram = _library()(LEAST_NS, MOST_NS, DIGITS)
    values, counts = np.unique(np.clip(calls, LEAST_NS, MOST_NS), return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        histogram.record_value(value, count)
    return str(histogram.encode().decode("ascii"))


def decode(text: str) -> Any:
    """The hdrh.histogram.HdrHistogram behind such a text."""
    return _library().decode(text)


def _library() -> Any:
    try:
        from hdrh.histogram import HdrHistogram
    except ImportError:
        raise MissingExtraError("hdrhistogram", "bench", "a benchmark's histograms") from None
    return HdrHistogram

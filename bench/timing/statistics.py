"""Medians and percentiles with confidence intervals that assume nothing about the distribution.

An interval runs from one order statistic to another, with ranks from the binomial distribution of
how many of n independent values lie below the quantile (David and Nagaraja, Order Statistics, 7.1).
"""

from __future__ import annotations

from functools import cache
from math import ceil, exp, lgamma, log, log1p
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.95


def median_interval(
    values: Sequence[float] | np.ndarray[Any, Any], confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """The median of some values, and the interval that holds the true one so often.

    Of fewer values than the confidence needs, 6 for 95 %, the interval is their whole range, which
    holds the median with the probability `coverage(len(values))`. Raises ValueError for none.
    """
    if not len(values):
        raise ValueError("median_interval: expected at least one value, found none")
    ordered = np.sort(np.asarray(values, np.float64))
    ranks = interval_ranks(len(ordered), 0.5, confidence) or (1, len(ordered))
    low, high = (float(ordered[rank - 1]) for rank in ranks)
    return float(np.median(ordered)), low, high


def coverage(count: int) -> float:
    """How likely the median lies within the whole range of so many values."""
    return 1 - 2 * 0.5**count


@cache
def interval_ranks(count: int, quantile: float, confidence: float) -> tuple[int, int] | None:
    """Ranks, from 1, of the values between which a quantile lies with that confidence.

    None where so few values bound it on one side only.
    """
    tail = (1 - confidence) / 2
    below = _cumulative(count, quantile)
    # The greatest low rank with P(fewer than it lie below) <= tail, and its mirror.
    low = int(np.searchsorted(below, tail, side="right"))
    high = int(np.searchsorted(below, 1 - tail, side="left")) + 1
    return (low, high) if low >= 1 and high <= count else None


def _cumulative(count: int, quantile: float) -> np.ndarray[Any, Any]:
    """P(B <= k) for k = 0 ... count, of a binomial B."""
    head = lgamma(count + 1)
    up, down = log(quantile), log1p(-quantile)
    return np.cumsum(
        [
            exp(head - lgamma(k + 1) - lgamma(count - k + 1) + k * up + (count - k) * down)
            for k in range(count + 1)
        ]
    )


def least_samples(quantile: float, confidence: float = CONFIDENCE) -> int:
    """How many values a quantile needs before they bound it on both sides: 3,688 for 99.9 %."""
    return ceil(log((1 - confidence) / 2) / log(max(quantile, 1 - quantile)))

"""What any model has to beat: the last value, the value one season ago, and one linear map.

Each gives a forecast for every step ahead of every origin: (origins, ahead, targets), in the
series' own unit. An origin is the row of the last sample that goes in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlstm.train.series import Series
    from fastlstm.train.split import Segment

Floats: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.int64]

# Windows that the linear map is fitted on: with more its design matrix outgrows a small machine.
MOST_WINDOWS = 20_000
# What ridge regression may add to the mean of the squared window values; the validation chooses.
PENALTIES = tuple(10.0**k for k in range(-7, 3))


def begins(series: Series, rows: Rows) -> Rows:
    """For each row where its sequence begins."""
    starts = np.concatenate([[0], np.cumsum(series.lengths)])
    return starts[np.searchsorted(starts, rows, "right") - 1]


def last_known(rows: Rows, ahead: Sequence[int]) -> Rows:
    """The row of the last target known at each origin: the one before where ahead is 0."""
    return rows - (1 if ahead[0] == 0 else 0)


def last_value(series: Series, rows: Rows, ahead: Sequence[int]) -> Floats:
    """The target will be what it last was: y[t], or y[t - 1] for a forecast of y[t] itself."""
    now = series.targets[last_known(rows, ahead)]
    return np.broadcast_to(now[:, None], (len(rows), len(ahead), now.shape[1])).copy()


def seasonal_naive(series: Series, rows: Rows, ahead: Sequence[int], period: int) -> Floats:
    """The target will be what it was at the same place in the last season that is known.

    k steps ahead of t that is y[t + k - period * ceil(k / period)] (Hyndman and Athanasopoulos,
    Forecasting: Principles and Practice, 5.2). Where a sequence has no such row yet, its last value
    stands in.
    """
    known = last_known(rows, ahead)[:, None]
    wanted = rows[:, None] + np.asarray(ahead)
    seasons = -(-(wanted - known) // period)
    source = wanted - period * seasons
    return series.targets[np.where(source < begins(series, rows)[:, None], known, source)]


@dataclass(frozen=True, eq=False)
class LinearMap:
    """One least-squares map from the last values of each target to all steps ahead at once.

    Of each window the last value is taken away, and added to what comes out (the NLinear of Zeng et
    al., AAAI 2023): a series whose level wanders is then no stranger. There is one map for each
    target, with a bias, fitted by ridge regression in closed form.
    """

    window: int
    ahead: tuple[int, ...]
    weight: Floats  # (targets, window, ahead)
    bias: Floats  # (targets, ahead)
    penalty: tuple[float, ...]  # of each target, as the choosing rows preferred it

    @classmethod
    def fit(
        cls,
        series: Series,
        train: Sequence[Segment],
        choosing: Sequence[Segment],
        ahead: Sequence[int],
        window: int,
    ) -> LinearMap | None:
        """The map of the training segments, its penalty chosen on the others.

        Without a choosing window, on the last fifth of the training windows. None where the
        training part has fewer than two windows.
        """
        rows = _full_windows(train, ahead, window, inside=True)
        if len(rows) < 2:
            return None
        judges = _full_windows(choosing, ahead, window, inside=False)
        fitted = rows
        if not len(judges):
            fitted, judges = np.split(rows, [max(1, len(rows) * 4 // 5)])
        weights, biases, penalties = [], [], []
        for k in range(series.targets.shape[1]):
            values = series.targets[:, k]
            # In deviations, so that a penalty means the same whatever the unit.
            values = values / (values[rows].std() or 1.0)
            x, y = _pairs(values, fitted, ahead, window)
            weight, bias, penalty = _ridge(x, y, *_pairs(values, judges, ahead, window))
            weights.append(weight)
            biases.append(bias * (series.targets[rows, k].std() or 1.0))
            penalties.append(penalty)
        return cls(window, tuple(ahead), np.stack(weights), np.stack(biases), tuple(penalties))

    def predict(self, series: Series, rows: Rows) -> Floats:
        """At each origin (origins, ahead, targets); a window before the beginning repeats it."""
        known = last_known(rows, self.ahead)
        places = known[:, None] + np.arange(1 - self.window, 1)
        places = np.maximum(places, begins(series, rows)[:, None])
        last = series.targets[known]
        found = [
            (series.targets[places, k] - last[:, k, None]) @ self.weight[k]
            + self.bias[k]
            + last[:, k, None]
            for k in range(series.targets.shape[1])
        ]
        return np.stack(found, axis=2)


def _full_windows(
    segments: Sequence[Segment], ahead: Sequence[int], window: int, inside: bool
) -> Rows:
    """Origins with a whole window before them, all of it `inside` the segment or reaching back."""
    late = 1 if ahead[0] == 0 else 0
    found = [
        np.arange(
            max((s.first if inside else s.begin) + window - 1 + late, s.first - ahead[0]),
            s.end - ahead[-1],
        )
        for s in segments
    ]
    rows = np.concatenate([*found, np.empty(0, int)]).astype(int)
    return rows[:: max(1, -(-len(rows) // MOST_WINDOWS))]


def _pairs(values: Floats, rows: Rows, ahead: Sequence[int], window: int) -> tuple[Floats, Floats]:
    """Windows (origins, window) and what follows (origins, ahead), less each one's last value."""
    known = last_known(rows, ahead)
    last = values[known][:, None]
    x = values[known[:, None] + np.arange(1 - window, 1)] - last
    return x, values[rows[:, None] + np.asarray(ahead)] - last


def _ridge(x: Floats, y: Floats, judge_x: Floats, judge_y: Floats) -> tuple[Floats, Floats, float]:
    """The weight (window, ahead) and bias (ahead,) whose penalty is best on the judges.

    Minimises |y - b - x W|^2 / n + penalty * s |W|^2, with s the mean of the squared values of x.
    One eigendecomposition serves every penalty.
    """
    middle, level = x.mean(0), y.mean(0)
    centred = x - middle
    roots, vectors = np.linalg.eigh(centred.T @ centred / len(x))
    projected = vectors.T @ (centred.T @ (y - level) / len(x))
    turned = (judge_x - middle) @ vectors
    size = float(np.mean(centred**2)) or 1.0
    best: tuple[float, Floats, float] | None = None
    for penalty in PENALTIES:
        inner = projected / (np.maximum(roots, 0) + penalty * size)[:, None]
        loss = float(np.mean((turned @ inner + level - judge_y) ** 2))
        if best is None or loss < best[0]:
            best = loss, inner, penalty
    assert best is not None
    weight = vectors @ best[1]
    return weight, level - middle @ weight, best[2]

"""How far forecasts are from the truth: every figure's formula, its source, and what it divides by.

Arrays of forecasts are (origins, ahead, targets) here. Nothing here knows of a model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastlstm.train.series import Series
    from fastlstm.train.split import Scaling, Segment

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What the training part says of each target, so that errors on any part can be compared.

    All are (targets,) arrays in the series' own unit; None is not known.
    """

    deviation: Floats | None = None  # of the training part: divides the scaled errors
    naive_mae: Floats | None = None  # of the (seasonal) naive forecast in training: divides MASE
    mean: Floats | None = None  # what the scaling takes away, for the accuracy
    scale: Floats | None = None  # and what it divides by
    floor: float = 1e-4

    @classmethod
    def of_training(
        cls,
        series: Series,
        segments: Sequence[Segment],
        scaling: Scaling | None,
        period: int = 0,
        floor: float = 1e-4,
    ) -> Yardstick:
        """Measured over the training part; `period` 0 takes the one-step naive forecast."""
        rows = np.concatenate([np.arange(s.first, s.end) for s in segments])
        zeros = np.zeros(series.targets.shape[1])
        deviation = series.targets[rows].std(0)
        naive_mae = in_sample_naive_mae(series.targets, segments, max(1, period))
        return cls(
            deviation=deviation,
            # A series without noise repeats itself to the rounding, which is nothing to divide by.
            naive_mae=np.where(naive_mae > 1e-9 * deviation, naive_mae, 0.0),
            mean=zeros if scaling is None else scaling.target_mean,
            scale=zeros + 1 if scaling is None else scaling.target_deviation,
            floor=floor,
        )

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, Any]) -> Yardstick:
        """As `metadata` left it in a model file; what is not there is not known."""

        def known(name: str) -> Floats | None:
            return np.array(metadata[name], float) if metadata.get(name) else None

        return cls(
            deviation=known("target_deviation"),
            naive_mae=known("naive_mae"),
            mean=known("accuracy_mean"),
            scale=known("accuracy_scale"),
            floor=float(metadata.get("accuracy_floor", cls.floor)),
        )

    def metadata(self) -> dict[str, Any]:
        """What `of_metadata` reads, for a model file."""
        found = {
            "target_deviation": self.deviation,
            "naive_mae": self.naive_mae,
            "accuracy_mean": self.mean,
            "accuracy_scale": self.scale,
        }
        known = {
            name: values.tolist()
            for name, values in found.items()
            if values is not None and np.isfinite(values).all()
        }
        return {**known, "accuracy_floor": self.floor}

    def column(self, k: int) -> Yardstick:
        """The same for target k alone."""

        def one(values: Floats | None) -> Floats | None:
            return None if values is None else values[k : k + 1]

        return Yardstick(
            one(self.deviation), one(self.naive_mae), one(self.mean), one(self.scale), self.floor
        )


def errors(truth: Floats, predicted: Floats, yardstick: Yardstick) -> dict[str, float | None]:
    """All figures of one forecaster; `truth` and `predicted` are (origins, ahead, targets).

    rmse, mae, smape, mase, accuracy, scaled_mse (mean((y - p)^2 / s^2), with s the deviation of the
    target over the training part) and scaled_mae (mean(|y - p| / s)). A figure that cannot be told,
    or is not finite, is None.
    """
    # A model that diverges may put out anything.
    with np.errstate(invalid="ignore", over="ignore"):
        error = predicted - truth
        figures: dict[str, float | None] = {
            "rmse": math.sqrt(np.mean(error**2)),
            "mae": float(np.mean(np.abs(error))),
            "smape": smape(truth, predicted),
            "mase": None,
            "accuracy": None,
            "scaled_mse": None,
            "scaled_mae": None,
        }
        if yardstick.naive_mae is not None and yardstick.naive_mae.all():
            figures["mase"] = mase(truth, predicted, yardstick.naive_mae)
        if yardstick.mean is not None and yardstick.scale is not None:
            figures["accuracy"] = accuracy(
                (truth - yardstick.mean) / yardstick.scale,
                (predicted - yardstick.mean) / yardstick.scale,
                yardstick.floor,
            )
        if yardstick.deviation is not None and yardstick.deviation.all():
            scaled = error / yardstick.deviation
            figures["scaled_mse"] = float(np.mean(scaled**2))
            figures["scaled_mae"] = float(np.mean(np.abs(scaled)))
    return {name: finite(value) for name, value in figures.items()}


def finite(value: float | None) -> float | None:
    """The number, or None where JSON has none for it."""
    return None if value is None or not math.isfinite(value) else float(value)


def smape(truth: Floats, predicted: Floats) -> float:
    """Symmetric mean absolute percentage error: mean(200 |y - p| / (|y| + |p|)), 0 to 200 percent.

    0 where both are 0. Makridakis, International Journal of Forecasting 9 (1993), as the M3
    and M4 competitions took it.
    """
    size = np.abs(truth) + np.abs(predicted)
    ratio = np.divide(np.abs(predicted - truth), size, out=np.zeros_like(size), where=size > 0)
    return float(200 * np.mean(ratio))


def mase(truth: Floats, predicted: Floats, naive_mae: Floats) -> float:
    """Mean absolute scaled error: MAE / in-sample MAE of the naive forecast, averaged over targets.

    Hyndman and Koehler, International Journal of Forecasting 22 (2006). `naive_mae` (targets,) is
    what in_sample_naive_mae gives; none may be 0.
    """
    return float(np.mean(np.abs(predicted - truth) / naive_mae))


def in_sample_naive_mae(targets: Floats, segments: Sequence[Segment], period: int) -> Floats:
    """mean(|y[t] - y[t - period]|) over the segments of the training part: (targets,).

    `targets` is (time, targets). No difference reaches out of its segment; NaN where all are too
    short for one.
    """
    gaps = [
        np.abs(targets[s.first + period : s.end] - targets[s.first : s.end - period])
        for s in segments
        if s.end - s.first > period
    ]
    if not gaps:
        return np.full(targets.shape[1], np.nan)
    mean: Floats = np.concatenate(gaps).mean(0)
    return mean


def accuracy(truth: Floats, predicted: Floats, floor: float) -> float:
    """1 - mean(|y - p| / (|y| + floor)) of scaled values: 1 is perfect, below 0 is possible."""
    return float(1 - np.mean(np.abs(predicted - truth) / (np.abs(truth) + floor)))


def pinball(truth: Floats, predicted: Floats, quantiles: Sequence[float]) -> float:
    """Mean over quantiles q of max(q (y - p), (q - 1) (y - p)), in the series' own unit.

    `truth` (...), `predicted` (..., quantiles). Koenker and Bassett, Econometrica 46 (1978).
    """
    gap = truth[..., None] - predicted
    q = np.asarray(quantiles)
    return float(np.mean(np.maximum(q * gap, (q - 1) * gap)))


def coverage(truth: Floats, predicted: Floats) -> float:
    """The share of the truth between the outermost quantiles, ends included.

    `truth` (...), `predicted` (..., quantiles).
    """
    inside = (truth >= predicted[..., 0]) & (truth <= predicted[..., -1])
    return float(np.mean(inside))

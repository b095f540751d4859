"""Two pictures of a run: the losses, and the forecast against the truth on the test part.

Figure objects only: pyplot would keep every figure in global state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fastlstm.train.series import Series

Floats: TypeAlias = NDArray[np.float64]

# Okabe and Ito's colours, told apart by every eye.
_TRUTH, _FORECAST, _NAIVE = "#222222", "#D55E00", "#0072B2"
_DPI = 150
# Beyond so many steps a line is a smear: the last ones are shown.
_MOST_STEPS = 400


def plot_loss(history: Sequence[dict[str, float]], path: Path, title: str, loss: str) -> None:
    """Training and validation loss by epoch, with the best epoch marked."""
    figure, axes = _figure(1)
    ax = axes[0]
    epochs = [row["epoch"] for row in history]
    validation = [row["validation_loss"] for row in history]
    ax.plot(epochs, [row["train_loss"] for row in history], color=_NAIVE, label="training")
    ax.plot(epochs, validation, color=_FORECAST, label="validation")
    best = int(np.argmin(validation))
    ax.plot(
        epochs[best],
        validation[best],
        "o",
        color=_FORECAST,
        markeredgecolor="white",
        label=f"best: {validation[best]:.3g} in epoch {epochs[best]}",
    )
    ax.set_yscale("log")
    ax.set_xlabel("epoch")
    ax.set_ylabel(f"loss ({loss.upper()} of the scaled series)")
    ax.set_title(f"{title}: training", loc="left")
    ax.legend(frameon=False)
    figure.savefig(path, dpi=_DPI)


def plot_forecast(
    series: Series,
    predicted: Floats,
    first: int,
    horizon: int,
    figures: dict[str, Any],
    path: Path,
) -> None:
    """Forecast and truth over the test part, and below them both errors, ours and the naive one."""
    begin = max(first, len(series) - _MOST_STEPS)
    time, truth = series.time[begin:], series.targets[begin:, 0]
    before = slice(begin - horizon, len(series) - horizon)
    forecast, naive = predicted[before, 0], series.targets[before, 0]
    figure, (above, below) = _figure(2)
    above.plot(time, truth, color=_TRUTH, linewidth=1.4, label="truth")
    above.plot(
        time,
        forecast,
        color=_FORECAST,
        linewidth=1.1,
        label=f"forecast, {horizon} step{'s' * (horizon > 1)} ahead (RMSE {figures['rmse']:.3g})",
    )
    above.set_ylabel(series.unit or series.target_columns[0])
    _legend(above)
    ratio = "" if figures["ratio"] is None else f", {figures['ratio']:.2f} of the naive RMSE"
    above.set_title(f"{series.name}: held-out test part{ratio}", loc="left", pad=26)
    below.axhline(0, color=_TRUTH, linewidth=0.6)
    below.plot(
        time,
        naive - truth,
        color=_NAIVE,
        linewidth=0.9,
        alpha=0.8,
        label=f"naive last value (RMSE {figures['naive_rmse']:.3g})",
    )
    below.plot(time, forecast - truth, color=_FORECAST, linewidth=0.9, label="forecast")
    below.set_ylabel("error" + (f" ({series.unit})" if series.unit else ""))
    below.set_xlabel(series.time_name)
    _legend(below)
    figure.savefig(path, dpi=_DPI)


def _legend(ax: Any) -> None:
    """A legend above the axes, where no line can run through it."""
    ax.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


def _figure(rows: int) -> tuple[Figure, list[Any]]:
    """A figure with `rows` axes, one above the other; the first is the tallest."""
    figure = Figure(figsize=(8, 3.2 + 1.6 * rows), layout="constrained")
    ratios = [2] + [1] * (rows - 1)
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, linewidth=0.6)
    return figure, list(axes)

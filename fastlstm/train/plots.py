"""The pictures of a run: losses, forecasts against the truth, errors by horizon, variants.

Figure objects only: pyplot would keep every figure in global state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fastlstm.train.baselines import begins, last_known, seasonal_naive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fastlstm.train.baselines import LinearMap
    from fastlstm.train.evaluation import Forecasts
    from fastlstm.train.series import Series

Floats: TypeAlias = NDArray[np.float64]

# Okabe and Ito's colours, told apart by every eye.
_TRUTH, _FORECAST, _NAIVE = "#222222", "#D55E00", "#0072B2"
_SEASONAL, _LINEAR = "#009E73", "#CC79A7"
_OTHERS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
_DPI = 150
# Beyond so many steps a line is a smear: the last ones are shown.
_MOST_STEPS = 400
# Of many sequences so many are shown, or so many single forecasts.
_MOST_SEQUENCES, _MOST_DOTS = 4, 60
_FANS = 3


def plot_loss(history: Sequence[Mapping[str, float]], path: Path, title: str, loss: str) -> Figure:
    """Training and validation loss by epoch, the best epoch marked; below, what else was watched.

    `history` has rows of epoch, train_loss, validation_loss and where they were watched accuracy,
    closed_loop_near and closed_loop_all; the best row is the one of the least `monitored`, or of
    the least validation loss.
    """
    watched = [
        (names, label)
        for names, label in (
            (("accuracy",), "accuracy"),
            (("closed_loop_near", "closed_loop_all"), "closed-loop RMSE"),
        )
        if all(name in history[0] for name in names)
    ]
    figure, axes = _figure(1 + len(watched))
    epochs = [row["epoch"] for row in history]
    best = int(np.argmin([row.get("monitored", row["validation_loss"]) for row in history]))
    # A line of one point would not be seen.
    marker = "o" if len(history) == 1 else ""
    lines = [
        (axes[0], "train_loss", _NAIVE, "training"),
        (axes[0], "validation_loss", _FORECAST, "validation"),
    ]
    for ax, (names, label) in zip(axes[1:], watched, strict=True):
        ax.set_ylabel(label)
        for name, colour in zip(names, (_FORECAST, _NAIVE), strict=False):
            lines.append((ax, name, colour, name.replace("closed_loop_", "").replace("_", " ")))
    for ax, name, colour, label in lines:
        ax.plot(epochs, [row[name] for row in history], marker=marker, color=colour, label=label)
    value = history[best]["validation_loss"]
    axes[0].plot(
        epochs[best],
        value,
        "o",
        color=_FORECAST,
        markeredgecolor="white",
        label=f"best: {value:.3g} in epoch {epochs[best]}",
    )
    for ax in axes:
        # Of a loss that reaches 0 there is no logarithm.
        if all(np.all(line.get_ydata() > 0) for line in ax.lines) and "accuracy" not in {
            line.get_label() for line in ax.lines
        }:
            ax.set_yscale("log")
        if len(ax.lines) > 1:
            _legend(ax, columns=3)
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel(f"loss ({_loss_label(loss)} of the scaled series)")
    axes[0].set_title(f"{title}: training", loc="left", pad=26)
    return _saved(figure, path)


def plot_forecast(
    series: Series, forecasts: Forecasts, figures: Mapping[str, Any], path: Path
) -> Figure:
    """Forecast and truth over the test part, and below them both errors, ours and the naive one.

    Of a direct model the first step ahead, of several targets the first, of many sequences a few;
    with quantiles a band between the outermost.
    """
    ahead = forecasts.layout.ahead[0]
    chosen, x, label, line = _shown(series, forecasts)
    there = np.maximum(chosen, 0)

    def picked(values: Floats) -> Floats:
        # A gap in the line between one sequence and the next.
        return np.where(chosen < 0, np.nan, values[there])

    truth, naive = picked(forecasts.truth[:, 0, 0]), picked(forecasts.naive[:, 0, 0])
    forecast = picked(forecasts.predicted[:, 0, 0])
    figure, (above, below) = _figure(2)
    low, high = _ends(forecasts)
    _band(above, x, picked(low), picked(high), forecasts.layout.quantiles)
    above.plot(x, truth, line, color=_TRUTH, linewidth=1.4, label="truth")
    own = float(np.sqrt(np.mean((forecasts.predicted - forecasts.truth)[:, 0, 0] ** 2)))
    theirs = float(np.sqrt(np.mean((forecasts.naive - forecasts.truth)[:, 0, 0] ** 2)))
    where = f"{ahead} step{'s' * (ahead > 1)} ahead" if ahead else "of the same step"
    above.plot(
        x,
        forecast,
        line,
        color=_FORECAST,
        linewidth=1.1,
        label=f"forecast, {where} (RMSE {own:.3g})",
    )
    above.set_ylabel(_value_label(series))
    _legend(above, columns=3)
    ratio = figures.get("ratio")
    said = "" if ratio is None else f", {ratio:.2f} of the naive RMSE"
    part = ": held-out test part" if figures.get("part") == "test" else ""
    above.set_title(f"{series.name}{part}{said}", loc="left", pad=26)
    below.axhline(0, color=_TRUTH, linewidth=0.6)
    below.plot(
        x,
        naive - truth,
        line,
        color=_NAIVE,
        linewidth=0.9,
        alpha=0.8,
        label=f"naive last value (RMSE {theirs:.3g})",
    )
    below.plot(x, forecast - truth, line, color=_FORECAST, linewidth=0.9, label="forecast")
    below.set_ylabel("error" + (f" ({series.unit})" if series.unit else ""))
    below.set_xlabel(label)
    date_axis(below, x)
    _legend(below)
    return _saved(figure, path)


def plot_fan(series: Series, forecasts: Forecasts, path: Path) -> Figure:
    """The whole forecast at a few origins, what came before and after, and bands of quantiles."""
    steps = len(forecasts.layout.ahead)
    picks = np.unique(np.linspace(0, len(forecasts.rows) - 1, _FANS).round().astype(int))
    figure, axes = _figure(len(picks), share=False, tallest=1)
    low, high = (
        forecasts.all_quantiles[:, :, 0, 0],
        forecasts.all_quantiles[:, :, 0, -1],
    )
    first = begins(series, forecasts.rows)
    for ax, k in zip(axes, picks, strict=True):
        row = int(last_known(forecasts.rows[k : k + 1], forecasts.layout.ahead)[0])
        before = slice(max(int(first[k]), row + 1 - 2 * steps), row + 1)
        after = forecasts.rows[k] + np.asarray(forecasts.layout.ahead)
        ax.axvline(series.time[row], color=_TRUTH, linewidth=0.6, linestyle=":")
        _band(ax, series.time[after], low[k], high[k], forecasts.layout.quantiles)
        known = np.append(np.arange(before.start, before.stop), after)
        ax.plot(
            series.time[known], series.targets[known, 0], color=_TRUTH, linewidth=1.2, label="truth"
        )
        ax.plot(
            np.append(series.time[row : row + 1], series.time[after]),
            np.append(series.targets[row, 0], forecasts.predicted[k, :, 0]),
            color=_FORECAST,
            linewidth=1.2,
            label=f"forecast, {steps} steps",
        )
        ax.set_ylabel(_value_label(series))
        date_axis(ax, series.time)
    axes[0].set_title(f"{series.name}: forecasts from {len(picks)} origins", loc="left", pad=26)
    _legend(axes[0], columns=3)
    axes[-1].set_xlabel(series.time_name)
    return _saved(figure, path)


def plot_horizon(
    series: Series,
    forecasts: Forecasts,
    path: Path,
    period: int = 0,
    linear: LinearMap | None = None,
) -> Figure:
    """RMSE by step ahead: the model, the last value, with a period the season, the linear map."""
    ahead, rows = forecasts.layout.ahead, forecasts.rows
    lines = [
        ("forecast", forecasts.predicted, _FORECAST, 1.8),
        ("last value", forecasts.naive, _NAIVE, 1.1),
    ]
    if period:
        seasonal = seasonal_naive(series, rows, ahead, period)
        lines.append((f"value {period} steps ago", seasonal, _SEASONAL, 1.1))
    if linear is not None:
        lines.append(("linear map", linear.predict(series, rows), _LINEAR, 1.1))
    figure, (ax,) = _figure(1)
    for label, values, colour, width in lines:
        rmse = np.sqrt(((values - forecasts.truth) ** 2).mean((0, 2)))
        marker = "o" if len(ahead) == 1 else ""
        ax.plot(ahead, rmse, marker=marker, color=colour, linewidth=width, label=label)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("steps ahead")
    ax.set_ylabel("RMSE" + (f" ({series.unit})" if series.unit else ""))
    ax.set_title(f"{series.name}: error over {len(rows)} origins", loc="left", pad=26)
    _legend(ax, columns=4)
    return _saved(figure, path)


def plot_closed_loop(truth: Floats, forecast: Floats, path: Path, title: str) -> Figure:
    """Forecasts that feed on themselves against what came: (sequences, steps) each, a few shown."""
    count = min(len(truth), _FANS)
    figure, axes = _figure(count, tallest=1)
    steps = np.arange(1, truth.shape[1] + 1)
    for k, ax in enumerate(axes):
        rmse = float(np.sqrt(np.mean((forecast[k] - truth[k]) ** 2)))
        ax.plot(steps, truth[k], color=_TRUTH, linewidth=1.4, label="truth")
        ax.plot(
            steps, forecast[k], color=_FORECAST, linewidth=1.2, label=f"forecast (RMSE {rmse:.3g})"
        )
        _legend(ax)
    axes[0].set_title(title, loc="left", pad=26)
    axes[-1].set_xlabel("steps after the end")
    return _saved(figure, path, dpi=100)


def plot_variants(
    title: str,
    metric: str,
    values: Mapping[str, float | None],
    published: Mapping[str, Mapping[str, float]],
    path: Path,
) -> Figure:
    """One bar for each variant's figure of `metric`, and lines where published figures lie.

    `published` has for each variant the figures that others report, by their names.
    """
    names = list(values)
    others = list(dict.fromkeys(name for of in published.values() for name in of))
    figure = Figure(figsize=(8, 1.9 + 0.46 * len(names)), layout="constrained")
    ax = figure.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    sizes = [value if value is not None else 0.0 for value in values.values()]
    # Beside the name: at a bar's end a published line may run through the figure.
    said = ["-" if value is None else f"{value:.4g}" for value in values.values()]
    ax.barh(range(len(names)), sizes, color=_FORECAST, height=0.5)
    ax.set_yticks(range(len(names)), [f"{n}  {v}" for n, v in zip(names, said, strict=True)])
    ax.invert_yaxis()
    ax.margins(x=0.05)
    for other in others:
        at = [k for k, name in enumerate(names) if other in published.get(name, {})]
        where = [published[names[k]][other] for k in at]
        colour = _OTHERS[others.index(other) % len(_OTHERS)]
        low, high = np.array(at) - 0.4, np.array(at) + 0.4
        ax.vlines(where, low, high, color=colour, linewidth=2.2, label=other)
    rows = -(-len(others) // 4)
    if others:
        _legend(ax, columns=4)
    ax.set_xlabel(metric)
    ax.set_title(f"{title}: variants", loc="left", pad=8 + 18 * rows)
    return _saved(figure, path)


def plot_learning_rates(
    rates: Sequence[float], losses: Sequence[float], suggestion: float, path: Path, title: str
) -> Figure:
    """The loss while the learning rate rises, and the rate where it falls fastest."""
    figure, (ax,) = _figure(1)
    ax.plot(rates, losses, color=_NAIVE, linewidth=1.4)
    ax.axvline(suggestion, color=_FORECAST, linewidth=1.4, label=f"suggested: {suggestion:.2g}")
    ax.set_xscale("log")
    # One that diverges would leave nothing to see of the fall before it.
    tried = np.array(losses)[np.isfinite(losses)]
    if len(tried) and (top := 1.5 * float(np.median(tried))) < tried.max():
        ax.set_ylim(0, top)
    ax.set_xlabel("learning rate")
    ax.set_ylabel("loss")
    _legend(ax)
    ax.set_title(f"{title}: learning rates", loc="left", pad=26)
    return _saved(figure, path)


def _shown(
    series: Series, forecasts: Forecasts
) -> tuple[NDArray[np.int64], NDArray[Any], str, str]:
    """Which forecasts a picture shows (-1 is a gap), at what x, its label, and the line's style."""
    first = begins(series, forecasts.rows)
    sequences, counts = np.unique(first, return_counts=True)
    if len(sequences) == 1:
        chosen = np.arange(max(0, len(first) - _MOST_STEPS), len(first))
        at = series.time[forecasts.rows[chosen] + forecasts.layout.ahead[0]]
        return chosen, at, series.time_name, "-" if len(chosen) > 1 else "o"
    if counts.max() == 1:
        chosen = np.arange(min(len(first), _MOST_DOTS))
        return chosen, chosen + 1, f"sequence (the first {len(chosen)} of {len(first)})", "o"
    each = _MOST_STEPS // _MOST_SEQUENCES
    parts = []
    for begin in sequences[:_MOST_SEQUENCES]:
        parts += [np.flatnonzero(first == begin)[:each], np.array([-1])]
    chosen = np.concatenate(parts[:-1])
    shown = min(len(sequences), _MOST_SEQUENCES)
    label = f"step; {shown} of {len(sequences)} sequences, one after the other"
    return chosen, np.arange(len(chosen)), label, "-"


def _ends(forecasts: Forecasts) -> tuple[Floats, Floats]:
    """The outermost quantiles of the first target, one step ahead."""
    return forecasts.all_quantiles[:, 0, 0, 0], forecasts.all_quantiles[:, 0, 0, -1]


def date_axis(ax: Any, time: NDArray[Any]) -> None:
    """Dates short enough to stand side by side: what they share stands once, at the end."""
    if np.issubdtype(time.dtype, np.datetime64):
        # As Any: matplotlib's dates have no types.
        locator: Any = cast("Any", AutoDateLocator)(maxticks=9)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(cast("Any", ConciseDateFormatter)(locator))


def _band(ax: Any, x: NDArray[Any], low: Floats, high: Floats, quantiles: Sequence[float]) -> None:
    if quantiles:
        label = f"{quantiles[0]:g} to {quantiles[-1]:g}"
        ax.fill_between(x, low, high, color=_FORECAST, alpha=0.22, linewidth=0, label=label)


def _value_label(series: Series) -> str:
    one = len(series.target_columns) == 1
    return (series.unit if one else "") or series.target_columns[0]


def _loss_label(loss: str) -> str:
    return loss.upper() if loss in ("mse", "mae") else loss


def _legend(ax: Any, columns: int = 2) -> None:
    """A legend above the axes, where no line can run through it."""
    ax.legend(
        frameon=False, ncols=columns, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2
    )


def _figure(rows: int, share: bool = True, tallest: int = 2) -> tuple[Figure, list[Any]]:
    """A figure with `rows` axes, one above the other, the first so many times as tall."""
    figure = Figure(figsize=(8, 3.2 + 1.6 * rows), layout="constrained")
    ratios = [tallest] + [1] * (rows - 1)
    axes = figure.subplots(rows, 1, sharex=share, squeeze=False, height_ratios=ratios)[:, 0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, linewidth=0.6)
    return figure, list(axes)


def _saved(figure: Figure, path: Path, dpi: int = _DPI) -> Figure:
    figure.savefig(path, dpi=dpi)
    return figure

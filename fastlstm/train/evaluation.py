"""How well a model predicts a series: as a stream and from fresh windows, beside naive forecasts.

Naive means: the target will be what it last was.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm.errors import SeriesError
from fastlstm.train.baselines import last_value, seasonal_naive
from fastlstm.train.layout import Layout, input_names
from fastlstm.train.metrics import Yardstick, coverage, errors, finite, pinball
from fastlstm.train.recipe_tables import Recipe
from fastlstm.train.replay import origins, streamed, windowed
from fastlstm.train.series import Series, load_series, read_series
from fastlstm.train.split import Segment, fit_scaling, split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fastlstm.model import Model

Floats: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Forecasts:
    """What a model forecasts at some rows of a series, what came, and the naive forecast."""

    layout: Layout
    rows: Rows  # (origins,), ascending
    truth: Floats  # (origins, ahead, targets)
    naive: Floats  # (origins, ahead, targets)
    ways: Mapping[str, Floats]  # streamed, windowed: (origins, ahead, targets, quantiles)
    protocol: str  # streamed, windowed, or sequences: what the figures at the top are

    @property
    def all_quantiles(self) -> Floats:
        """What the figures at the top are of: (origins, ahead, targets, quantiles)."""
        return self.ways["windowed" if self.protocol == "windowed" else "streamed"]

    @property
    def predicted(self) -> Floats:
        """The same without quantiles, the median alone: (origins, ahead, targets)."""
        return self.all_quantiles[..., self.layout.median]


class Judged(NamedTuple):
    """A series, a model's forecasts of it, and their figures."""

    series: Series
    forecasts: Forecasts
    figures: dict[str, Any]


def make_forecasts(
    model: Model,
    series: Series,
    segments: Sequence[Segment],
    layout: Layout,
    *,
    window: int | None = None,
    loss_at: str = "every",
) -> Forecasts:
    """Run `model` over all origins of the segments; raises SeriesError where there is none.

    `window` is the length of the windows that it was trained on: 0 for whole sequences, None where
    nobody knows; then there is nothing but the stream.
    """
    rows = origins(segments, layout, only_last=window == 0 and loss_at == "last")
    if not len(rows):
        found = f"{len(series)} samples"
        if len(series.lengths) > 1:
            found += f" in {len(series.lengths)} sequences"
        raise SeriesError(
            f"{series.name}: {found} are too few to evaluate a model that predicts "
            f"{layout.ahead[-1]} ahead: give a longer series"
        )
    ways = {"streamed": streamed(model, series, layout, rows)}
    if window:
        ways["windowed"] = windowed(model, series, layout, rows, window)
    protocol = "sequences" if window == 0 else "streamed"
    if window and loss_at == "last":
        protocol = "windowed"
    truth = series.targets[rows[:, None] + np.asarray(layout.ahead)]
    return Forecasts(layout, rows, truth, last_value(series, rows, layout.ahead), ways, protocol)


def describe(forecasts: Forecasts, series: Series, yardstick: Yardstick) -> dict[str, Any]:
    """All figures of a model's forecasts, without those of the baselines; see metrics.py."""
    truth, predicted, naive = forecasts.truth, forecasts.predicted, forecasts.naive
    figures: dict[str, Any] = {
        "series": series.name,
        "unit": series.unit,
        "steps": len(forecasts.rows),
        "protocol": forecasts.protocol,
        **_beside(truth, predicted, naive, yardstick),
    }
    if len(series.target_columns) > 1:
        figures["columns"] = {}
        for k, name in enumerate(series.target_columns):
            one = slice(k, k + 1)
            figures["columns"][name] = _beside(
                truth[..., one], predicted[..., one], naive[..., one], yardstick.column(k)
            )
    if forecasts.protocol != "sequences":
        for way, values in forecasts.ways.items():
            figures[way] = errors(truth, values[..., forecasts.layout.median], yardstick)
    if quantiles := forecasts.layout.quantiles:
        figures["pinball"] = finite(pinball(truth, forecasts.all_quantiles, quantiles))
        figures["coverage"] = coverage(truth, forecasts.all_quantiles)
        figures["coverage_nominal"] = round(quantiles[-1] - quantiles[0], 12)
    if len(forecasts.layout.ahead) > 1:
        figures["by_horizon"] = by_horizon(forecasts.layout.ahead, truth, predicted, naive)
    return figures


def naive_figures(
    forecasts: Forecasts, series: Series, yardstick: Yardstick, period: int
) -> dict[str, dict[str, float | None]]:
    """The figures of the last value and, with a `period`, of the seasonal naive forecast."""
    found = {"last value": errors(forecasts.truth, forecasts.naive, yardstick)}
    if period:
        seasonal = seasonal_naive(series, forecasts.rows, forecasts.layout.ahead, period)
        found["seasonal naive"] = errors(forecasts.truth, seasonal, yardstick)
    return found


def by_horizon(
    ahead: Sequence[int], truth: Floats, predicted: Floats, naive: Floats
) -> list[dict[str, Any]]:
    """RMSE, MAE and the naive RMSE at each step ahead, over all origins and targets."""
    ours, theirs = predicted - truth, naive - truth
    axes = (0, 2)
    rmse, mae = np.sqrt((ours**2).mean(axes)), np.abs(ours).mean(axes)
    naive_rmse = np.sqrt((theirs**2).mean(axes))
    return [
        {"ahead": k, "rmse": finite(a), "mae": finite(b), "naive_rmse": finite(c)}
        for k, a, b, c in zip(ahead, rmse, mae, naive_rmse, strict=True)
    ]


def evaluate(
    model: Model,
    source: Recipe | Series | str | Path,
    columns: Sequence[str] | None = None,
    *,
    period: int | None = None,
) -> dict[str, Any]:
    """Run a series through `model` and measure its errors, beside naive forecasts.

    With a Recipe the figures are those of its test part, after all that comes before; with a Series
    or a file, those of the whole of it. `columns` are the ones to read from a file, by default
    those that the model was trained on; `period` is the season of the seasonal naive forecast, by
    default the one of the recipe that trained the model.

    The figures at the top are those of one stream through each sequence or, of a model trained on
    the last step of windows, of fresh windows before each forecast; `streamed` and `windowed` hold
    both where a model was trained on windows. Beside rmse, mae, naive_rmse, naive_mae and ratio
    there are those of metrics.errors and `baselines`; what takes the training part's measures and
    cannot be told without is None. Raises SeriesError where sizes do not fit.
    """
    return judge(model, source, columns, period=period).figures


def judge(
    model: Model,
    source: Recipe | Series | str | Path,
    columns: Sequence[str] | None = None,
    *,
    period: int | None = None,
) -> Judged:
    """As `evaluate`, with the series and the forecasts that the figures are of."""
    known = model.metadata
    layout = Layout.of_metadata(known, model.output_size)
    yardstick = Yardstick.of_metadata(known)
    if period is None:
        period = int(known.get("period", 0))
    if isinstance(source, Recipe):
        series = load_series(source.series)
        parts = split(series, source)
        segments: Sequence[Segment] = parts.test
        scaling = fit_scaling(series, parts, source.series)
        table = source.evaluation
        yardstick = Yardstick.of_training(
            series, parts.train, scaling, table.period, table.accuracy_floor
        )
        period = period or table.period
    else:
        series = source if isinstance(source, Series) else read_for(model, source, columns)
        segments = whole(series, layout)
    check_sizes(model, series, layout)
    window, loss_at = known.get("window"), known.get("loss_at", "every")
    forecasts = make_forecasts(model, series, segments, layout, window=window, loss_at=loss_at)
    figures = describe(forecasts, series, yardstick)
    figures["baselines"] = naive_figures(forecasts, series, yardstick, period)
    return Judged(series, forecasts, figures)


def read_for(
    model: Model,
    path: str | Path,
    columns: Sequence[str] | None = None,
    *,
    time: str | None = None,
    sequence: str | None = None,
    lines: bool = False,
) -> Series:
    """Read a file for a model: the columns asked for or, without any, those that it names.

    `time` and `sequence` name the columns of those, `lines` reads one sequence a line. Raises
    SeriesError where a column is not there.
    """
    known = model.metadata
    layout = Layout.of_metadata(known, model.output_size)
    ahead = tuple(known.get("known_columns", ()))
    if lines:
        return read_series(path, layout="lines", time=time, sequence=sequence)
    inputs, targets = columns or known.get("input_columns"), known.get("target_columns")
    if columns and (len(columns) == layout.targets or targets is None):
        # The columns asked for are also what is predicted, unless the model says otherwise.
        targets = None
    return read_series(
        path, inputs=inputs, targets=targets, known=ahead, time=time, sequence=sequence
    )


def whole(series: Series, layout: Layout) -> tuple[Segment, ...]:
    """All of a series, a segment for each sequence: every forecast that can be made counts."""
    starts = np.concatenate([[0], np.cumsum(series.lengths)]).tolist()
    late = layout.ahead[0]
    return tuple(
        Segment(begin, min(begin + late, end), end) for begin, end in itertools.pairwise(starts)
    )


def check_sizes(model: Model, series: Series, layout: Layout) -> None:
    """Raise SeriesError where a series does not have the columns that a model reads or predicts."""
    names = input_names(series, layout)
    if len(names) != model.input_size:
        wanted = model.metadata.get("known_columns")
        if wanted and not series.known_columns:
            raise SeriesError(
                f"{series.name}: the model reads {', '.join(wanted)} ahead of time, and this "
                "series does not say which columns those are: name them as known ahead"
            )
        raise SeriesError(
            f"{series.name}: the model reads {_columns(model.input_size)}, found {len(names)} "
            f"({_shown(names)}): name as many with --column"
        )
    if len(series.target_columns) != layout.targets or layout.size != model.output_size:
        raise SeriesError(
            f"{series.name}: the model predicts {_columns(layout.targets)}, found "
            f"{len(series.target_columns)} ({_shown(series.target_columns)}): name as many with "
            "--column"
        )


def _columns(count: int) -> str:
    return f"{count} column{'s' * (count > 1)}"


def _shown(names: Sequence[str]) -> str:
    """A direct forecast with columns known ahead has hundreds of inputs."""
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _beside(
    truth: Floats, predicted: Floats, naive: Floats, yardstick: Yardstick
) -> dict[str, float | None]:
    """The model's figures, the naive RMSE and MAE, and the ratio of both RMSEs."""
    ours, theirs = (errors(truth, values, yardstick) for values in (predicted, naive))
    rmse, naive_rmse = ours["rmse"], theirs["rmse"]
    return {
        **ours,
        "naive_rmse": naive_rmse,
        "naive_mae": theirs["mae"],
        # Of a series that never moves the last value is a perfect guess.
        "ratio": rmse / naive_rmse if rmse is not None and naive_rmse else None,
    }

"""Forecasts from many origins, as they would have been made then: the rolling-origin backtest.

Tashman, International Journal of Forecasting 16 (2000). The model is not trained again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from fastlstm.errors import SeriesError
from fastlstm.train.baselines import begins, last_value
from fastlstm.train.evaluation import Forecasts, check_sizes, describe, naive_figures, whole
from fastlstm.train.layout import Layout
from fastlstm.train.metrics import Yardstick
from fastlstm.train.replay import origins as all_origins
from fastlstm.train.replay import (
    run_windows,
    samples,
    states_at,
    streamed,
    twin,
    windowed,
    windows_at_once,
)
from fastlstm.train.split import Segment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from fastlstm.model import Model
    from fastlstm.train.cells import States
    from fastlstm.train.series import Series

Floats: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.int64]

# About so many origins where nobody says how far apart they lie.
MANY = 200


def backtest(
    model: Model,
    series: Series,
    origins: int = 0,
    steps: int = 0,
    *,
    period: int | None = None,
    segments: Sequence[Segment] | None = None,
    yardstick: Yardstick | None = None,
) -> dict[str, Any]:
    """Forecast `steps` ahead at every `origins`-th row, and hold that against what came.

    At each origin the model knows the stream up to there, or its last window if it was trained on
    the last step of windows; then come a direct model's own outputs, or each forecast of a one-step
    model is its next input (the median, where it puts out quantiles). Columns known ahead go in as
    they are. The figures are those of metrics.errors, overall and `by_horizon`, beside `baselines`;
    `origins_every` says how many rows lie between two origins.

    `origins` 0 takes about 200 of them, `steps` 0 as many as the model looks ahead; `period` is the
    season of the seasonal naive forecast, by default what the model was trained with. `segments`
    are where the forecasts must lie, by default all of the series but the first window or season.
    Raises SeriesError where the model cannot look so far, or the series does not reach.
    """
    if period is None:
        period = int(model.metadata.get("period", 0))
    forecasts = roll(model, series, origins, steps, period=period, segments=segments)
    yardstick = yardstick or Yardstick.of_metadata(model.metadata)
    return described(forecasts, series, yardstick, period)


def described(
    forecasts: Forecasts, series: Series, yardstick: Yardstick, period: int
) -> dict[str, Any]:
    """The figures of a backtest that `roll` has made."""
    figures = describe(forecasts, series, yardstick)
    if "by_horizon" not in figures:
        figures["by_horizon"] = [
            {"ahead": 1, **{key: figures[key] for key in ("rmse", "mae", "naive_rmse")}}
        ]
    for way in forecasts.ways:
        figures.pop(way, None)
    gaps = np.diff(forecasts.rows)
    return {
        **figures,
        "ahead": len(forecasts.layout.ahead),
        "origins_every": int(gaps.min()) if len(gaps) else 0,
        "baselines": naive_figures(forecasts, series, yardstick, period),
    }


def obstacle(layout: Layout, series: Series, steps: int) -> str | None:
    """Why a model of this layout cannot forecast `steps` of this series, or None where it can."""
    if layout.direct:
        if steps > layout.horizon:
            return (
                f"expected at most {layout.horizon} steps, as many as the model forecasts at once, "
                f"found {steps}: ask for fewer, or train with a larger windows.horizon"
            )
        return None
    if layout.horizon != 1:
        return (
            f"expected a model that predicts the next step, found one that predicts "
            f"{layout.horizon} ahead: its outputs cannot be its next inputs; train with "
            "windows.horizon 1 or windows.direct"
        )
    missing = [name for name in series.input_columns if name not in series.target_columns]
    if steps > 1 and missing:
        return (
            f"expected a model that predicts what it reads, found one that reads "
            f"{', '.join(missing)} without predicting {'it' if len(missing) == 1 else 'them'}: "
            "train with these as targets too, or with windows.direct"
        )
    return None


def roll(
    model: Model,
    series: Series,
    origins: int = 0,
    steps: int = 0,
    *,
    period: int = 0,
    segments: Sequence[Segment] | None = None,
) -> Forecasts:
    """The forecasts of a backtest and the truth, as those of a direct model; see backtest."""
    known = model.metadata
    layout = Layout.of_metadata(known, model.output_size)
    check_sizes(model, series, layout)
    steps = steps or len(layout.ahead)
    if steps < 1 or origins < 0:
        raise SeriesError(
            f"backtest: expected at least 1 step and 0 origins, found {steps} and {origins}"
        )
    if (reason := obstacle(layout, series, steps)) is not None:
        raise SeriesError(f"backtest: {reason}")
    window = int(known.get("window") or 0) if known.get("loss_at") == "last" else 0
    far = Layout(steps, True, layout.targets, layout.quantiles)
    # A direct model's outputs reach to its horizon, and what it knows ahead with them.
    reach = Layout(max(steps, layout.horizon), True) if series.known is not None else far
    if segments is None:
        settled = max(int(known.get("window") or 0), period, 1)
        segments = [Segment(s.begin, s.begin + settled, s.end) for s in whole(series, far)]
    rows = all_origins(segments, reach)
    if not len(rows):
        room = max((s.end - s.first for s in segments), default=0)
        raise SeriesError(
            f"{series.name}: backtest: expected at least {reach.horizon} samples after the first "
            f"origin, found {max(room, 0)}: give a longer series or forecast fewer steps"
        )
    whole_windows = rows - begins(series, rows) + 1 >= window
    rows = rows[whole_windows] if whole_windows.any() else rows
    rows = rows[:: origins or -(-len(rows) // MANY)]
    if layout.direct:
        values = (
            windowed(model, series, layout, rows, window)
            if window
            else streamed(model, series, layout, rows)
        )[:, :steps]
    else:
        values = _closed_loop(model, series, layout, rows, steps, window)
    truth = series.targets[rows[:, None] + np.arange(1, steps + 1)]
    naive = last_value(series, rows, far.ahead)
    way = "windowed" if window else "streamed"
    return Forecasts(far, rows, truth, naive, {way: values}, way)


def _closed_loop(
    model: Model, series: Series, layout: Layout, rows: Rows, steps: int, window: int
) -> Floats:
    """All origins side by side, each forecast the next input: (origins, steps, targets, Q)."""
    network, x = twin(model), samples(series, layout)
    order = [series.target_columns.index(name) for name in series.input_columns if steps > 1]
    shortest = int((rows - begins(series, rows)).min()) + 1

    def begun() -> Iterator[tuple[Rows, Tensor, States]]:
        """Groups of origins, the output and the state there."""
        if not window:
            yield rows, *states_at(network, x, series, rows)
            return
        at_once = windows_at_once(model, window)
        for k in range(0, len(rows), at_once):
            some = rows[k : k + at_once]
            yield some, *run_windows(network, x, some, min(window, shortest))

    found = []
    with torch.inference_mode():
        for some, y, state in begun():
            values = [y]
            for k in range(1, steps):
                fed = values[-1].reshape(len(some), *layout.shape)[:, 0, order, layout.median]
                if series.known is not None:
                    ahead = torch.from_numpy(series.known[some + k + 1].astype(np.float32))
                    fed = torch.cat([fed, ahead.double()], 1)
                out, state = network(fed[:, None], state)
                values.append(out[:, 0])
            found.append(torch.stack(values, 1))
    return torch.cat(found).numpy().reshape(len(rows), steps, *layout.shape[1:])

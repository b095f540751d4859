"""What `fastlstm forecast` makes of a series: its continuation, as CSV and as a picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from fastlstm.model import Model
    from fastlstm.train.layout import Layout
    from fastlstm.train.series import Series

# The last stretch of the known series that a picture shows, in lengths of the forecast.
SHOWN = 5


@dataclass(frozen=True, eq=False)
class Continuation:
    """A series and what a model takes to follow it."""

    series: Series
    values: NDArray[np.float32]  # (steps, targets, quantiles), one quantile where there are none
    time: NDArray[Any]  # (steps,)
    time_name: str
    quantiles: tuple[float, ...] = ()

    def csv(self) -> str:
        """A header, and one line a step: its time, then each column, its quantiles side by side."""
        names = self.series.target_columns
        if self.quantiles:
            names = tuple(f"{name} q{q:g}" for name in names for q in self.quantiles)
        times, rows = clock_text(self.time), self.values.reshape(len(self.time), -1)
        lines = [",".join((self.time_name, *names))]
        lines += [",".join((time, *map(str, row))) for time, row in zip(times, rows, strict=True)]
        return "\n".join(lines) + "\n"

    def plot(self, path: Path) -> None:
        """The end of the series and the forecast after it, one pair of axes for each column."""
        from matplotlib.figure import Figure

        from fastlstm.train.plots import date_axis

        known = slice(-SHOWN * len(self.values), None)
        columns = self.series.target_columns
        median = self.quantiles.index(0.5) if self.quantiles else 0
        figure = Figure(figsize=(8, 1.2 + 2.4 * len(columns)), layout="constrained")
        axes = figure.subplots(len(columns), 1, sharex=True, squeeze=False)[:, 0]
        for k, (ax, column) in enumerate(zip(axes, columns, strict=True)):
            # On even time the forecast's line begins at the last known value.
            past, value = self.series.time[known], self.series.targets[known, k]
            if self.time_name != self.series.time_name:
                past = np.arange(1 - len(value), 1)
            ax.plot(past, value, color="#222222", linewidth=1.2, label="known")
            if self.quantiles:
                ax.fill_between(
                    self.time,
                    self.values[:, k, 0],
                    self.values[:, k, -1],
                    color="#D55E00",
                    alpha=0.22,
                    linewidth=0,
                    label=f"{self.quantiles[0]:g} to {self.quantiles[-1]:g}",
                )
            ax.plot(
                np.append(past[-1:], self.time),
                np.append(value[-1:], self.values[:, k, median]),
                color="#D55E00",
                linewidth=1.2,
                label=f"forecast, {len(self.values)} steps",
            )
            ax.set_ylabel(column)
            ax.spines[["top", "right"]].set_visible(False)
        axes[0].legend(frameon=False)
        axes[-1].set_xlabel(self.time_name)
        date_axis(axes[-1], self.time)
        figure.savefig(path, dpi=150)


def clock_text(time: NDArray[Any]) -> NDArray[np.str_]:
    """Times as a CSV file holds them: numbers as they are, dates no finer than they need."""
    if np.issubdtype(time.dtype, np.datetime64):
        return np.datetime_as_string(time, unit="auto")
    return time.astype(str)


def read(
    model: Model,
    path: Path,
    columns: Sequence[str] | None,
    time: str | None,
    sequence: str | None = None,
    lines: bool = False,
) -> Series:
    """The columns that were asked for or, without any, those that the model was trained on."""
    import fastlstm.train  # noqa: F401 - says which extra is missing, where one is
    from fastlstm.train.evaluation import read_for

    return read_for(model, path, columns, time=time, sequence=sequence, lines=lines)


def carry_on(model: Model, series: Series, steps: int, known: Path | None = None) -> Continuation:
    """Stream the series in and forecast `steps`: a direct model at once, others fed back.

    A model that was trained on the last step of windows takes the last window only. `known` is a
    file of the rows to come of the columns known ahead. Of quantiles the median is fed back. Raises
    InputError or SeriesError before anything runs, where sizes do not fit.
    """
    from fastlstm.train.backtest import obstacle
    from fastlstm.train.evaluation import check_sizes
    from fastlstm.train.layout import Layout

    layout = Layout.of_metadata(model.metadata, model.output_size)
    check_sizes(model, series, layout)
    if (reason := obstacle(layout, series, steps)) is not None:
        raise InputError(f"forecast: {reason}")
    if len(series.lengths) > 1:
        raise InputError(
            f"forecast: expected one sequence to go on from, found {len(series.lengths)}: give a "
            "file that holds one"
        )
    x = _inputs(series, layout, steps, known)
    begin = 0
    if model.metadata.get("loss_at") == "last":
        begin = max(0, len(series) - int(model.metadata.get("window") or len(series)))
    stream = model.stream()
    stream.run(x[begin : len(series)])
    # After the last known sample the output already is the first step of the forecast.
    outputs = [stream.output.copy()]
    same = series.target_columns == series.input_columns and not layout.quantiles
    if not layout.direct and same and series.known is None:
        outputs += list(stream.forecast(steps - 1))
    elif not layout.direct:
        order = [series.target_columns.index(name) for name in series.input_columns if steps > 1]
        for k in range(1, steps):
            fed = outputs[-1].reshape(layout.shape)[0, order, layout.median]
            ahead = x[len(series) - 1 + k, len(order) :]
            outputs.append(stream.step(np.concatenate([fed, ahead])))
    values = np.concatenate([y.reshape(layout.shape) for y in outputs])[:steps]
    return Continuation(series, values, *_times(series, steps), layout.quantiles)


def _inputs(series: Series, layout: Layout, steps: int, known: Path | None) -> NDArray[np.float64]:
    """What goes in at each step, those after the end included where columns are known there."""
    from fastlstm.train.layout import network_inputs
    from fastlstm.train.series import read_series

    names = series.known_columns
    if not names or series.known is None:
        if known is not None:
            raise InputError(
                "forecast: --known is for models with columns known ahead of time, and this one "
                "has none: leave it out"
            )
        return series.inputs
    needed = layout.horizon if layout.direct else steps
    rows = f"the next {needed} row{'s' * (needed > 1)} of {', '.join(names)}"
    if known is None:
        raise InputError(
            f"forecast: this model reads {rows} ahead of time: give a file with them, --known FILE"
        )
    future = read_series(known, inputs=names).inputs
    if len(future) < needed:
        raise InputError(
            f"forecast: {known}: expected {rows}, found {len(future)}: add what is missing"
        )
    empty = np.full((needed, 1), np.nan)
    longer = replace(
        series,
        inputs=np.concatenate([series.inputs, empty.repeat(series.inputs.shape[1], 1)]),
        targets=np.concatenate([series.targets, empty.repeat(series.targets.shape[1], 1)]),
        known=np.concatenate([series.known, future[:needed]]),
        time=np.arange(len(series) + needed),
        lengths=(len(series) + needed,),
    )
    return network_inputs(longer, layout)


def _times(series: Series, steps: int) -> tuple[NDArray[Any], str]:
    """The times that follow: on an even clock that clock goes on, otherwise steps are counted."""
    gaps = np.diff(series.time)
    ahead = np.arange(1, steps + 1)
    if len(gaps) and (gaps == gaps[0]).all():
        return series.time[-1] + ahead * gaps[0], series.time_name
    return ahead, "steps ahead"

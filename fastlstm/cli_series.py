"""What `fastlstm forecast` makes of a series: its continuation, as CSV and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from fastlstm.model import Model
    from fastlstm.train.series import Series

# The last stretch of the known series that a picture shows, in lengths of the forecast.
SHOWN = 5


@dataclass(frozen=True, eq=False)
class Continuation:
    """A series and what a model takes to follow it."""

    series: Series
    values: NDArray[np.float32]  # (steps, columns)
    time: NDArray[Any]  # (steps,)
    time_name: str

    def csv(self) -> str:
        """A header, and one line a step: its time, then each column."""
        times = clock_text(self.time)
        lines = [",".join((self.time_name, *self.series.input_columns))]
        lines += [
            ",".join((time, *map(str, row))) for time, row in zip(times, self.values, strict=True)
        ]
        return "\n".join(lines) + "\n"

    def plot(self, path: Path) -> None:
        """The end of the series and the forecast after it, one pair of axes for each column."""
        from matplotlib.figure import Figure

        known = slice(-SHOWN * len(self.values), None)
        columns = self.series.input_columns
        figure = Figure(figsize=(8, 1.2 + 2.4 * len(columns)), layout="constrained")
        axes = figure.subplots(len(columns), 1, sharex=True, squeeze=False)[:, 0]
        for k, (ax, column) in enumerate(zip(axes, columns, strict=True)):
            # On even time the forecast's line begins at the last known value.
            past, value = self.series.time[known], self.series.inputs[known, k]
            if self.time_name != self.series.time_name:
                past = np.arange(1 - len(value), 1)
            ax.plot(past, value, color="#222222", linewidth=1.2, label="known")
            ax.plot(
                np.append(past[-1:], self.time),
                np.append(value[-1:], self.values[:, k]),
                color="#D55E00",
                linewidth=1.2,
                label=f"forecast, {len(self.values)} steps",
            )
            ax.set_ylabel(column)
            ax.spines[["top", "right"]].set_visible(False)
        axes[0].legend(frameon=False)
        axes[-1].set_xlabel(self.time_name)
        figure.savefig(path, dpi=150)


def clock_text(time: NDArray[Any]) -> NDArray[np.str_]:
    """Times as a CSV file holds them: numbers as they are, dates no finer than they need."""
    if np.issubdtype(time.dtype, np.datetime64):
        return np.datetime_as_string(time, unit="auto")
    return time.astype(str)


def read(model: Model, path: Path, columns: Sequence[str] | None, time: str | None) -> Series:
    """The columns that were asked for or, without any, those that the model was trained on."""
    import fastlstm.train  # noqa: F401 - says which extra is missing, where one is
    from fastlstm.train.series import read_series

    known = model.metadata
    return read_series(
        path,
        inputs=columns or known.get("input_columns"),
        targets=None if columns else known.get("target_columns"),
        time=time,
    )


def carry_on(model: Model, series: Series, steps: int) -> Continuation:
    """Stream the whole series in, then feed `steps` predictions back; raises InputError."""
    horizon = model.metadata.get("horizon", 1)
    if horizon != 1:
        raise InputError(
            f"forecast: expected a model that predicts the next step, found one that predicts "
            f"{horizon} ahead: its outputs cannot be its next inputs; train with windows.horizon 1"
        )
    if len(series.input_columns) != model.input_size:
        raise InputError(
            f"forecast: the model reads {model.input_size} column"
            f"{'s' * (model.input_size > 1)}, found {len(series.input_columns)} "
            f"({', '.join(series.input_columns)}): name as many with --column"
        )
    if series.target_columns != series.input_columns:
        raise InputError(
            f"forecast: expected a model that predicts what it reads, found one that reads "
            f"{', '.join(series.input_columns)} and predicts {', '.join(series.target_columns)}"
        )
    stream = model.stream()
    stream.run(series.inputs)
    # After the last known sample the output already is the first step of the forecast.
    first = stream.output.copy()
    values = np.concatenate([first[np.newaxis], stream.forecast(steps - 1)])
    return Continuation(series, values, *_times(series, steps))


def _times(series: Series, steps: int) -> tuple[NDArray[Any], str]:
    """The times that follow: on an even clock that clock goes on, otherwise steps are counted."""
    gaps = np.diff(series.time)
    ahead = np.arange(1, steps + 1)
    if len(gaps) and (gaps == gaps[0]).all():
        return series.time[-1] + ahead * gaps[0], series.time_name
    return ahead, "steps ahead"

"""Holes in sequences, empty values and times left out: refused, left out, or filled in.

Nothing is filled in from another sequence, or where only one side of a hole is known.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fastlstm.errors import SeriesError
from fastlstm.train.series_columns import check_increasing, clock_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Floats: TypeAlias = NDArray[np.float64]

# A step longer than so many median steps is a gap; months and years of differing length are not.
GAP = 1.5
# A clock is even where at most this share of its steps is shorter than a median step by that.
UNEVEN = 0.1
# How far a step may lie from a multiple of the median step, in median steps, to be filled.
MULTIPLE = 0.01


@dataclass(frozen=True, eq=False)
class Rows:
    """What was read of a file: columns with NaN in their holes, and where they come from."""

    path: Path
    columns: dict[str, Floats]  # each (time,)
    lengths: tuple[int, ...]
    times: pl.Series | None  # (time,)

    def spans(self) -> Iterator[slice]:
        """The rows of each sequence."""
        end = 0
        for length in self.lengths:
            yield slice(end, end + length)
            end += length


def mend(rows: Rows, missing: str) -> tuple[dict[str, Floats], tuple[int, ...], NDArray[Any]]:
    """Columns without holes, the lengths of their sequences, and the time of each row.

    `missing` "refuse" has refused holes already and refuses gaps in time; "drop" leaves out rows
    with a hole and takes what is left as evenly spaced; "interpolate" fills holes linearly in time,
    and gaps with rows on the even clock.
    """
    number = np.arange(sum(rows.lengths))
    if missing == "drop":
        rows, number = _without_holes(rows)
    if rows.times is not None:
        check_increasing(rows.path, rows.times, number, rows.lengths)
    if missing == "interpolate":
        return _filled(rows)
    if missing == "refuse" and rows.times is not None:
        _refuse_gaps(rows, rows.times)
    return rows.columns, rows.lengths, _time_of(rows)


def _time_of(rows: Rows) -> NDArray[Any]:
    if rows.times is not None:
        return rows.times.to_numpy()
    return np.concatenate([np.arange(length) for length in rows.lengths])


def _without_holes(rows: Rows) -> tuple[Rows, NDArray[np.int64]]:
    """The rows where nothing is missing, and which they were; a sequence of none is left out."""
    keep = np.ones(sum(rows.lengths), bool)
    for values in rows.columns.values():
        keep &= ~np.isnan(values)
    if rows.times is not None:
        keep &= rows.times.is_not_null().to_numpy()
    lengths = tuple(int(keep[span].sum()) for span in rows.spans())
    if not any(lengths):
        raise SeriesError(
            f"{rows.path}: every row has a missing value in one of {', '.join(rows.columns)}, so "
            'missing = "drop" leaves nothing: choose other columns, or fill them'
        )
    return (
        replace(
            rows,
            columns={name: values[keep] for name, values in rows.columns.items()},
            lengths=tuple(filter(None, lengths)),
            times=None if rows.times is None else rows.times.filter(keep),
        ),
        np.flatnonzero(keep),
    )


def _steps(rows: Rows, times: pl.Series) -> Floats:
    """What each row's time is more than the one before, NaN at the first of a sequence."""
    steps = np.full(len(times), np.nan)
    steps[1:] = np.diff(clock_of(times))
    steps[[span.start for span in rows.spans()]] = np.nan
    return steps


def _gaps(steps: Floats) -> tuple[float, NDArray[np.int64]]:
    """The median step, and the rows after a gap; where the clock is not even there are none."""
    known = steps[~np.isnan(steps)]
    median = float(np.median(known)) if len(known) else np.nan
    usual = known[known <= GAP * median]
    if not len(usual) or np.mean(usual < median / GAP) > UNEVEN:
        return median, np.zeros(0, np.int64)
    return median, np.flatnonzero(steps > GAP * median)


def _refuse_gaps(rows: Rows, times: pl.Series) -> None:
    median, gaps = _gaps(_steps(rows, times))
    if len(gaps):
        k = int(gaps[0])
        raise SeriesError(
            f"{rows.path}: time column {times.name} has {len(gaps)} gap{'s' * (len(gaps) > 1)}, "
            f"the first between rows {k} and {k + 1}: from {times[k - 1]} to {times[k]}, where the "
            f"median step is {_span(times, median)}: fill in the rows that are missing, or set "
            '`missing` in the recipe\'s [series] to "interpolate" for filling them in or "drop" '
            "for taking the rows as evenly spaced"
        )


def _span(times: pl.Series, step: float) -> str:
    """A step of a clock for a person to read."""
    if not times.dtype.is_temporal():
        return f"{step:g}"
    # A polars date counts days, whatever unit its array is in.
    unit = "[D]" if times.dtype == pl.Date else _unit(times.to_numpy())
    moved = np.array(round(step), f"m8{unit}").astype("m8[us]")
    return str(moved.astype(datetime.timedelta)).removesuffix(", 0:00:00")


def _filled(rows: Rows) -> tuple[dict[str, Floats], tuple[int, ...], NDArray[Any]]:
    """Every hole and every gap filled in from what lies before and after it in its sequence."""
    steps, median, gaps = np.zeros(0), 0.0, np.zeros(0, np.int64)
    if rows.times is not None:
        steps = _steps(rows, rows.times)
        median, gaps = _gaps(steps)
    if len(gaps):
        assert rows.times is not None
        _check_multiples(rows, rows.times, steps / median)
    columns: dict[str, list[Floats]] = {name: [] for name in rows.columns}
    clocks, lengths = [], []
    time = _time_of(rows)
    for span in rows.spans():
        clock = time[span]
        # Counted from the first, because nanoseconds since 1970 are no exact float64.
        seen = (clock - clock[0]).astype(np.float64)
        at = seen
        if len(gaps):
            place = np.r_[0.0, np.cumsum(np.round(steps[span][1:] / median))]
            grid = np.arange(place[-1] + 1)
            at = np.interp(grid, place, seen)
            moved = np.round(at).astype(np.int64) if clock.dtype.kind in "Mmiu" else at
            clock = clock[0] + (moved.astype(f"m8{_unit(clock)}") if _unit(clock) else moved)
        for name, values in rows.columns.items():
            known = ~np.isnan(values[span])
            _check_ends(rows, name, span, known)
            columns[name].append(np.interp(at, seen[known], values[span][known]))
        clocks.append(clock)
        lengths.append(len(at))
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    return joined, tuple(lengths), np.concatenate(clocks)


def _unit(clock: NDArray[Any]) -> str:
    """The unit of dates as NumPy writes it, "[us]"; nothing for numbers."""
    return f"[{np.datetime_data(clock.dtype)[0]}]" if clock.dtype.kind in "Mm" else ""


def _check_multiples(rows: Rows, times: pl.Series, steps: Floats) -> None:
    """Refuse a clock whose steps, given in median steps, are no whole numbers of them."""
    whole = np.maximum(np.round(steps), 1)
    if len(odd := np.flatnonzero(np.abs(steps - whole) > MULTIPLE)):
        k = int(odd[0])
        raise SeriesError(
            f"{rows.path}: time column {times.name} has gaps, but no even clock to fill them on: "
            f"from row {k} to row {k + 1} ({times[k - 1]} to {times[k]}) are {steps[k]:.4g} median "
            'steps, which is no whole number: set `missing` to "drop" for taking the rows as '
            "evenly spaced, or fill the gaps in the file"
        )
    # A slip in one year's date would otherwise fill the memory.
    if (more := int(np.nansum(whole - 1))) > len(steps):
        raise SeriesError(
            f"{rows.path}: time column {times.name} leaves {more} rows to fill in between "
            f"{len(steps)} that are there, so most would be made up: correct its times, or set "
            '`missing` to "drop" for taking the rows as evenly spaced'
        )


def _check_ends(rows: Rows, name: str, span: slice, known: NDArray[np.bool_]) -> None:
    if known[0] and known[-1]:
        return
    row = span.start if not known[0] else span.stop - 1
    where = "start" if not known[0] else "end"
    whole = "its sequence" if len(rows.lengths) > 1 else "the series"
    raise SeriesError(
        f"{rows.path}: column {name} is missing in row {row + 1}, at the {where} of {whole}, with "
        "nothing on its other side to interpolate from: remove the row, or set `missing` to "
        '"drop"'
    )

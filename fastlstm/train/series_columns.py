"""A file's columns as arrays: numbers, times and the ids of sequences, each checked.

Rows in messages count from 1, without the header. Every fault is a SeriesError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fastlstm.errors import SeriesError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Floats: TypeAlias = NDArray[np.float64]


def find(path: Path, frame: pl.DataFrame, column: str) -> pl.Series:
    """The column of this name."""
    if column not in frame.columns:
        raise SeriesError(
            f"{path}: no column {column}; this file has {', '.join(frame.columns)}: name one of "
            "them with --column, or in the recipe's [series]"
        )
    return frame[column]


def numbers(path: Path, frame: pl.DataFrame, column: str, missing: str) -> Floats:
    """One column as float64; a hole is NaN, and refused where `missing` is "refuse"."""
    found = find(path, frame, column)
    if not found.dtype.is_numeric() and found.null_count() < len(found):
        raise SeriesError(
            f"{path}: column {column} is not numeric: {_first_text(found)}: correct or remove it, "
            "or choose another column"
        )
    # A null becomes a NaN: both are a hole.
    values = found.cast(pl.Float64).to_numpy()
    infinite = np.isinf(values)
    bad = infinite | np.isnan(values) if missing == "refuse" else infinite
    if len(holes := np.flatnonzero(bad)):
        first = int(holes[0])
        what = "missing or infinite" if missing == "refuse" else "infinite"
        remedy = (
            "correct them before training: no `missing` fills them"
            if infinite[holes].all()
            else "fill or drop them before training, or set `missing` in the recipe's [series] to "
            '"drop" for leaving out such rows or "interpolate" for filling them in'
        )
        raise SeriesError(
            f"{path}: column {column} has {len(holes)} {what} value{'s' * (len(holes) > 1)}, the "
            f"first ({found[first]}) in row {first + 1}: {remedy}"
        )
    # Every sample reaches a network as float32, where these would be infinite.
    if len(huge := np.flatnonzero(np.abs(values) > np.finfo(np.float32).max)):
        first = int(huge[0])
        raise SeriesError(
            f"{path}: column {column} has {len(huge)} value{'s' * (len(huge) > 1)} too large for "
            f"float32, the first ({found[first]}) in row {first + 1}: correct it, or give the "
            "column in a larger unit"
        )
    return values


def _first_text(column: pl.Series) -> str:
    """The first value that is no number, and its row."""
    numbers = column.cast(pl.String, strict=False).cast(pl.Float64, strict=False)
    bad = (numbers.is_null() & column.is_not_null()).arg_true()
    row = bad[0] if len(bad) else 0
    return f"row {row + 1} holds {str(column[row])[:40]!r} ({column.dtype})"


def times(path: Path, frame: pl.DataFrame, column: str) -> pl.Series:
    """The time column as numbers or dates, null where it is empty."""
    found = find(path, frame, column)
    if found.dtype == pl.String:
        dates = found.str.to_datetime(strict=False)
        if dates.null_count() > found.null_count():
            row = (dates.is_null() & found.is_not_null()).arg_true()[0]
            raise SeriesError(
                f"{path}: time column {column}: row {row + 1} holds {found[row]!r}, which is no "
                "ISO date such as 2001-12-29"
            )
        return dates
    if found.dtype == pl.Time:
        return found.cast(pl.Duration)
    if found.dtype.is_integer():
        return found.cast(pl.Int64, strict=False)
    if found.dtype.is_numeric():
        return found.cast(pl.Float64).fill_nan(None)
    if not found.dtype.is_temporal():
        raise SeriesError(
            f"{path}: time column {column}: expected numbers or dates, found {found.dtype}: name "
            "another column, or none"
        )
    return found


def clock_of(found: pl.Series) -> NDArray[Any]:
    """The times as numbers to calculate with: dates in their unit, whatever it is."""
    return found.cast(pl.Int64 if found.dtype.is_temporal() else pl.Float64).to_numpy()


def check_increasing(
    path: Path, found: pl.Series, rows: NDArray[np.int64], lengths: Sequence[int]
) -> None:
    """Refuse times that are empty or do not increase from row to row of a sequence."""
    wrong = found.is_null().to_numpy().copy()
    if not wrong.any():
        falls = np.diff(clock_of(found)) <= 0
        falls[np.cumsum(lengths)[:-1] - 1] = False
        wrong[1:] = falls
    if wrong.any():
        k = int(np.flatnonzero(wrong)[0])
        within = " of a sequence" if len(lengths) > 1 else ""
        raise SeriesError(
            f"{path}: time column {found.name} must increase from row to row{within}, with no "
            f"empty row in it; row {rows[k] + 1} holds {found[k]}"
            f"{f' after {found[k - 1]}' if k else ''}: sort the file by it and remove doubled or "
            "empty rows"
        )


def sequence_lengths(
    path: Path, frame: pl.DataFrame, column: str, time: str | None
) -> tuple[int, ...]:
    """How many rows each sequence has; the rows of one must lie together."""
    ids = find(path, frame, column)
    if ids.dtype.is_float():
        ids = ids.fill_nan(None)
    if ids.null_count():
        row = ids.is_null().arg_true()[0]
        raise SeriesError(
            f"{path}: sequence column {column} is empty in row {row + 1}: each row must say which "
            "sequence it belongs to; fill it in, or remove the row"
        )
    begins = np.flatnonzero(np.r_[True, (ids[1:] != ids[:-1]).to_numpy()])
    firsts = ids.gather(begins)
    if len(again := (~firsts.is_first_distinct()).arg_true()):
        row = int(begins[again[0]])
        earlier = int(begins[(firsts == firsts[again[0]]).arg_true()[0]])
        order = f"{column} and {time}" if time else f"{column}, each in its order of time"
        raise SeriesError(
            f"{path}: sequence column {column}: row {row + 1} belongs to {ids[row]}, which begins "
            f"in row {earlier + 1} and had ended: the rows of one sequence must lie together; sort "
            f"the file by {order}"
        )
    return tuple(np.diff(np.r_[begins, len(ids)]).tolist())

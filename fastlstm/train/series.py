"""Where sequences come from: CSV, Parquet, NumPy and generators; their split by time and scaling.

Nothing here looks past the training part to find a scale. Every fault of a file is a SeriesError.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fastlstm.errors import SeriesError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastlstm.train.recipe import Generator, SeriesTable

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Series:
    """Sequences in memory, one after the other: one long series, or many of any lengths.

    At step t a network sees inputs[t] and predicts targets[t + horizon], or all from t + 1 on.
    """

    name: str
    unit: str
    inputs: Floats  # (time, inputs), time counting through all sequences
    targets: Floats  # (time, targets)
    input_columns: tuple[str, ...]
    target_columns: tuple[str, ...]
    time: NDArray[Any]  # (time,): the time column, or 0, 1, 2, ... in each sequence
    time_name: str = "step"
    lengths: tuple[int, ...] = ()  # of the sequences; by default there is one
    known: Floats | None = None  # (time, columns): columns whose future is known
    known_columns: tuple[str, ...] = ()
    beyond: Floats | None = None  # (sequences, steps, targets): what follows the end of each

    def __post_init__(self) -> None:
        if not self.lengths:
            object.__setattr__(self, "lengths", (len(self.inputs),))
        assert sum(self.lengths) == len(self.inputs) == len(self.targets)

    def __len__(self) -> int:
        return len(self.inputs)


def load_series(table: SeriesTable) -> Series:
    """The series that the [series] table of a recipe describes."""
    if table.generator is not None:
        return generate(table.generator, table.name, table.unit)
    assert table.path is not None  # the table has checked that one of the two is there
    return read_series(
        table.path,
        inputs=table.input,
        targets=table.target,
        time=table.time,
        format=table.format,
        name=table.name,
        unit=table.unit,
    )


def read_series(
    path: str | Path,
    *,
    inputs: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    time: str | None = None,
    format: str | None = None,
    name: str | None = None,
    unit: str | None = None,
) -> Series:
    """Read a series from a CSV, Parquet, .npy or .npz file.

    `inputs` are the columns that go in, by default the only one there is beside `time`; `targets`
    the ones to predict, by default the inputs. The columns of a .npy file are called 0, 1, 2, ...;
    those of a .npz file are its arrays. Raises SeriesError, which names the column and the remedy.
    """
    path = Path(path)
    frame = _frame(path, format)
    if time is not None and time not in frame.columns:
        raise _no_column(path, time, frame.columns)
    if not inputs:
        rest = [column for column in frame.columns if column != time]
        if len(rest) != 1:
            raise SeriesError(
                f"{path}: expected one column to read, found {len(rest)} ({', '.join(rest)}): say "
                "which is meant with --column, or with `input` and `time` in the recipe's [series]"
            )
        inputs = rest
    targets = targets or inputs
    return Series(
        name=name or path.stem,
        unit=unit or "",
        inputs=np.stack([_numbers(path, frame, column) for column in inputs], 1),
        targets=np.stack([_numbers(path, frame, column) for column in targets], 1),
        input_columns=tuple(inputs),
        target_columns=tuple(targets),
        time=np.arange(len(frame)) if time is None else _times(path, frame, time),
        time_name=time or "step",
    )


def generate(generator: Generator, name: str | None = None, unit: str | None = None) -> Series:
    """Make the series that a recipe's `generator` describes: the same seed, the same values."""
    clean = _GENERATORS[generator.kind](generator.samples)
    noise = np.random.default_rng(generator.seed).standard_normal(generator.samples)
    values = (clean + generator.noise * noise)[:, None]
    columns = (generator.kind,)
    time = np.arange(generator.samples)
    return Series(name or generator.kind, unit or "", values, values, columns, columns, time)


def _frame(path: Path, format: str | None) -> pl.DataFrame:
    """The file as columns, in whatever types it has."""
    if path.is_dir():
        raise SeriesError(f"{path}: expected a file, found a folder: name the file in it")
    if not path.is_file():
        raise SeriesError(
            f"{path}: no such file: give the series with --data FILE, or correct `path` in the "
            "recipe's [series] (the ready recipes read examples/data of a source checkout)"
        )
    format = format or path.suffix.lower().removeprefix(".")
    if format not in _READERS:
        raise SeriesError(
            f"{path}: expected a file ending in .{', .'.join(_READERS)}, found {path.suffix!r}: "
            "convert it, or say what it is with `format` in the recipe's [series]"
        )
    try:
        frame = _READERS[format](path)
    # Each reader has its own errors for a damaged file, with no ancestor but Exception.
    except Exception as error:
        if isinstance(error, SeriesError):
            raise
        if isinstance(error, pl.exceptions.NoDataError):
            raise _empty(path) from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SeriesError(f"{path}: cannot be read as {format}: {reason}") from None
    if frame.is_empty():
        raise _empty(path)
    return frame


def _read_csv(path: Path) -> pl.DataFrame:
    # The whole file decides a column's type: the first hundred rows may look whole-numbered.
    return pl.read_csv(path, infer_schema_length=None)


def _read_npy(path: Path) -> pl.DataFrame:
    values = np.load(path, allow_pickle=False)
    if values.ndim not in (1, 2):
        raise SeriesError(
            f"{path}: expected an array of shape (time,) or (time, columns), found {values.shape}"
        )
    columns = values[:, None] if values.ndim == 1 else values
    return pl.DataFrame({str(k): columns[:, k] for k in range(columns.shape[1])})


def _read_npz(path: Path) -> pl.DataFrame:
    with np.load(path, allow_pickle=False) as arrays:
        columns = {name: arrays[name] for name in arrays.files}
    for name, values in columns.items():
        if values.ndim != 1:
            raise SeriesError(
                f"{path}: expected arrays of shape (time,), found {name} of shape {values.shape}"
            )
    if len({len(values) for values in columns.values()}) > 1:
        lengths = ", ".join(f"{name} {len(values)}" for name, values in columns.items())
        raise SeriesError(f"{path}: expected arrays of one length, found {lengths}")
    return pl.DataFrame(columns)


_READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    "csv": _read_csv,
    "parquet": pl.read_parquet,
    "npy": _read_npy,
    "npz": _read_npz,
}


def _numbers(path: Path, frame: pl.DataFrame, column: str) -> Floats:
    """One column as float64, after checking that every value is a finite number."""
    if column not in frame.columns:
        raise _no_column(path, column, frame.columns)
    found = frame[column]
    if not found.dtype.is_numeric():
        raise SeriesError(
            f"{path}: column {column} is not numeric: {_first_text(found)}: correct or remove it, "
            "or choose another column"
        )
    values = found.cast(pl.Float64).to_numpy()
    # A null has become a NaN: both are a hole that the user has to fill.
    if len(holes := np.flatnonzero(~np.isfinite(values))):
        first = int(holes[0])
        raise SeriesError(
            f"{path}: column {column} has {len(holes)} missing or infinite value"
            f"{'s' * (len(holes) > 1)}, the first ({found[first]}) in row {first + 1}: fill or "
            "drop them before training"
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


def _times(path: Path, frame: pl.DataFrame, column: str) -> NDArray[Any]:
    """The time column as numbers or dates, after checking that it increases."""
    times = frame[column]
    if times.dtype == pl.String:
        dates = times.str.to_datetime(strict=False)
        if dates.null_count() > times.null_count():
            row = (dates.is_null() & times.is_not_null()).arg_true()[0]
            raise SeriesError(
                f"{path}: time column {column}: row {row + 1} holds {times[row]!r}, which is no "
                "ISO date such as 2001-12-29"
            )
        times = dates
    increases = (
        times.diff().drop_nulls().cast(pl.Int64 if times.dtype.is_temporal() else pl.Float64)
    )
    if times.null_count() or not (increases > 0).all():
        raise SeriesError(
            f"{path}: time column {column} must increase from row to row with no gap in it: sort "
            "the file by it and remove doubled or empty rows"
        )
    return times.to_numpy()


def _no_column(path: Path, column: str, columns: Sequence[str]) -> SeriesError:
    return SeriesError(
        f"{path}: no column {column}; this file has {', '.join(columns)}: name one of them with "
        "--column, or in the recipe's [series]"
    )


def _empty(path: Path) -> SeriesError:
    return SeriesError(f"{path}: the series is empty: expected a header and one row for each step")


def _sine(samples: int) -> Floats:
    t = np.arange(samples)
    return np.sin(2 * np.pi * t / 40) + 0.5 * np.sin(2 * np.pi * t / 17)


def _mackey_glass(samples: int) -> Floats:
    """The series of x' = 0.2 x(t - 17) / (1 + x(t - 17)**10) - 0.1 x, by Euler steps of 0.1.

    M. C. Mackey and L. Glass, Science 197 (1977), with the delay that makes it weakly chaotic.
    """
    per_unit, settling = 10, 300
    delay = 17 * per_unit
    x = np.full(delay + (samples + settling) * per_unit, 1.2)
    for t in range(delay, len(x)):
        late = x[t - delay]
        x[t] = x[t - 1] + (0.2 * late / (1 + late**10) - 0.1 * x[t - 1]) / per_unit
    return x[delay + settling * per_unit :: per_unit]


_GENERATORS: dict[str, Callable[[int], Floats]] = {"sine": _sine, "mackey_glass": _mackey_glass}

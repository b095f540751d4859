"""The formats that sequences come in: CSV, Parquet, NumPy, and one sequence a line.

Here a file becomes named columns; series.py checks what is in them. Every fault is a SeriesError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from fastlstm.errors import SeriesError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Rows(NamedTuple):
    """The columns of a file, and how long its sequences are where the format itself says so."""

    frame: pl.DataFrame
    lengths: tuple[int, ...] = ()


def read_rows(path: Path, format: str | None = None) -> Rows:
    """A file with one step a row, in whatever types its columns have.

    The columns of a .npy file are called 0, 1, 2, ...; those of a .npz file are its arrays.
    """
    _check_file(path)
    format = format or path.suffix.lower().removeprefix(".")
    if format not in _READERS:
        raise SeriesError(
            f"{path}: expected a file ending in .{', .'.join(_READERS)}, found {path.suffix!r}: "
            "convert it, or say what it is with `format` in the recipe's [series]"
        )
    try:
        rows = _READERS[format](path)
    # Each reader has its own errors for a damaged file, with no ancestor but Exception.
    except Exception as error:
        if isinstance(error, SeriesError):
            raise
        if isinstance(error, pl.exceptions.NoDataError):
            raise _empty(path) from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = _LINES_INSTEAD if format == "csv" else ""
        raise SeriesError(f"{path}: cannot be read as {format}: {reason}{remedy}") from None
    if rows.frame.is_empty():
        raise _empty(path)
    return rows


_LINES_INSTEAD = (
    '; where each line is a sequence of its own, set layout = "lines" in the recipe\'s [series]'
)


def read_lines(path: Path, column: str, format: str | None = None) -> Rows:
    """A CSV file without a header where each line is one sequence, as one column.

    Blank lines are skipped; a line needs two numbers, for one to be predicted from the other.
    """
    _check_file(path)
    if (format or path.suffix.lower().removeprefix(".")) in ("parquet", "npy", "npz"):
        raise SeriesError(
            f'{path}: expected a CSV file, found {format or path.suffix}: layout = "lines" is for '
            "CSV alone; leave it out"
        )
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise SeriesError(f"{path}: cannot be read as csv: {error}") from None
    numbered = [(k, line.split(",")) for k, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise SeriesError(f"{path}: the file is empty: expected one sequence in each line")
    words = pl.Series([word.strip() for _, line in numbered for word in line], dtype=pl.String)
    numbers = words.cast(pl.Float64, strict=False)
    lengths = tuple(len(line) for _, line in numbered)
    # Null is a word that is no number; NaN and infinity are words that polars does read.
    values = numbers.to_numpy()
    if len(bad := np.flatnonzero(~np.isfinite(values))):
        first = int(bad[0])
        k = int(np.searchsorted(np.cumsum(lengths), first, side="right"))
        place = first - sum(lengths[:k]) + 1
        found = repr(words[first][:40]) if words[first] else "nothing"
        raise SeriesError(
            f"{path}: line {numbered[k][0]}: expected finite numbers with commas between them, "
            f"found {found} in place {place}: correct or remove the line (there is no header "
            'where layout = "lines")'
        )
    for (number, _), length in zip(numbered, lengths, strict=True):
        if length < 2:
            raise SeriesError(
                f"{path}: line {number}: expected at least 2 numbers, one to predict another "
                f"from, found {length}: remove the line, or complete it"
            )
    return Rows(pl.DataFrame({column: numbers}), lengths)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise SeriesError(f"{path}: expected a file, found a folder: name the file in it")
    if not path.is_file():
        raise SeriesError(
            f"{path}: no such file: give the series with --data FILE, or correct `path` in the "
            "recipe's [series] (the ready recipes read examples/data of a source checkout)"
        )


def _read_csv(path: Path) -> Rows:
    # The whole file decides a column's type: the first hundred rows may look whole-numbered.
    # "NaN" it knows as a number; NumPy and C write it small.
    return Rows(pl.read_csv(path, infer_schema_length=None, null_values=["nan", "-nan"]))


def _read_parquet(path: Path) -> Rows:
    return Rows(pl.read_parquet(path))


def _read_npy(path: Path) -> Rows:
    values = np.load(path, allow_pickle=False)
    if values.ndim not in (1, 2, 3):
        raise SeriesError(
            f"{path}: expected an array of shape (time,), (time, columns) or (sequences, time, "
            f"columns), found {values.shape}"
        )
    lengths = (values.shape[1],) * values.shape[0] if values.ndim == 3 else ()
    # Not reshape(-1, ...), which an array of no values does not allow.
    columns = values.reshape(
        int(np.prod(values.shape[: max(1, values.ndim - 1)])),
        values.shape[-1] if values.ndim > 1 else 1,
    )
    frame = pl.DataFrame({str(k): columns[:, k] for k in range(columns.shape[1])})
    return Rows(frame, lengths)


def _read_npz(path: Path) -> Rows:
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
    return Rows(pl.DataFrame(columns))


_READERS: dict[str, Callable[[Path], Rows]] = {
    "csv": _read_csv,
    "parquet": _read_parquet,
    "npy": _read_npy,
    "npz": _read_npz,
}


def _empty(path: Path) -> SeriesError:
    return SeriesError(f"{path}: the series is empty: expected a header and one row for each step")

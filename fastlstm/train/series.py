"""Where sequences come from: a file or a generator, as one Series.

Every fault of a file is a SeriesError.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm.errors import SeriesError
from fastlstm.train.generators import make
from fastlstm.train.series_columns import find, numbers, sequence_lengths, times
from fastlstm.train.series_files import read_lines, read_rows
from fastlstm.train.series_holes import Rows, mend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastlstm.train.recipe_tables import Generator, SeriesTable

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
    """The sequences that the [series] table of a recipe describes."""
    if table.generator is not None:
        return generate(
            table.generator,
            table.name,
            table.unit,
            inputs=table.input,
            targets=table.target,
            known=table.known_ahead,
        )
    assert table.path is not None  # the table has checked that one of the two is there
    return read_series(
        table.path,
        inputs=table.input,
        targets=table.target,
        known=table.known_ahead,
        sequence=table.sequence,
        time=table.time,
        layout=table.layout,
        missing=table.missing,
        format=table.format,
        name=table.name,
        unit=table.unit,
    )


def read_series(
    path: str | Path,
    *,
    inputs: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    known: Sequence[str] = (),
    sequence: str | None = None,
    time: str | None = None,
    layout: str = "series",
    missing: str = "refuse",
    format: str | None = None,
    name: str | None = None,
    unit: str | None = None,
) -> Series:
    """Read sequences from a CSV, Parquet, .npy or .npz file.

    `inputs` are the columns that go in, by default the only one there is beside `time`, `sequence`
    and `known`; `targets` the ones to predict, by default the inputs; `known` those whose future is
    known. Where `sequence` names a column of ids, each id's rows are one sequence; a .npy file of
    shape (sequences, time, columns) holds several too. `layout` "lines" reads a CSV file with one
    sequence in each line and no header, as one column named like the file unless `inputs` names it.
    `missing` is "refuse", "drop" or "interpolate": what to do with holes and with gaps in `time`.
    The columns of a .npy file are called 0, 1, 2, ...; those of a .npz file are its arrays. Raises
    SeriesError, which names the column, the row and the remedy.
    """
    path = Path(path)
    if layout == "lines":
        return _read_lines(path, inputs, targets, [known, sequence, time], format, name, unit)
    frame, lengths = read_rows(path, format)
    for column in (time, sequence):
        if column is not None:
            find(path, frame, column)
    if not inputs:
        aside = {time, sequence, *known}
        rest = [column for column in frame.columns if column not in aside]
        if len(rest) != 1:
            raise SeriesError(
                f"{path}: expected one column to read, found {len(rest)} ({', '.join(rest)}): say "
                "which is meant with --column, or with `input` and `time` in the recipe's [series]"
            )
        inputs = rest
    targets = targets or inputs
    wanted = dict.fromkeys((*inputs, *targets, *known))
    columns = {column: numbers(path, frame, column, missing) for column in wanted}
    if sequence is not None:
        if lengths:
            raise SeriesError(
                f"{path}: an array of shape (sequences, time, columns) says itself which sequence "
                f"a row belongs to, found sequence = {sequence!r}: leave it out"
            )
        lengths = sequence_lengths(path, frame, sequence, time)
    clock = None if time is None else times(path, frame, time)
    columns, lengths, at = mend(Rows(path, columns, lengths or (len(frame),), clock), missing)
    return Series(
        name=name or path.stem,
        unit=unit or "",
        inputs=_side_by_side(columns, inputs),
        targets=_side_by_side(columns, targets),
        input_columns=tuple(inputs),
        target_columns=tuple(targets),
        time=at,
        time_name=time or "step",
        lengths=lengths,
        known=_side_by_side(columns, known) if known else None,
        known_columns=tuple(known),
    )


def generate(
    generator: Generator,
    name: str | None = None,
    unit: str | None = None,
    *,
    inputs: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    known: Sequence[str] = (),
) -> Series:
    """Make the sequences that a recipe's `generator` describes: the same seed, the same values.

    Its columns are called as its kind, those of "minutes" `minute` and `value`. `inputs` are by
    default its value, `targets` the inputs. Raises SeriesError where it has no such column.
    """
    made = make(generator)
    inputs = tuple(inputs or (made.value,))
    targets = tuple(targets or inputs)
    for column in (*inputs, *targets, *known):
        if column not in made.columns:
            raise SeriesError(
                f"series.generator: {generator.kind} has no column {column}; it has "
                f"{', '.join(made.columns)}: name one of them as `input`, `target` or `known_ahead`"
            )
    return Series(
        name=name or generator.kind,
        unit=unit or "",
        inputs=_side_by_side(made.columns, inputs),
        targets=_side_by_side(made.columns, targets),
        input_columns=inputs,
        target_columns=targets,
        time=_counted(made.lengths),
        lengths=made.lengths,
        known=_side_by_side(made.columns, known) if known else None,
        known_columns=tuple(known),
        beyond=_side_by_side(made.beyond, targets) if generator.beyond else None,
    )


def _read_lines(
    path: Path,
    inputs: Sequence[str] | None,
    targets: Sequence[str] | None,
    others: Sequence[Sequence[str] | None],
    format: str | None,
    name: str | None,
    unit: str | None,
) -> Series:
    """A file of layout "lines", which has one column and nothing beside it."""
    columns = tuple(inputs or targets or (path.stem,))
    if len(columns) > 1 or tuple(targets or columns) != columns or any(others):
        raise SeriesError(
            f'{path}: layout = "lines" has one column, which is both input and target, and no '
            "time, sequence or known_ahead: leave these out, or write the file one step a row"
        )
    frame, lengths = read_lines(path, columns[0], format)
    values = numbers(path, frame, columns[0], "refuse")[:, None]
    return Series(
        name=name or path.stem,
        unit=unit or "",
        inputs=values,
        targets=values,
        input_columns=columns,
        target_columns=columns,
        time=_counted(lengths),
        lengths=lengths,
    )


def _side_by_side(columns: Mapping[str, Floats], names: Sequence[str]) -> Floats:
    """The columns of these names, along a new last axis."""
    return np.stack([columns[name] for name in names], axis=-1)


def _counted(lengths: Sequence[int]) -> NDArray[np.int64]:
    """The steps of each sequence, from 0."""
    return np.concatenate([np.arange(length) for length in lengths])

"""How sequences are cut into a training, a validation and a test part, and how they are scaled.

Nothing here looks past the training part to find a scale.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm.errors import SeriesError

if TYPE_CHECKING:
    from fastlstm.train.recipe_tables import Recipe, SeriesTable, Split
    from fastlstm.train.series import Series

Floats: TypeAlias = NDArray[np.float64]


class Segment(NamedTuple):
    """A stretch of one sequence, as rows of Series: targets in [first, end) belong to the part."""

    begin: int  # where the sequence begins: inputs may reach back to here
    first: int
    end: int


@dataclass(frozen=True)
class Parts:
    """The segments of each part, in the order of the sequences."""

    train: tuple[Segment, ...]
    validation: tuple[Segment, ...]
    test: tuple[Segment, ...]

    @property
    def choosing(self) -> tuple[Segment, ...]:
        """What the best epoch is chosen on: the test part where there is no validation part."""
        return self.validation or self.test


@dataclass(frozen=True, eq=False)
class Scaling:
    """What is taken from each column, and what it is divided by."""

    input_mean: Floats
    input_deviation: Floats
    target_mean: Floats
    target_deviation: Floats


def split(series: Series, recipe: Recipe) -> Parts:
    """Cut the sequences; raises SeriesError where a part has not a single window or sequence."""
    table, windows = recipe.series.split, recipe.windows
    starts = np.concatenate([[0], np.cumsum(series.lengths)]).tolist()
    parts: tuple[list[Segment], ...] = ([], [], [])
    if table.by == "sequence":
        counts = _amounts(table, len(series.lengths), series, "sequences")
        k = 0
        for part, count in zip(parts, counts, strict=True):
            for _ in range(count):
                part.append(Segment(starts[k], starts[k], starts[k + 1]))
                k += 1
    else:
        for begin, end in itertools.pairwise(starts):
            first = begin
            for part, count in zip(
                parts, _amounts(table, end - begin, series, "samples"), strict=True
            ):
                if count:
                    part.append(Segment(begin, first, first + count))
                first += count
    needed = max(windows.length, windows.warm_up + 1) + windows.horizon
    longest = max((s.end - s.begin for s in parts[0]), default=0)
    if longest < needed:
        raise SeriesError(
            f"{series.name}: the training part has {longest} of the series' {len(series)} samples, "
            f"shorter than one window, which needs {needed} (windows.length {windows.length} + "
            f"windows.horizon {windows.horizon}): give a longer series, a smaller windows.length "
            "or a smaller windows.horizon"
        )
    reach = windows.horizon if windows.direct or table.by == "sequence" else 1
    for name, part in zip(("validation", "test"), parts[1:], strict=True):
        if part and max(s.end - s.first for s in part) < reach + (table.by == "sequence"):
            raise SeriesError(
                f"{series.name}: the {name} part has at most "
                f"{max(s.end - s.first for s in part)} samples in one stretch, too few for a "
                f"horizon of {windows.horizon}: give a longer series, a larger series.split."
                f"{name} or a smaller windows.horizon"
            )
    return Parts(*map(tuple, parts))


def _amounts(table: Split, whole: int, series: Series, what: str) -> tuple[int, int, int]:
    """How many of `whole` each part gets."""
    if table.counted:
        train, validation, test = int(table.train), int(table.validation), int(table.test)
        if train + validation + test > whole:
            raise SeriesError(
                f"{series.name}: series.split asks for {train + validation + test} {what}, found "
                f"{whole}: give a longer series or smaller parts"
            )
        return train, validation, test
    first = round(whole * table.train)
    second = round(whole * (table.train + table.validation))
    if not first < whole or (table.validation and first == second) or second == whole:
        raise SeriesError(
            f"{series.name}: {whole} {what} leave the validation or the test part empty: give a "
            "longer series or larger fractions in series.split"
        )
    return first, second - first, whole - second


def fit_scaling(series: Series, parts: Parts, table: SeriesTable) -> Scaling | None:
    """How a recipe scales, measured over the training part only; a constant column has no scale."""
    if table.scaling == "none":
        return None
    inputs, targets = series.inputs, series.targets
    if table.scaling == "divide":
        zeros = np.zeros(inputs.shape[1]), np.zeros(targets.shape[1])
        by = table.divisor
        return Scaling(zeros[0], zeros[0] + by, zeros[1], zeros[1] + by)
    rows = np.concatenate([np.arange(s.first, s.end) for s in parts.train])
    found = []
    for values, columns in (
        (inputs[rows], series.input_columns),
        (targets[rows], series.target_columns),
    ):
        mean, deviation = values.mean(0), values.std(0)
        # A column that varies by less than its values' own rounding is constant too.
        for column in np.flatnonzero(deviation <= 1e-12 * np.abs(mean)):
            raise SeriesError(
                f"{series.name}: column {columns[column]} is constant ({values[0, column]:g}) over "
                f"the training part's {len(rows)} samples, so it cannot be scaled or learned: "
                'leave it out, give a larger series.split.train, or set scaling = "none"'
            )
        found += [mean, deviation]
    return Scaling(*found)

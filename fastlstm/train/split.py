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

    def origins(self, horizon: int, direct: bool = False) -> range:
        """The rows from which a forecast lies in the part: none where the stretch is too short.

        A direct forecast covers 1 to `horizon` steps ahead and lies in the part with all of them.
        """
        first = max(self.begin, self.first - (1 if direct else horizon))
        return range(first, max(first, self.end - horizon))


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
    """Cut the sequences; raises SeriesError where a part has not a single window or forecast.

    Sequences too short for a window, in any part, stay in it and give none.
    """
    table = recipe.series.split
    starts = np.concatenate([[0], np.cumsum(series.lengths)]).tolist()
    parts: tuple[list[Segment], ...] = ([], [], [])
    if table.by == "sequence":
        k = 0
        amounts = _amounts(table, len(series.lengths), series.name, "sequences")
        for part, count in zip(parts, amounts, strict=True):
            for begin, end in itertools.pairwise(starts[k : k + count + 1]):
                part.append(Segment(begin, begin, end))
            k += count
    else:
        for k, (begin, end) in enumerate(itertools.pairwise(starts)):
            what = f"samples of sequence {k + 1}" if len(series.lengths) > 1 else "samples"
            first = begin
            amounts = _amounts(table, end - begin, series.name, what)
            for part, count in zip(parts, amounts, strict=True):
                if count:
                    part.append(Segment(begin, first, first + count))
                first += count
    _check_training_part(series, recipe, parts[0])
    for name, part in zip(("validation", "test"), parts[1:], strict=True):
        if part and not any(_has_forecast(segment, recipe) for segment in part):
            longest = max(segment.end - segment.first for segment in part)
            raise SeriesError(
                f"{series.name}: the {name} part has at most {longest} samples in one stretch, too "
                f"few for a single forecast (windows.length {recipe.windows.length}, "
                f"windows.horizon {recipe.windows.horizon}): give a longer series, a larger "
                f"series.split.{name} or a smaller windows.horizon"
            )
    return Parts(*map(tuple, parts))


def _check_training_part(series: Series, recipe: Recipe, part: list[Segment]) -> None:
    """Refuse a training part in which no window has room."""
    windows = recipe.windows
    needed = max(windows.length, windows.warm_up + 1) + windows.horizon
    longest = max((segment.end - segment.first for segment in part), default=0)
    if longest >= needed:
        return
    many = len(series.lengths) > 1
    has = f"at most {longest} samples in one stretch" if many else f"{longest}"
    of = "" if many else f" of the series' {len(series)} samples"
    steps = (
        f"windows.length {windows.length}"
        if windows.length
        else f"a step after windows.warm_up {windows.warm_up}"
    )
    smaller = "windows.length" if windows.length else "windows.warm_up"
    raise SeriesError(
        f"{series.name}: the training part has {has}{of}, shorter than one window, which needs "
        f"{needed} ({steps} + windows.horizon {windows.horizon}): give a longer series, a smaller "
        f"{smaller} or a smaller windows.horizon"
    )


def _has_forecast(segment: Segment, recipe: Recipe) -> bool:
    """Whether anything in the segment can be forecast the way the recipe looks at it."""
    windows = recipe.windows
    if not windows.length:
        return segment.end - segment.first > windows.horizon + windows.warm_up
    origins = segment.origins(windows.horizon, windows.direct)
    if windows.loss_at == "last":
        # Such a network sees a whole window before it says anything.
        return origins.stop > max(origins.start, segment.begin + windows.length - 1)
    return len(origins) > 0


def _amounts(table: Split, whole: int, name: str, what: str) -> tuple[int, int, int]:
    """How many of `whole` each part gets."""
    if table.counted:
        train, validation, test = int(table.train), int(table.validation), int(table.test)
        if train + validation + test > whole:
            raise SeriesError(
                f"{name}: series.split asks for {train + validation + test} {what}, found {whole}: "
                "give a longer series or smaller parts"
            )
        return train, validation, test
    first = round(whole * table.train)
    second = round(whole * (table.train + table.validation))
    if first == whole or (table.validation and first == second) or second == whole:
        empty = "the validation or the test part" if table.validation else "the test part"
        remedy = (
            'give more sequences, or cut each of them with series.split.by = "time"'
            if table.by == "sequence"
            else "give a longer series or larger fractions in series.split"
        )
        if what.startswith("samples of"):
            remedy += ', or give each part whole sequences with series.split.by = "sequence"'
        leave = "leave"
        if whole == 1:
            what, leave = (
                what.replace("samples", "sample").replace("sequences", "sequence"),
                "leaves",
            )
        raise SeriesError(f"{name}: {whole} {what} {leave} {empty} empty: {remedy}")
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

"""What goes into a network at each step and what comes out, told from a recipe or a model file.

The one place that knows in which order a direct forecast's values, targets and quantiles lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastlstm.train.recipe_tables import Recipe
    from fastlstm.train.series import Series

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """How far a network sees ahead, and what each of its outputs is.

    The outputs of one step are (ahead, targets, quantiles), the last index running fastest.
    """

    horizon: int = 1
    direct: bool = False
    targets: int = 1
    quantiles: tuple[float, ...] = ()

    @classmethod
    def of_recipe(cls, recipe: Recipe, series: Series) -> Layout:
        """What a recipe trains on a series."""
        windows = recipe.windows
        targets = len(series.target_columns)
        return cls(windows.horizon, windows.direct, targets, recipe.network.quantiles)

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, Any], output_size: int) -> Layout:
        """What a model file says; of a model of unknown origin, that it predicts one step ahead."""
        quantiles = tuple(metadata.get("quantiles", ()))
        horizon, direct = int(metadata.get("horizon", 1)), bool(metadata.get("direct", False))
        each = (horizon if direct else 1) * max(1, len(quantiles))
        return cls(horizon, direct, max(1, output_size // each), quantiles)

    @property
    def ahead(self) -> tuple[int, ...]:
        """How many steps ahead each forecast of one step lies."""
        return tuple(range(1, self.horizon + 1)) if self.direct else (self.horizon,)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The outputs of one step: (ahead, targets, quantiles), quantiles 1 where there are none.

        Row r of the outputs over a series then forecasts targets[r + ahead[k]].
        """
        return len(self.ahead), self.targets, max(1, len(self.quantiles))

    @property
    def size(self) -> int:
        """Values that come out at each step."""
        ahead, targets, quantiles = self.shape
        return ahead * targets * quantiles

    @property
    def median(self) -> int:
        """Which quantile is the forecast itself."""
        return self.quantiles.index(0.5) if self.quantiles else 0

    def target_of_output(self) -> list[int]:
        """For each output the column of the target that it forecasts."""
        return np.broadcast_to(np.arange(self.targets)[:, None], self.shape).ravel().tolist()


def network_inputs(series: Series, layout: Layout) -> Floats:
    """What goes in at each step: (time, inputs and known columns at all steps ahead).

    The known columns at the first step ahead come first, then those at the next. In the last
    `horizon` steps of a sequence, where they are not known, they are NaN.
    """
    if series.known is None:
        return series.inputs
    shifted = np.full((len(series), len(layout.ahead), series.known.shape[1]), np.nan)
    begin = 0
    for length in series.lengths:
        for k, ahead in enumerate(layout.ahead):
            there = series.known[begin + ahead : begin + length]
            shifted[begin : begin + len(there), k] = there
        begin += length
    return np.concatenate([series.inputs, shifted.reshape(len(series), -1)], axis=1)


def input_names(series: Series, layout: Layout) -> tuple[str, ...]:
    """What network_inputs has in its columns: x, y, hour+1, hour+2."""
    known = (f"{name}+{k}" for k in layout.ahead for name in series.known_columns)
    return (*series.input_columns, *known)

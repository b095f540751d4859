"""A forecast that feeds on itself, made after every epoch and held against what really follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastlstm.errors import SeriesError

if TYPE_CHECKING:
    from fastlstm.train.cells import States
    from fastlstm.train.network import Network
    from fastlstm.train.recipe_tables import ClosedLoop as ClosedLoopTable
    from fastlstm.train.series import Series
    from fastlstm.train.split import Parts, Scaling

Floats: TypeAlias = NDArray[np.float64]


class ClosedLoop:
    """The sequences to be continued, and the truth that follows each."""

    def __init__(
        self, table: ClosedLoopTable, series: Series, parts: Parts, scaling: Scaling | None
    ) -> None:
        """Of the part that the best epoch is chosen on.

        Raises SeriesError where a sequence ends less than `steps` after its beginning and nothing
        follows it.
        """
        self.steps, self.near = table.steps, min(table.near, table.steps)
        starts = np.concatenate([[0], np.cumsum(series.lengths)])
        truth, rows = [], []
        for segment in parts.choosing:
            if series.beyond is not None and series.beyond.shape[1] >= self.steps:
                sequence = int(np.searchsorted(starts, segment.begin))
                truth.append(series.beyond[sequence, : self.steps])
                rows.append((segment.begin, segment.end))
                continue
            end = segment.end - self.steps
            if end <= segment.begin:
                raise SeriesError(
                    f"{series.name}: closed_loop.steps: expected fewer than the "
                    f"{segment.end - segment.begin} samples of a sequence, found {self.steps}"
                )
            truth.append(series.targets[end : segment.end])
            rows.append((segment.begin, end))
        self.truth: Floats = np.stack(truth)  # (sequences, steps, targets), in the series' unit
        # Of many long ones, the state at the end hardly hangs on how they began: all alike long.
        length = min(end - begin for begin, end in rows)
        self.rows = torch.stack([torch.arange(end - length, end) for _, end in rows])
        targets = series.targets.shape[1]
        mean, deviation = np.zeros(targets), np.ones(targets)
        if scaling is not None:
            mean, deviation = scaling.target_mean, scaling.target_deviation
        self.mean, self.deviation = (
            torch.tensor(v, dtype=torch.float64) for v in (mean, deviation)
        )

    def to(self, device: torch.device, dtype: torch.dtype) -> ClosedLoop:
        """Itself, ready for a network of that kind; the truth stays in double precision."""
        self.rows = self.rows.to(device)
        self.device, self.dtype = device, dtype
        return self

    @torch.no_grad()
    def run(self, network: Network, inputs: Tensor, median: int = 0) -> Tensor:
        """The forecasts in the series' unit, float64 on the CPU: (sequences, steps, targets)."""
        targets = len(self.mean)
        y, state = network(inputs[self.rows])
        value = y[:, -1].unflatten(-1, (targets, -1))[..., median]
        values = [value]
        carried: States = state
        for _ in range(self.steps - 1):
            y, carried = network(value.unsqueeze(1), carried)
            value = y[:, -1].unflatten(-1, (targets, -1))[..., median]
            values.append(value)
        scaled = torch.stack(values, 1).double().cpu()
        return scaled * self.deviation + self.mean

    def errors(self, forecast: Any) -> tuple[float, float]:
        """RMSE over the first `near` steps and over all of them, in the series' unit."""
        squared = (np.asarray(forecast) - self.truth) ** 2
        return float(np.sqrt(squared[:, : self.near].mean())), float(np.sqrt(squared.mean()))

"""How well a model predicts a series, as a stream in float64, beside the naive last value.

Naive means: the value `horizon` steps ahead will be the value now.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from fastlstm.errors import SeriesError
from fastlstm.train.network import Network
from fastlstm.train.recipe import Recipe
from fastlstm.train.series import Series, load_series, read_series, split

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fastlstm.model import Model

Floats: TypeAlias = NDArray[np.float64]

# Steps in one call: bounds the memory of a long series; the state is carried from call to call.
CHUNK = 4096


def evaluate(
    model: Model,
    source: Recipe | Series | str | Path,
    columns: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Stream a series through `model` and measure its error: RMSE and MAE beside the naive ones.

    With a Recipe the figures are those of its test part, after streaming all that comes before;
    with a Series or a file, those of the whole of it. `columns` are the ones to read from a file,
    by default those that the model was trained on. Raises SeriesError where they do not fit.
    """
    horizon = int(model.metadata.get("horizon", 1))
    first = horizon
    if isinstance(source, Recipe):
        series = load_series(source.series)
        first = split(series, source).validation
    elif isinstance(source, Series):
        series = source
    else:
        series = _read(model, source, columns)
    _check_sizes(model, series)
    if len(series) <= horizon:
        raise SeriesError(
            f"{series.name}: {len(series)} samples are too few to evaluate a model that predicts "
            f"{horizon} ahead: give a longer series"
        )
    return scores(series, predict(model, series.inputs), first, horizon)


def predict(model: Model, inputs: Floats) -> Floats:
    """The model's outputs over (time, inputs) as one stream: (time, outputs), float64."""
    network = Network.from_model(model).double()
    # A stream takes float32 samples: the figures are those of what it would be given.
    x = torch.from_numpy(inputs.astype(np.float32).astype(np.float64))
    outputs, state = [], None
    with torch.inference_mode():
        for chunk in torch.split(x, CHUNK):
            y, state = network(chunk[None], state)
            outputs.append(y[0])
    return torch.cat(outputs).numpy()


def scores(series: Series, predicted: Floats, first: int, horizon: int) -> dict[str, Any]:
    """Errors in the series' own unit over targets[first:]; `predicted` begins at the first step."""
    truth = series.targets[first:]
    ours = predicted[first - horizon : len(series) - horizon] - truth
    naive = series.targets[first - horizon : len(series) - horizon] - truth
    figures: dict[str, Any] = {
        "series": series.name,
        "unit": series.unit,
        "steps": len(truth),
        **_errors(ours, naive),
    }
    if len(series.target_columns) > 1:
        figures["columns"] = {
            name: _errors(ours[:, k], naive[:, k]) for k, name in enumerate(series.target_columns)
        }
    return figures


def _errors(ours: Floats, naive: Floats) -> dict[str, float | None]:
    rmse, naive_rmse = math.sqrt(np.mean(ours**2)), math.sqrt(np.mean(naive**2))
    return {
        "rmse": rmse,
        "mae": float(np.mean(np.abs(ours))),
        "naive_rmse": naive_rmse,
        "naive_mae": float(np.mean(np.abs(naive))),
        # Of a series that never moves the last value is a perfect guess.
        "ratio": rmse / naive_rmse if naive_rmse else None,
    }


def _read(model: Model, path: str | Path, columns: Sequence[str] | None) -> Series:
    """The columns asked for or, without any, the ones that the model names."""
    targets = model.metadata.get("target_columns")
    if columns:
        # The columns asked for are also what is predicted, unless the model says otherwise.
        alike = len(columns) == model.output_size
        return read_series(path, inputs=columns, targets=None if alike else targets)
    return read_series(path, inputs=model.metadata.get("input_columns"), targets=targets)


def _check_sizes(model: Model, series: Series) -> None:
    for what, expected, columns in (
        ("reads", model.input_size, series.input_columns),
        ("predicts", model.output_size, series.target_columns),
    ):
        if len(columns) != expected:
            raise SeriesError(
                f"{series.name}: the model {what} {expected} column{'s' * (expected > 1)}, found "
                f"{len(columns)} ({', '.join(columns)}): name as many with --column"
            )

"""What float16 makes of a Model's weights: the very network that a file with such weights holds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ExportError
from fastlstm.model import Affine, Bidirectional, Model

if TYPE_CHECKING:
    from fastlstm.model import Array

# Where a sequence begins is an input of the file, not a weight in it.
STATES = ("h0", "c0", "x0")
LARGEST = float(np.finfo(np.float16).max)


def rounded(model: Model) -> Model:
    """The model with every weight and bias at its nearest float16.

    As they are stay the initial states, which no weight holds, and Affine layers: a scale and a
    shift carry the units of the data, and a shift of 1000 would be off by up to 0.25.

    Raises ExportError for a value beyond float16's range, with the array's name.
    """
    layers = tuple(
        _layer(layer, f"layer {k} ({layer.kind})") for k, layer in enumerate(model.layers)
    )
    return Model(layers, model.metadata)


def _layer(layer: Any, where: str) -> Any:
    if isinstance(layer, Affine):
        return layer
    if isinstance(layer, Bidirectional):
        halves = {name: getattr(layer, name) for name in ("forward", "backward")}
        return replace(
            layer, **{name: _layer(half, f"{where}.{name}") for name, half in halves.items()}
        )
    arrays = {
        name: _nearest(array, f"{where}.{name}")
        for name, array in layer.arrays.items()
        if name not in STATES
    }
    return replace(layer, **arrays)


def _nearest(array: Array, where: str) -> Array:
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        place = tuple(int(k) for k in np.argwhere(~np.isfinite(half))[0])
        raise ExportError(
            f"{where}: expected values within float16's range of +-{LARGEST:.0f}, found "
            f"{array[place]:g} at index {place}; export with weights of float32"
        )
    return half.astype(np.float32)

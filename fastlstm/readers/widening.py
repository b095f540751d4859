"""A layer that takes further values after its own and makes nothing of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.model import GRU, LSTM, RNN, Bidirectional, Dense

if TYPE_CHECKING:
    from fastlstm.model import Array, Layer


def widened(layer: Layer | None, extra: int) -> Layer | None:
    """`layer` with weights of zero for `extra` more inputs, which is exact.

    None for a layer that has no weights for its inputs, or no layer.
    """
    match layer:
        case Dense():
            return replace(layer, weight=_padded(layer.weight, extra))
        case LSTM() | GRU() | RNN():
            one: Layer = _one_way(layer, extra)
            return one
        case Bidirectional():
            return Bidirectional(_one_way(layer.forward, extra), _one_way(layer.backward, extra))
        case _:
            return None


def _one_way(layer: Any, extra: int) -> Any:
    return replace(layer, weight_ih_l0=_padded(layer.weight_ih_l0, extra))


def _padded(weight: Array, extra: int) -> Array:
    padded: Array = np.pad(weight, ((0, 0), (0, extra)))
    return padded

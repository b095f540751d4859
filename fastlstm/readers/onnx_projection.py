"""A projected LSTM in an ONNX graph as our exporter writes it, folded into a plain LSTM node.

The node has P units more than the layer: no weights of their own, a cell state of 0, and h0 of the
projection as their h at the start. R = [W_hh W_hr | W_hh], and W_hr with the unit matrix under it
takes what comes out to h. (See export/onnx_recurrent.py for why.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.model import LSTM, Bidirectional
from fastlstm.readers.elements import Elements
from fastlstm.readers.places import Layered, Place

if TYPE_CHECKING:
    from fastlstm.model import Array
    from fastlstm.readers.elements import Trace


def projected(value: Elements, weight: Array, origin: str) -> Elements | None:
    """`value @ weight` as the output of a projected layer; None where it is nothing of the kind.

    `value` (.., units), or (.., directions, batch, units) with `weight` (directions, units, P).
    """
    trace = value.trace
    where = trace.where(value.numbers)
    positions = np.unique(where.place)
    place = trace.places[positions[0]] if len(positions) == 1 else None
    if not isinstance(place, Layered):
        return None
    match place.layer:
        case LSTM() as layer if weight.ndim == 2:
            halves, matrices, first = [layer], weight[None], 0
        case Bidirectional(forward=forward, backward=LSTM() as backward) if (
            weight.ndim == 2 and not any(array.any() for array in forward.arrays.values())
        ):
            halves, matrices, first = [backward], weight[None], 1
        case Bidirectional(forward=LSTM() as forward, backward=LSTM() as backward) if (
            weight.ndim == 3 and len(weight) == 2
        ):
            halves, matrices, first = [forward, backward], weight, 0
        case _:
            return None
    units, size = matrices.shape[1:]
    # Each direction whole and by itself: the columns of its half along the last axis.
    columns = np.arange(len(halves) * units).reshape(len(halves), 1, units) + first * units
    shape = value.shape
    expected = columns if weight.ndim == 3 else columns[0, 0]
    if units != halves[0].hidden_size or not np.array_equal(
        where.column, np.broadcast_to(expected, shape)
    ):
        return None
    found = [_unfolded(half, matrix.T) for half, matrix in zip(halves, matrices, strict=True)]
    unfolded = [half for half in found if half is not None]
    if len(unfolded) < len(halves):
        return None
    if first:
        unfolded.insert(0, silent(unfolded[0]))
    whole = unfolded[0] if len(unfolded) == 1 else Bidirectional(*unfolded)
    made = trace.layered(place.parent, whole, place.origin)
    stands_for(trace)[place] = made
    columns = np.arange(len(halves) * size).reshape(len(halves), 1, size) + first * size
    expected = columns if weight.ndim == 3 else columns[0, 0]
    return Elements(trace, trace.numbers(made, where.batch[..., :1], where.time[..., :1], expected))


def stands_for(trace: Trace) -> dict[Place, Place]:
    """The place for each one that was found to be its folded form, or half of it."""
    found: dict[Place, Place] = trace.__dict__.setdefault("onnx_projections", {})
    return found


def _unfolded(layer: Any, matrix: Array) -> LSTM | None:
    """The projected layer that `layer` with `matrix` (P, H + P) after it is, or None."""
    size, units = matrix.shape
    hidden = units - size
    if hidden < 1 or layer.weight_hr_l0 is not None:
        return None
    if not np.array_equal(matrix[:, hidden:], np.eye(size, dtype=np.float32)):
        return None
    arrays = {
        name: array.reshape(-1, units, *array.shape[1:])
        for name, array in layer.arrays.items()
        if name not in ("h0", "c0")
    }
    if any(array[:, hidden:].any() for array in arrays.values()):
        return None
    if layer.h0 is not None and layer.h0[:hidden].any():
        return None
    if layer.c0 is not None and layer.c0[hidden:].any():
        return None
    kept = {name: array[:, :hidden].reshape(-1, *array.shape[2:]) for name, array in arrays.items()}
    folded, weight_hh = np.split(kept["weight_hh_l0"], [hidden], axis=1)
    weight_hr = matrix[:, :hidden]
    factors = [a.astype(np.float64) for a in (weight_hh, weight_hr)]
    # Rounded once from the exact product, or summed in float32 by a runtime.
    room = (size + 1) * np.finfo(np.float32).eps * (np.abs(factors[0]) @ np.abs(factors[1]))
    if (np.abs(factors[0] @ factors[1] - folded) > room + np.finfo(np.float32).tiny).any():
        return None
    if layer.h0 is not None:
        kept["h0"] = layer.h0[hidden:]
    if layer.c0 is not None:
        kept["c0"] = layer.c0[:hidden]
    kept = {k: np.array(v) for k, v in kept.items() if k not in ("h0", "c0") or v.any()}
    return LSTM(**{**kept, "weight_hh_l0": weight_hh.copy()}, weight_hr_l0=weight_hr.copy())


def silent(layer: Any) -> Any:
    """A layer like `layer` whose weights are all 0, and so its outputs."""
    arrays = {
        name: np.zeros_like(array)
        for name, array in layer.arrays.items()
        if name.startswith("weight")
    }
    return type(layer)(**arrays, **layer.options)

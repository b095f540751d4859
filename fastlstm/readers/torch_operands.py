"""What an operator of torch acts on: elements of a trace, or constants that are exactly float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.readers import arithmetic
from fastlstm.readers.elements import Elements
from fastlstm.readers.torch_moves import Call, Values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def operand(call: Call, value: Any) -> Elements | Floats:
    """An operand as elements, or as constants where nothing of the network is in it."""
    if isinstance(value, Values):
        return call.program.decoded(value) if value.constant else call.elements(value)
    array = np.asarray(value)
    # As torch does in float32, whose results are what the network's weights were trained on.
    return array.astype(np.float32).astype(np.float64)


def weights(call: Call, value: Any, what: str) -> NDArray[np.float32]:
    """Constants that are exactly float32, as an array."""
    found = operand(call, value)
    if isinstance(found, Elements):
        raise call.refuse(f"its {what} is computed from the input, which no layer of a Model has")
    return found.astype(np.float32)


def put(call: Call, elements: Elements) -> Values:
    return call.program.values(elements)


def scaled(call: Call, value: Elements | Floats, factor: Any) -> Elements | Floats:
    if factor == 1:
        return value
    single = float(np.float32(factor))
    if isinstance(value, Elements):
        return arithmetic.affine(value, single, None, call.origin)
    return (single * value).astype(np.float32).astype(np.float64)

"""Products of traced values with constant matrices: Linear, matmul and its kin, einsum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.model import Dense
from fastlstm.readers import arithmetic
from fastlstm.readers.elements import Elements
from fastlstm.readers.torch_moves import Call, Values
from fastlstm.readers.torch_operands import operand, put, scaled, weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def _linear(call: Call, x: Values, weight: Any, bias: Any = None) -> Values:
    matrix = weights(call, weight, "weight")
    if x.constant:
        raise call.refuse("its weight is computed from the input, which no layer of a Model has")
    value = call.elements(x)
    vector = None if bias is None else weights(call, bias, "bias")
    if matrix.ndim == 1:
        made = value.trace.apply(value, Dense(matrix[None], None), call.origin)
        made = made.moved(lambda n: n[..., 0])
        return put(
            call, made if vector is None else arithmetic.affine(made, None, vector, call.origin)
        )
    return put(call, value.trace.apply(value, Dense(matrix, vector), call.origin))


def _matmul(call: Call, a: Any, b: Any) -> Values:
    if isinstance(a, Values) and isinstance(b, Values) and not (a.constant or b.constant):
        raise call.refuse("it multiplies values of the network by each other, as attention does")
    if b.constant:
        value, matrix = call.elements(a), _matrix(call, b)
        if matrix.ndim == 1:
            return _linear(call, a, b)
        made = value.trace.apply(value, Dense(matrix.T.copy()), call.origin)
        return put(call, _with_axes(made, len(b.shape)))
    matrix, value = _matrix(call, a), call.elements(b)
    if len(b.shape) == 1:
        made = value.trace.apply(value, Dense(np.atleast_2d(matrix)), call.origin)
        return put(call, made if matrix.ndim == 2 else made.moved(lambda n: n[..., 0]))
    columns = value.last_axis(-2)
    made = value.trace.apply(columns, Dense(np.atleast_2d(matrix)), call.origin)
    made = made.moved(lambda n: n.swapaxes(-1, -2))
    made = made if matrix.ndim == 2 else made.moved(lambda n: n[..., 0, :])
    return put(call, _with_axes(made, len(a.shape)))


def _with_axes(made: Elements, count: int) -> Elements:
    """A product with the axes that a constant of more axes gives it."""
    missing = (1,) * (count - len(made.shape))
    return made.moved(lambda n: n.reshape(*missing, *n.shape))


def _matrix(call: Call, value: Values) -> NDArray[np.float32]:
    """A constant matrix, the same for every sequence where it has more axes."""
    matrix = weights(call, value, "matrix")
    while matrix.ndim > 2:
        if (matrix != matrix[:1]).any():
            raise call.refuse("its matrices differ from step to step or sequence to sequence")
        matrix = matrix[0]
    if not matrix.size:
        raise call.refuse("its matrix is empty")
    return matrix


def _addmm(call: Call, bias: Any, a: Any, b: Any, beta: Any = 1, alpha: Any = 1) -> Values:
    product = scaled(call, call.elements(_matmul(call, a, b)), alpha)
    assert isinstance(product, Elements)
    if beta == 0:
        return put(call, product)
    added = scaled(call, operand(call, bias), beta)
    if isinstance(added, Elements):
        return put(call, arithmetic.add(product, added, call.origin))
    return put(call, arithmetic.affine(product, None, added, call.origin))


def _einsum(call: Call, equation: str, operands: Any, path: Any = None) -> Values:
    """One constant and one traced operand, as a matrix product over what they share."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    letters = inputs.split(",")
    traced = [k for k, operand in enumerate(operands) if not operand.constant]
    if len(operands) != 2 or len(traced) != 1 or not arrow or "." in equation:
        raise call.refuse(
            f"expected an einsum of a constant and a value, written out with ->, found {equation}"
        )
    x, w = letters[traced[0]], letters[1 - traced[0]]
    summed = [c for c in x if c in w and c not in output]
    kept, free = [c for c in x if c not in summed], [c for c in w if c not in summed]
    simple = all(len(set(word)) == len(word) for word in (x, w, output))
    if not simple or not summed or set(kept) & set(free) or set(output) != {*kept, *free}:
        raise call.refuse(f"expected an einsum that is a matrix product, found {equation}")
    value = call.elements(operands[traced[0]])
    array = weights(call, operands[1 - traced[0]], "operand")
    rows = value.moved(lambda n: n.transpose([x.index(c) for c in [*kept, *summed]]))
    shape = rows.shape[: len(kept)]
    rows = rows.moved(lambda n: n.reshape(*shape, -1))
    matrix = array.transpose([w.index(c) for c in [*free, *summed]])
    outs = matrix.shape[: len(free)]
    made = value.trace.apply(rows, Dense(matrix.reshape(-1, rows.shape[-1]).copy()), call.origin)
    made = made.moved(lambda n: n.reshape(*shape, *outs))
    order = [[*kept, *free].index(c) for c in output]
    return put(call, made.moved(lambda n: n.transpose(order)))


PRODUCTS: dict[str, Callable[..., Any]] = {
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), _matmul),
    **dict.fromkeys(("addmm", "baddbmm"), _addmm),
    "einsum": _einsum,
}

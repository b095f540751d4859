"""The operators of torch that a Model has a layer for, each on elements of a trace.

Constants are exactly float32 here. What needs a layer that no Model has is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ReaderError
from fastlstm.model import Dense, LayerNorm
from fastlstm.readers import arithmetic, torch_layers
from fastlstm.readers.elements import Elements, WrongLayout
from fastlstm.readers.torch_moves import Call, UnknownOperator, Values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# Sums over at most so many parts of a step's values are written as sums of places.
MOST_TERMS = 16


def run(call: Call, name: str, args: Any, kwargs: Any) -> Any:
    """The operator's result: Values, a tuple of them. Raises ReaderError for unknown operators."""
    known = OPERATORS.get(name)
    if known is None:
        raise UnknownOperator(call.origin)
    return known(call, *args, **kwargs)


def idle(name: str, args: Any) -> bool:
    """Whether an operator that could draw at random does not: dropout in eval mode."""
    if name in torch_layers.RECURRENT:
        return True
    return "dropout" in name and len(args) > 2 and args[2] is False


def _operand(call: Call, value: Any) -> Elements | Floats:
    """An operand as elements, or as constants where nothing of the network is in it."""
    if isinstance(value, Values):
        return call.program.decoded(value) if value.constant else call.elements(value)
    array = np.asarray(value)
    # As torch does in float32, whose results are what the network's weights were trained on.
    return array.astype(np.float32).astype(np.float64)


def _weights(call: Call, value: Any, what: str) -> NDArray[np.float32]:
    """Constants that are exactly float32, as an array."""
    found = _operand(call, value)
    if isinstance(found, Elements):
        raise call.refuse(f"its {what} is computed from the input, which no layer of a Model has")
    return found.astype(np.float32)


def _put(call: Call, elements: Elements) -> Values:
    return call.program.values(elements)


# Sums and products


def _add(call: Call, a: Any, b: Any, alpha: Any = 1) -> Values:
    one, other = _operand(call, a), _scaled(call, _operand(call, b), alpha)
    if isinstance(one, Elements) and isinstance(other, Elements):
        return _put(call, arithmetic.add(one, other, call.origin))
    value, constant = (one, other) if isinstance(one, Elements) else (other, one)
    return _put(call, arithmetic.affine(value, None, constant, call.origin))  # type: ignore[arg-type]


def _sub(call: Call, a: Any, b: Any, alpha: Any = 1) -> Values:
    one, other = _operand(call, a), _scaled(call, _operand(call, b), alpha)
    if not isinstance(other, Elements):
        return _put(call, arithmetic.affine(one, None, -other, call.origin))  # type: ignore[arg-type]
    if not isinstance(one, Elements):
        return _put(call, arithmetic.affine(other, -1.0, one, call.origin))
    return _put(call, arithmetic.subtract(one, other, call.origin))


def _rsub(call: Call, a: Any, b: Any, alpha: Any = 1) -> Values:
    return _sub(call, b, a, alpha)


def _neg(call: Call, a: Values) -> Values:
    return _put(call, arithmetic.negative(call.elements(a), call.origin))


def _mul(call: Call, a: Any, b: Any) -> Values:
    one, other = _operand(call, a), _operand(call, b)
    if isinstance(one, Elements) and isinstance(other, Elements):
        return _put(call, arithmetic.multiply(one, other, call.origin))
    value, constant = (one, other) if isinstance(one, Elements) else (other, one)
    return _put(call, arithmetic.affine(value, constant, None, call.origin))  # type: ignore[arg-type]


def _div(call: Call, a: Any, b: Any, rounding_mode: str | None = None) -> Values:
    one, other = _operand(call, a), _operand(call, b)
    if rounding_mode is not None:
        raise call.refuse(f"it rounds a quotient ({rounding_mode}), which no layer of a Model does")
    if not isinstance(one, Elements):
        raise call.refuse("it divides by a value of the network, which no layer of a Model does")
    if isinstance(other, Elements):
        return _put(call, arithmetic.divide(one, other, call.origin))
    return _put(call, arithmetic.affine(one, reciprocal(call, other), None, call.origin))


def reciprocal(call: Call, divisor: Floats) -> Floats:
    """1 / divisor, rounded to float32 once, as torch_check.rounding has it too."""
    if not divisor.all():
        raise call.refuse("it divides by 0")
    return (1 / divisor).astype(np.float32).astype(np.float64)


def _scaled(call: Call, value: Elements | Floats, factor: Any) -> Elements | Floats:
    if factor == 1:
        return value
    single = float(np.float32(factor))
    if isinstance(value, Elements):
        return arithmetic.affine(value, single, None, call.origin)
    return (single * value).astype(np.float32).astype(np.float64)


def _addcmul(call: Call, a: Any, b: Any, c: Any, value: Any = 1) -> Values:
    return _add(call, a, _product(call, b, c), value)


def _product(call: Call, a: Any, b: Any) -> Any:
    if all(not isinstance(v, Values) or v.constant for v in (a, b)):
        import torch

        one, other = _operand(call, a), _operand(call, b)
        return call.program.encoded(torch.from_numpy(np.asarray(one * other)).float())  # type: ignore[operator]
    return _mul(call, a, b)


def _lerp(call: Call, start: Any, end: Any, weight: Any) -> Values:
    """The convex sum start + weight * (end - start), as gated cells have it."""
    return _add(call, start, _product(call, weight, _sub(call, end, start)))


def _power(call: Call, a: Values, exponent: Any) -> Values:
    if not isinstance(exponent, int | float) or exponent not in (1, 2):
        raise UnknownOperator(call.origin)
    return a if exponent == 1 else _mul(call, a, a)


def _sum(call: Call, value: Values, dim: Any = None, keepdim: bool = False, **_: Any) -> Values:
    return _total(call, value, dim, keepdim, 1.0)


def _mean(call: Call, value: Values, dim: Any = None, keepdim: bool = False, **_: Any) -> Values:
    axes = _axes(value, dim)
    count = int(np.prod([value.shape[k] for k in axes]))
    return _total(call, value, dim, keepdim, float(np.float32(1 / count)))


def _axes(value: Values, dim: Any) -> list[int]:
    count = len(value.shape)
    if dim is None or dim == []:
        return list(range(count))
    return [k % count for k in ([dim] if isinstance(dim, int) else dim)]


def _total(call: Call, value: Values, dim: Any, keepdim: bool, factor: float) -> Values:
    """A weighted sum over axes that hold values of one step."""
    axes = _axes(value, dim)
    elements = call.elements(value)
    where = elements.trace.where(elements.numbers)
    for part, kind in ((where.time, "steps"), (where.batch, "sequences of the batch")):
        if any((part != part.take([0], axis)).any() for axis in axes):
            raise call.refuse(
                f"it takes a sum or mean over several {kind}, for which a Model has no layer: each "
                "of its outputs is made of the steps so far, one by one"
            )
    kept = [k for k in range(len(value.shape)) if k not in axes]
    shape = tuple(value.shape[k] for k in kept)
    rows = elements.moved(lambda n: n.transpose(*kept, *axes).reshape(*shape, -1))
    try:
        size = rows.shape[-1]
        matrix = np.full((1, size), factor, np.float32)
        made = rows.trace.apply(rows, Dense(matrix), call.origin).moved(lambda n: n[..., 0])
    except ReaderError as error:
        # Each output adds other values: as many sums of places as there are terms.
        if isinstance(error, WrongLayout) or size > MOST_TERMS:
            raise
        made = rows.moved(lambda n: n[..., 0])
        for k in range(1, size):
            made = arithmetic.add(made, _slice(rows, k), call.origin)
        made = arithmetic.affine(made, factor, None, call.origin)
    if keepdim:
        full = tuple(1 if k in axes else n for k, n in enumerate(value.shape))
        made = made.moved(lambda n: n.reshape(full))
    return _put(call, made)


def _slice(rows: Elements, k: int) -> Elements:
    return rows.moved(lambda n: n[..., k])


# Matrices


def _linear(call: Call, x: Values, weight: Any, bias: Any = None) -> Values:
    matrix = _weights(call, weight, "weight")
    if x.constant:
        raise call.refuse("its weight is computed from the input, which no layer of a Model has")
    value = call.elements(x)
    vector = None if bias is None else _weights(call, bias, "bias")
    if matrix.ndim == 1:
        made = value.trace.apply(value, Dense(matrix[None], None), call.origin)
        made = made.moved(lambda n: n[..., 0])
        return _put(
            call, made if vector is None else arithmetic.affine(made, None, vector, call.origin)
        )
    return _put(call, value.trace.apply(value, Dense(matrix, vector), call.origin))


def _matmul(call: Call, a: Any, b: Any) -> Values:
    if isinstance(a, Values) and isinstance(b, Values) and not (a.constant or b.constant):
        raise call.refuse("it multiplies values of the network by each other, as attention does")
    if b.constant:
        value, matrix = call.elements(a), _matrix(call, b)
        if matrix.ndim == 1:
            return _linear(call, a, b)
        return _put(call, value.trace.apply(value, Dense(matrix.T.copy()), call.origin))
    matrix, value = _matrix(call, a), call.elements(b)
    if len(b.shape) == 1:
        made = value.trace.apply(value, Dense(np.atleast_2d(matrix)), call.origin)
        return _put(call, made if matrix.ndim == 2 else made.moved(lambda n: n[..., 0]))
    columns = value.last_axis(-2)
    made = value.trace.apply(columns, Dense(np.atleast_2d(matrix)), call.origin)
    made = made.moved(lambda n: n.swapaxes(-1, -2))
    return _put(call, made if matrix.ndim == 2 else made.moved(lambda n: n[..., 0, :]))


def _matrix(call: Call, value: Values) -> NDArray[np.float32]:
    """A constant matrix, the same for every sequence where it has more axes."""
    matrix = _weights(call, value, "matrix")
    while matrix.ndim > 2:
        if (matrix != matrix[:1]).any():
            raise call.refuse("its matrices differ from step to step or sequence to sequence")
        matrix = matrix[0]
    return matrix


def _addmm(call: Call, bias: Any, a: Any, b: Any, beta: Any = 1, alpha: Any = 1) -> Values:
    product = _put_scaled(call, _matmul(call, a, b), alpha)
    if beta == 0:
        return product
    if bias.constant:
        import torch

        scaled = _scaled(call, call.program.decoded(bias), beta)
        return _add(call, product, call.program.encoded(torch.from_numpy(np.array(scaled))))
    return _add(call, product, _put_scaled(call, bias, beta))


def _put_scaled(call: Call, value: Values, factor: Any) -> Values:
    return value if factor == 1 else _mul(call, value, factor)


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
    array = _weights(call, operands[1 - traced[0]], "operand")
    rows = value.moved(lambda n: n.transpose([x.index(c) for c in [*kept, *summed]]))
    shape = rows.shape[: len(kept)]
    rows = rows.moved(lambda n: n.reshape(*shape, -1))
    matrix = array.transpose([w.index(c) for c in [*free, *summed]])
    outs = matrix.shape[: len(free)]
    made = value.trace.apply(rows, Dense(matrix.reshape(-1, rows.shape[-1]).copy()), call.origin)
    made = made.moved(lambda n: n.reshape(*shape, *outs))
    order = [[*kept, *free].index(c) for c in output]
    return _put(call, made.moved(lambda n: n.transpose(order)))


# Activations and norms


def _activation(kind: str) -> Callable[..., Values]:
    def activate(call: Call, x: Values) -> Values:
        value = call.elements(x)
        return _put(call, value.trace.activate(value, kind, call.origin))

    return activate


def _softmax(call: Call, x: Values, dim: int, *rest: Any, **_: Any) -> Values:
    value = call.elements(x).last_axis(dim)
    made = value.trace.activate(value, "softmax", call.origin)
    return _put(call, made.moved(lambda n: np.moveaxis(n, -1, dim)))


def _clamp(call: Call, x: Values, min: Any = None, max: Any = None) -> Values:
    # clamp(min=0) is relu, NaN included; any other bound is no layer's.
    if max is None and isinstance(min, int | float) and min == 0:
        return _activation("relu")(call, x)
    raise UnknownOperator(call.origin)


def _clamp_min(call: Call, x: Values, min: Any) -> Values:
    return _clamp(call, x, min)


def check_norm(origin: str, shape: Sequence[int]) -> None:
    """Raise ReaderError unless a LayerNorm of this normalized_shape is over one axis alone."""
    if len(shape) != 1:
        raise ReaderError(
            f"{origin}: expected a norm over the last axis alone, the values of one step, found "
            f"normalized_shape {tuple(shape)}: over {len(shape)} axes its mean takes in other "
            "steps, which a live stream does not have yet"
        )


def _layer_norm(
    call: Call,
    x: Values,
    shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *_: Any,
) -> Values:
    check_norm(call.origin, shape)
    ones = np.ones(tuple(shape), np.float32)
    scale = ones if weight is None else _weights(call, weight, "weight")
    shift = None if bias is None else _weights(call, bias, "bias")
    value = call.elements(x)
    return _put(call, value.trace.apply(value, LayerNorm(scale, shift, float(eps)), call.origin))


def _batch_norm(
    call: Call, x: Values, weight: Any, bias: Any, mean: Any, var: Any, training: bool,
    momentum: float, eps: float, *_: Any,
) -> Values:  # fmt: skip
    if training or mean is None or var is None:
        raise call.refuse(
            "expected running statistics, found none (track_running_stats=False, or training): "
            "what it computes depends on the rest of the batch, which one live stream does not have"
        )
    scale, shift = torch_layers.folded(
        None if weight is None else _weights(call, weight, "weight"),
        None if bias is None else _weights(call, bias, "bias"),
        _weights(call, mean, "running mean"),
        _weights(call, var, "running variance"),
        eps,
    )
    around = (-1, *(1,) * (len(x.shape) - 2))
    value = call.elements(x)
    scales, shifts = scale.reshape(around), shift.reshape(around)
    return _put(call, arithmetic.affine(value, scales, shifts, call.origin))


def _dropout(call: Call, x: Values, *_: Any) -> Values:
    return x


OPERATORS: dict[str, Callable[..., Any]] = {
    "add": _add,
    "sub": _sub,
    "subtract": _sub,
    "rsub": _rsub,
    "neg": _neg,
    "negative": _neg,
    "mul": _mul,
    "multiply": _mul,
    "div": _div,
    "divide": _div,
    "true_divide": _div,
    "addcmul": _addcmul,
    "lerp": _lerp,
    "pow": _power,
    "square": lambda call, a: _mul(call, a, a),
    "sum": _sum,
    "mean": _mean,
    "linear": _linear,
    "matmul": _matmul,
    "mm": _matmul,
    "bmm": _matmul,
    "mv": _matmul,
    "dot": _matmul,
    "addmm": _addmm,
    "baddbmm": _addmm,
    "einsum": _einsum,
    "relu": _activation("relu"),
    "tanh": _activation("tanh"),
    "sigmoid": _activation("sigmoid"),
    "softmax": _softmax,
    "_softmax": _softmax,
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": _clamp_min,
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout"), _dropout),
    "feature_alpha_dropout": _dropout,
    **torch_layers.RECURRENT,
}

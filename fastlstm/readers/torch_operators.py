"""The operators of torch that a Model has a layer for, each on elements of a trace.

Constants are exactly float32 here. What needs a layer that no Model has is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ReaderError
from fastlstm.model import Dense, LayerNorm
from fastlstm.readers import arithmetic, torch_layers
from fastlstm.readers.batch_norm import folded
from fastlstm.readers.elements import Elements, WrongLayout
from fastlstm.readers.torch_moves import Call, UnknownOperator, Values
from fastlstm.readers.torch_operands import operand, put, scaled, weights
from fastlstm.readers.torch_products import PRODUCTS

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
    if name in torch_layers.RECURRENT or "attention" in name:
        return True
    return "dropout" in name and len(args) > 2 and args[2] is False


# Sums and products


def _add(call: Call, a: Any, b: Any, alpha: Any = 1) -> Values:
    one, other = operand(call, a), scaled(call, operand(call, b), alpha)
    if isinstance(one, Elements) and isinstance(other, Elements):
        return put(call, arithmetic.add(one, other, call.origin))
    value, constant = (one, other) if isinstance(one, Elements) else (other, one)
    return put(call, arithmetic.affine(value, None, constant, call.origin))  # type: ignore[arg-type]


def _sub(call: Call, a: Any, b: Any, alpha: Any = 1) -> Values:
    one, other = operand(call, a), scaled(call, operand(call, b), alpha)
    if not isinstance(other, Elements):
        return put(call, arithmetic.affine(one, None, -other, call.origin))  # type: ignore[arg-type]
    if not isinstance(one, Elements):
        return put(call, arithmetic.affine(other, -1.0, one, call.origin))
    return put(call, arithmetic.subtract(one, other, call.origin))


def _rsub(call: Call, a: Any, b: Any, alpha: Any = 1) -> Values:
    return _sub(call, b, a, alpha)


def _neg(call: Call, a: Values) -> Values:
    return put(call, arithmetic.negative(call.elements(a), call.origin))


def _mul(call: Call, a: Any, b: Any) -> Values:
    one, other = operand(call, a), operand(call, b)
    if isinstance(one, Elements) and isinstance(other, Elements):
        return put(call, arithmetic.multiply(one, other, call.origin))
    value, constant = (one, other) if isinstance(one, Elements) else (other, one)
    return put(call, arithmetic.affine(value, constant, None, call.origin))  # type: ignore[arg-type]


def _div(call: Call, a: Any, b: Any, rounding_mode: str | None = None) -> Values:
    one, other = operand(call, a), operand(call, b)
    if rounding_mode is not None:
        raise call.refuse(f"it rounds a quotient ({rounding_mode}), which no layer of a Model does")
    if not isinstance(one, Elements):
        raise call.refuse("it divides by a value of the network, which no layer of a Model does")
    if isinstance(other, Elements):
        return put(call, arithmetic.divide(one, other, call.origin))
    return put(call, arithmetic.affine(one, reciprocal(call, other), None, call.origin))


def reciprocal(call: Call, divisor: Floats) -> Floats:
    """1 / divisor, rounded to float32 once, as torch_check.rounding has it too."""
    if not divisor.all():
        raise call.refuse("it divides by 0")
    return (1 / divisor).astype(np.float32).astype(np.float64)


def _addcmul(call: Call, a: Any, b: Any, c: Any, value: Any = 1) -> Values:
    return _add(call, a, _product(call, b, c), value)


def _product(call: Call, a: Any, b: Any) -> Any:
    if all(not isinstance(v, Values) or v.constant for v in (a, b)):
        import torch

        one, other = operand(call, a), operand(call, b)
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
    return put(call, made)


def _slice(rows: Elements, k: int) -> Elements:
    return rows.moved(lambda n: n[..., k])


# Activations and norms


def _activation(kind: str) -> Callable[..., Values]:
    def activate(call: Call, x: Values) -> Values:
        value = call.elements(x)
        return put(call, value.trace.activate(value, kind, call.origin))

    return activate


def _softmax(call: Call, x: Values, dim: int, *rest: Any, **_: Any) -> Values:
    value = call.elements(x).last_axis(dim)
    made = value.trace.activate(value, "softmax", call.origin)
    return put(call, made.moved(lambda n: np.moveaxis(n, -1, dim)))


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
    scale = ones if weight is None else weights(call, weight, "weight")
    shift = None if bias is None else weights(call, bias, "bias")
    value = call.elements(x)
    return put(call, value.trace.apply(value, LayerNorm(scale, shift, float(eps)), call.origin))


def _batch_norm(
    call: Call, x: Values, weight: Any, bias: Any, mean: Any, var: Any, training: bool,
    momentum: float, eps: float, *_: Any,
) -> Values:  # fmt: skip
    if training or mean is None or var is None:
        raise call.refuse(
            "expected running statistics, found none (track_running_stats=False, or training): "
            "what it computes depends on the rest of the batch, which one live stream does not have"
        )
    scale, shift = folded(
        None if weight is None else weights(call, weight, "weight"),
        None if bias is None else weights(call, bias, "bias"),
        weights(call, mean, "running mean"),
        weights(call, var, "running variance"),
        eps,
    )
    around = (-1, *(1,) * (len(x.shape) - 2))
    value = call.elements(x)
    scales, shifts = scale.reshape(around), shift.reshape(around)
    return put(call, arithmetic.affine(value, scales, shifts, call.origin))


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
    **PRODUCTS,
    **torch_layers.RECURRENT,
}

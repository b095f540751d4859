"""The operators of ONNX on traced values: each understood exactly, or refused by its name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.model import Dense
from fastlstm.readers import arithmetic, onnx_norms, onnx_single
from fastlstm.readers.elements import Elements
from fastlstm.readers.onnx_node import Statistic
from fastlstm.readers.onnx_projection import projected
from fastlstm.readers.onnx_recurrent import paired, recurrent

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlstm.readers.onnx_node import Constant, Node, Value

SUBGRAPHS = ("If", "Loop", "SequenceMap")


def results(node: Node) -> list[Value]:
    """What a standard operator makes of its inputs. Raises ReaderError."""
    if node.kind in SUBGRAPHS:
        raise node.refuse(
            f"a {node.kind} holds a graph of its own, which no layer of a Model runs; export the "
            "network so that its recurrent layers are LSTM, GRU or RNN nodes"
        )
    if node.kind in ("Shape", "Size"):
        value = node.value(0)
        if isinstance(value, Elements):
            return list(onnx_single.run(node, [value.numbers]))
    constants = [value for value in node.inputs if value is None or isinstance(value, np.ndarray)]
    if any(isinstance(value, Statistic) for value in node.inputs):
        found = onnx_norms.statistic(node)
        if found is not None:
            return found
        node.rounded.append(node.origin)
        plain: list[Value] = [
            onnx_norms.mean(value, node.origin) if isinstance(value, Statistic) else value
            for value in node.inputs
        ]
        return results(replace(node, inputs=plain))
    if len(constants) == len(node.inputs):
        if node.kind not in onnx_single.FOLDED:
            raise node.refuse("on constants alone this operator is not known")
        return list(onnx_single.run(node, constants))
    if node.kind in onnx_single.MOVING:
        return _moved(node)
    rule = RULES.get(node.kind)
    if rule is None:
        raise node.refuse(f"no layer of a Model computes {node.kind}")
    return rule(node)


def _moved(node: Node) -> list[Value]:
    """An operator that only moves values, run on their numbers."""
    # Where a value of the network may stand; what else there is are sizes, axes and indices.
    places = range(len(node.inputs)) if node.kind == "Concat" else (0,)
    inputs: list[Constant | None] = []
    for k, value in enumerate(node.inputs):
        if k in places:
            elements = node.known(value) if isinstance(value, np.ndarray) else node.traced(k)
            inputs.append(elements.numbers)
        else:
            inputs.append(node.optional(k))
    if node.kind == "Pad":
        inputs[2:3] = [_filling(node)]
    found = [Elements(node.trace, made) for made in onnx_single.run(node, inputs)]
    if node.kind == "Concat":
        return [paired(value, node.origin) for value in found]
    return list(found)


def _filling(node: Node) -> Constant:
    """The number of the element that Pad puts around a value."""
    if node.version < 11:
        raise node.refuse("expected a Pad of version 11 or later on a value of the network")
    given = node.optional(2)
    filling = np.zeros((), np.float32) if given is None or not given.size else given.reshape(())
    return node.known(filling).numbers.reshape(())


def _where(node: Node) -> list[Value]:
    condition = node.constant(0).astype(bool)
    shapes = [condition.shape, *(np.shape(_numbers(node, k)) for k in (1, 2))]
    shape = np.broadcast_shapes(*shapes)
    node.make(*shape)
    for k, all_of_it in ((1, condition.all()), (2, not condition.any())):
        if all_of_it:
            value = node.value(k)
            if isinstance(value, Elements):
                return [value.moved(lambda a: np.broadcast_to(a, shape))]
            return [np.broadcast_to(node.constant(k), shape)]
    numbers = (_numbers(node, k, mixed=True) for k in (1, 2))
    return [Elements(node.trace, np.where(condition, *numbers))]


def _numbers(node: Node, k: int, *, mixed: bool = False) -> Any:
    value = node.value(k)
    if isinstance(value, Elements):
        return value.numbers
    constant = node.constant(k)
    return node.known(constant).numbers if mixed else constant


# Arithmetic


def _pair(node: Node) -> tuple[Any, Any]:
    """Both inputs, whose result there is room for; constants as float32 or float64."""
    if len(node.inputs) != 2 or any(value is None for value in node.inputs):
        raise node.refuse(f"expected two inputs, found {len(node.inputs)}")
    a, b = node.inputs
    assert a is not None
    assert b is not None
    try:
        shape = np.broadcast_shapes(_shape(a), _shape(b))
    except ValueError:
        raise node.refuse(f"shapes {_shape(a)} and {_shape(b)} do not go together") from None
    if node.version < 7 and _shape(a) != _shape(b) and node.integer("axis", -1) != -1:
        raise node.refuse("expected operators of version 7 or later, which broadcast by themselves")
    node.make(*shape)
    return a, b


def _shape(value: Value) -> tuple[int, ...]:
    return value.shape if isinstance(value, Elements) else np.shape(value)  # type: ignore[arg-type]


def _add(node: Node) -> list[Value]:
    a, b = _pair(node)
    if isinstance(a, Elements) and isinstance(b, Elements):
        return [arithmetic.add(a, b, node.origin)]
    value, constant = (a, b) if isinstance(a, Elements) else (b, a)
    return [arithmetic.affine(value, None, node.single(constant, "its constant"), node.origin)]


def _sub(node: Node) -> list[Value]:
    a, b = _pair(node)
    if isinstance(a, Elements) and isinstance(b, Elements):
        return [arithmetic.subtract(a, b, node.origin)]
    if isinstance(a, Elements):
        return [arithmetic.affine(a, None, -node.single(b, "its constant"), node.origin)]
    return [arithmetic.affine(b, -1.0, node.single(a, "its constant"), node.origin)]


def _mul(node: Node) -> list[Value]:
    a, b = _pair(node)
    if isinstance(a, Elements) and isinstance(b, Elements):
        return [arithmetic.multiply(a, b, node.origin)]
    value, constant = (a, b) if isinstance(a, Elements) else (b, a)
    return [arithmetic.affine(value, node.single(constant, "its constant"), None, node.origin)]


def _div(node: Node) -> list[Value]:
    a, b = _pair(node)
    if not isinstance(a, Elements):
        raise node.refuse("it divides by a value of the network, which no layer of a Model does")
    if isinstance(b, Elements):
        return [arithmetic.divide(a, b, node.origin)]
    divisor = node.single(b, "its constant").astype(np.float64)
    if not divisor.all():
        raise node.refuse("it divides by 0")
    scale = (1 / divisor).astype(np.float32)
    if (scale * divisor != 1).any():
        node.rounded.append(node.origin)
    return [arithmetic.affine(a, node.single(scale, "1 over its constant"), None, node.origin)]


def _sum(node: Node) -> list[Value]:
    total, *rest = node.inputs
    for value in rest:
        pair = [v for v in (total, value) if isinstance(v, Elements)]
        node.make(*np.broadcast_shapes(_shape(total), _shape(value)))
        if len(pair) == 2:
            total = arithmetic.add(pair[0], pair[1], node.origin)
        elif pair:
            constant = next(v for v in (total, value) if isinstance(v, np.ndarray))
            shift = node.single(constant, "its constant")
            total = arithmetic.affine(pair[0], None, shift, node.origin)
        else:
            total = node.single(np.add(total, value), "its constants")  # type: ignore[arg-type]
    return [total]


# Products with weights


def _matmul(node: Node) -> list[Value]:
    a, b = node.value(0), node.value(1)
    if isinstance(a, Elements) and isinstance(b, Elements):
        raise node.refuse("it multiplies two values of the network, which no layer of a Model does")
    if isinstance(a, Elements):
        return [_weighted(node, a, node.single(node.constant(1), "input 1"))]
    value, left = node.traced(1), node.single(node.constant(0), "input 0")
    if left.ndim != 2 or len(value.shape) < 2:
        raise node.refuse(
            f"expected two axes for its constant and as many for its value, found {left.shape} and "
            f"{value.shape}"
        )
    made = _weighted(node, value.moved(lambda n: n.swapaxes(-1, -2)), left.T)
    return [made.moved(lambda n: n.swapaxes(-1, -2))]


def _weighted(node: Node, value: Elements, weight: Any) -> Elements:
    """Value @ weight, as NumPy and ONNX have it for any number of axes."""
    if not value.shape or not weight.ndim:
        raise node.refuse("expected matrices, found single numbers")
    if weight.ndim == 1:
        return _weighted(node, value, weight[:, None]).moved(lambda n: n[..., 0])
    if weight.shape[-2] != value.shape[-1]:
        raise node.refuse(f"shapes {value.shape} and {weight.shape} do not go together")
    while weight.ndim > 2 and len(weight) == 1 and weight.ndim <= len(value.shape):
        weight = weight[0]
    node.make(*value.shape[:-1], weight.shape[-1])
    if (folded := projected(value, weight, node.origin)) is not None:
        node.rounded.append(node.origin)  # R holds the product of two matrices, rounded
        return folded
    if weight.ndim == 2:
        return value.trace.apply(value, Dense(weight.T.copy()), node.origin)
    if len(value.shape) < 2:
        raise node.refuse(f"shapes {value.shape} and {weight.shape} do not go together")
    shape = np.broadcast_shapes(value.shape[:-2], weight.shape[:-2])
    node.make(*shape, *value.shape[-2:])
    value = value.moved(lambda n: np.broadcast_to(n, (*shape, *n.shape[-2:])))
    weights = np.broadcast_to(weight, (*shape, *weight.shape[-2:]))
    numbers = np.empty((*value.shape[:-1], weight.shape[-1]), np.int64)
    for index in np.ndindex(*shape):
        dense, part = Dense(weights[index].T.copy()), value.numbers[index]
        made = value.trace.apply(Elements(value.trace, part), dense, node.origin)
        numbers[index] = made.numbers
    return Elements(value.trace, numbers)


def _gemm(node: Node) -> list[Value]:
    operands: list[Any] = []
    for k, name in enumerate(("transA", "transB")):
        value: Any = node.value(k)
        if not isinstance(value, Elements):
            value = node.weights(k, None, None)
        if value is None or len(value.shape) != 2:
            raise node.refuse(f"expected two axes for input {k}, found others")
        if node.integer(name, 0):
            value = value.moved(lambda n: n.T) if isinstance(value, Elements) else value.T
        operands.append(value)
    a, b = operands
    alpha, beta = node.floating("alpha", 1.0), node.floating("beta", 1.0)
    if isinstance(a, Elements) and isinstance(b, Elements):
        raise node.refuse("it multiplies two values of the network, which no layer of a Model does")
    if isinstance(a, Elements):
        made = _weighted(node, a, _scaled(node, b, alpha))
    else:
        made = _weighted(node, b.moved(lambda n: n.T), _scaled(node, a, alpha).T)
        made = made.moved(lambda n: n.T)
    c = node.value(2)
    if c is None or beta == 0:
        return [made]
    if isinstance(c, Elements):
        if beta != 1:
            c = arithmetic.affine(c, beta, None, node.origin)
        return [arithmetic.add(made, c, node.origin)]
    shift = node.single(node.constant(2), "input 2")
    if np.broadcast_shapes(made.shape, shift.shape) != made.shape:
        raise node.refuse(f"expected a bias that fits {made.shape}, found {shift.shape}")
    return [arithmetic.affine(made, None, _scaled(node, shift, beta), node.origin)]


def _scaled(node: Node, array: Any, factor: float) -> Any:
    """`array` times alpha or beta of a Gemm, where float32 holds that exactly."""
    exact = array.astype(np.float64) * float(np.float32(factor))
    found = exact.astype(np.float32)
    if not np.array_equal(found, exact):
        raise node.refuse(
            f"its factor of {factor:g} cannot go into its weights without rounding them; export "
            "the network with alpha and beta 1"
        )
    return found


# Activations


def _activation(node: Node) -> list[Value]:
    value = node.traced(0)
    node.make(*value.shape)
    return [value.trace.activate(value, node.kind.lower(), node.origin)]


def _softmax(node: Node) -> list[Value]:
    value = node.traced(0)
    node.make(*value.shape)
    rank = len(value.shape)
    axis = node.integer("axis", -1 if node.version >= 13 else 1)
    if not -rank <= axis < rank:
        raise node.refuse(f"expected an axis of shape {value.shape}, found {axis}")
    axis %= rank
    if node.version < 13:  # it runs over all axes from this one on
        real = [k for k in range(axis, rank) if value.shape[k] != 1]
        if len(real) > 1:
            raise node.refuse(f"it runs over the axes {axis} to {rank - 1}, more than one step")
        axis = real[0] if real else rank - 1
    made = value.trace.activate(value.last_axis(axis), "softmax", node.origin)
    return [made.moved(lambda n: np.moveaxis(n, -1, axis))]


# Values as they are


def _cast(node: Node) -> list[Value]:
    from onnx import TensorProto

    if node.integer("to", 0) not in (TensorProto.FLOAT, TensorProto.DOUBLE):
        found = node.integer("to", 0)
        kinds = {v: k for k, v in TensorProto.DataType.items()}
        raise node.refuse(
            f"it turns values of the network into {kinds.get(found, found)}, which rounds them; a "
            "Model computes in float32"
        )
    return [node.traced(0)]


def _dropout(node: Node) -> list[Value]:
    training = node.optional(2)
    if training is not None and training.any():
        raise node.refuse(
            "expected inference, found training_mode: export the network in eval mode"
        )
    return [node.traced(0)]


def _neg(node: Node) -> list[Value]:
    return [arithmetic.negative(node.traced(0), node.origin)]


RULES: dict[str, Callable[[Node], list[Value]]] = {
    "Add": _add,
    "BatchNormalization": onnx_norms.batch_normalization,
    "Cast": _cast,
    "Div": _div,
    "Dropout": _dropout,
    **dict.fromkeys(("GRU", "LSTM", "RNN"), recurrent),
    "Gemm": _gemm,
    "LayerNormalization": onnx_norms.layer_normalization,
    "MatMul": _matmul,
    "Mul": _mul,
    "Neg": _neg,
    "ReduceMean": onnx_norms.reduce_mean,
    **dict.fromkeys(("Relu", "Sigmoid", "Tanh"), _activation),
    "Softmax": _softmax,
    "Sub": _sub,
    "Sum": _sum,
    "Where": _where,
}

"""One node alone, run by onnx's own reference evaluator, after a look at how much it would make.

On constants it folds them; on the numbers of a traced tensor's elements it moves those.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ReaderError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlstm.readers.onnx_node import Constant, Node

    Inputs = list[Constant | None]


def _first(node: Node, inputs: Inputs) -> int:
    return _need(node, inputs, 0).size


def _all(node: Node, inputs: Inputs) -> int:
    return sum(value.size for value in inputs if value is not None)


def _broadcast(node: Node, inputs: Inputs) -> int:
    shapes = [value.shape for value in inputs if value is not None]
    return math.prod(np.broadcast_shapes(*shapes))


def _sizes(values: Constant) -> list[int]:
    """Sizes that a node is given as a tensor, as Python's integers, which cannot overflow."""
    return [int(k) for k in np.ravel(values)]


def _expanded(node: Node, inputs: Inputs) -> int:
    shape = tuple(_sizes(_need(node, inputs, 1)))
    if any(size < 0 or size > 2**40 for size in shape):
        raise node.refuse(f"expected sizes of a real tensor, found {shape}")
    return math.prod(np.broadcast_shapes(_need(node, inputs, 0).shape, shape))


def _of_shape(node: Node, inputs: Inputs) -> int:
    shape = _sizes(_need(node, inputs, 0))
    if any(size < 0 for size in shape):
        raise node.refuse(f"expected sizes of at least 0, found {tuple(shape)}")
    return math.prod(shape)


def _split(node: Node, inputs: Inputs) -> int:
    data, axis = _need(node, inputs, 0), node.integer("axis", 0)
    given = inputs[1] if len(inputs) > 1 else None
    sizes = node.integers("split") if given is None else _sizes(given)
    if not -data.ndim <= axis < data.ndim:
        raise node.refuse(f"expected an axis of shape {data.shape}, found {axis}")
    if sizes is not None and (
        min(sizes, default=-1) < 0
        or sum(sizes) != data.shape[axis]
        or len(sizes) != len(node.proto.output)
    ):
        raise node.refuse(
            f"expected {len(node.proto.output)} sizes that make up {data.shape[axis]}, found "
            f"{sizes}"
        )
    return data.size


def _tiled(node: Node, inputs: Inputs) -> int:
    repeats = _sizes(_need(node, inputs, 1))
    return _need(node, inputs, 0).size * math.prod(abs(k) for k in repeats)


def _range(node: Node, inputs: Inputs) -> int:
    start, limit, delta = (float(np.ravel(_need(node, inputs, k))[0]) for k in range(3))
    if not delta or not all(map(math.isfinite, (start, limit, delta))):
        raise node.refuse("expected finite numbers and a step other than 0")
    return max(0, math.ceil((limit - start) / delta))


def _gathered(node: Node, inputs: Inputs) -> int:
    data, indices = _need(node, inputs, 0), _need(node, inputs, 1)
    axis = node.integer("axis", 0)
    if not -data.ndim <= axis < data.ndim or not data.shape[axis]:
        raise node.refuse(f"expected an axis of shape {data.shape}, found {axis}")
    return int(data.size // data.shape[axis] * indices.size)


def _gathered_nd(node: Node, inputs: Inputs) -> int:
    data, indices = _need(node, inputs, 0), _need(node, inputs, 1)
    shared = node.integer("batch_dims", 0)
    depth = indices.shape[-1] if indices.ndim else 0
    return math.prod(indices.shape[:-1]) * math.prod(data.shape[max(shared, 0) + depth :])


def _padded(node: Node, inputs: Inputs) -> int:
    data = _need(node, inputs, 0)
    pads = node.integers("pads") or node.integers("paddings") or _sizes(_need(node, inputs, 1))
    given = inputs[3] if len(inputs) > 3 else None
    axes = range(data.ndim) if given is None else [k % max(data.ndim, 1) for k in _sizes(given)]
    if len(pads) != 2 * len(axes):
        raise node.refuse(f"expected {2 * len(axes)} pads, found {len(pads)}")
    sizes = list(data.shape)
    for k, axis in enumerate(axes):
        sizes[axis] += max(pads[k], 0) + max(pads[k + len(axes)], 0)
    return math.prod(sizes)


def _product(node: Node, inputs: Inputs) -> int:
    a, b = _need(node, inputs, 0), _need(node, inputs, 1)
    summed = (
        0 if node.integer("transA", 0) else max(a.ndim - 1, 0),
        1 if node.integer("transB", 0) else max(b.ndim - 2, 0),
    )
    rows, columns = (
        math.prod(size for axis, size in enumerate(value.shape) if axis != k)
        for value, k in zip((a, b), summed, strict=True)
    )
    # Two long matrices make a small one slowly.
    if rows * columns * max((*a.shape, 1)) > MOST_WORK:
        raise node.refuse(f"expected weights of real size, found {a.shape} and {b.shape}")
    return int(rows * columns)


def _need(node: Node, inputs: Inputs, k: int) -> Constant:
    value = inputs[k] if k < len(inputs) else None
    if value is None:
        raise node.refuse(f"expected an input {k}, found none")
    return value


# A second's work.
MOST_WORK = 2**36

# What a node makes at most, by its operator. Operators that only move values come first.
MOVING: dict[str, Callable[[Node, Inputs], int]] = {
    **dict.fromkeys(
        ("Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"),
        _first,
    ),
    "Concat": _all,
    "Expand": _expanded,
    "Gather": _gathered,
    "GatherElements": lambda node, inputs: _need(node, inputs, 1).size,
    "GatherND": _gathered_nd,
    "Pad": _padded,
    "ReverseSequence": _first,
    "Split": _split,
    "Tile": _tiled,
}
FOLDED: dict[str, Callable[[Node, Inputs], int]] = {
    **MOVING,
    **dict.fromkeys(
        (
            *("Abs", "Cast", "Ceil", "Exp", "Floor", "Log", "Neg", "Not", "Reciprocal", "Relu"),
            *("Round", "Sigmoid", "Sign", "Sqrt", "Tanh", "Dropout"),
            *("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"),
        ),
        _first,
    ),
    **dict.fromkeys(
        (
            *("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
            *("Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Sum", "Where", "Xor"),
            *("CastLike", "Clip", "DequantizeLinear"),
        ),
        _broadcast,
    ),
    "Constant": lambda node, inputs: 0,  # as large as the file that holds it
    "ConstantOfShape": _of_shape,
    "Gemm": _product,
    "MatMul": _product,
    "Range": _range,
    "Shape": lambda node, inputs: 1,
    "Size": lambda node, inputs: 1,
}


def run(node: Node, inputs: Inputs) -> list[Constant]:
    """What the node makes of `inputs`. Raises ReaderError for too much, or bad attributes."""
    try:
        node.room.take(FOLDED[node.kind](node, inputs), node.origin)
        return _run(node, inputs)
    except ReaderError:
        raise
    except Exception as error:  # the evaluator may raise anything for a malformed node
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise node.refuse(
            f"it cannot be run ({reason}); its inputs or attributes are wrong"
        ) from None


def _run(node: Node, inputs: Inputs) -> list[Constant]:
    import onnx
    from onnx.reference import ReferenceEvaluator

    for name, attribute in node.attributes.items():
        if attribute.type == onnx.AttributeProto.TENSOR:
            node.tensor(name)  # refuses one whose sizes lie
        elif attribute.type not in _PLAIN:
            raise node.refuse(f"its attribute {name!r} is of a kind that no such node has")
    names = ["" if value is None else f"i{k}" for k, value in enumerate(inputs)]
    outputs = [f"o{k}" if name else "" for k, name in enumerate(node.proto.output)]
    proto = onnx.helper.make_node(node.kind, names, outputs)
    proto.attribute.extend(node.attributes.values())
    types = onnx.helper.make_tensor_type_proto
    graph = onnx.helper.make_graph(
        [proto],
        "one",
        [
            onnx.helper.make_value_info(
                name, types(onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            )
            for name, value in zip(names, inputs, strict=True)
            if value is not None
        ],
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in outputs if name],
    )
    opset = onnx.helper.make_opsetid("", node.version)
    model = onnx.helper.make_model(graph, opset_imports=[opset])
    feed = {name: value for name, value in zip(names, inputs, strict=True) if name}
    with np.errstate(all="ignore"):
        made: Any = iter(ReferenceEvaluator(model).run(None, feed))
    results = [next(made) if name else None for name in outputs]
    for result in results:
        if result is not None and not hasattr(result, "dtype"):
            raise node.refuse("it makes no tensor")
    return [np.zeros(0) if result is None else np.asarray(result) for result in results]


# AttributeProto.AttributeType: FLOAT, INT, STRING, FLOATS, INTS, STRINGS.
_PLAIN = (1, 2, 3, 6, 7, 8)

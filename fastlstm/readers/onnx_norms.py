"""Norms of an ONNX graph: LayerNormalization, BatchNormalization, and a layer norm written out.

Before operator version 17 exporters write a layer norm as its formula, mean by mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastlstm.model import Dense, LayerNorm
from fastlstm.readers import arithmetic
from fastlstm.readers.batch_norm import folded
from fastlstm.readers.elements import Elements
from fastlstm.readers.onnx_node import Statistic, shortest

if TYPE_CHECKING:
    from fastlstm.model import Array
    from fastlstm.readers.onnx_node import Node, Value


def layer_normalization(node: Node) -> list[Value]:
    """Over the values of one step, on the last axis."""
    value = node.traced(0)
    axis = node.integer("axis", -1)
    if axis not in (-1, len(value.shape) - 1):
        raise node.refuse(
            f"expected a norm over the last axis alone, the values of one step, found axis {axis} "
            f"of shape {value.shape}: over more axes its mean takes in other steps"
        )
    size = value.shape[-1:]
    weight, bias = (_vector(node, k, size) for k in (1, 2))
    if weight is None:
        raise node.refuse("expected a weight as input 1, found nothing")
    layer = LayerNorm(weight, bias, node.floating("epsilon", 1e-5))
    # eps is taken for the decimal number that the file's float32 stands for.
    node.rounded.append(node.origin)
    return [value.trace.apply(value, layer, node.origin)]


def _vector(node: Node, k: int, size: tuple[int, ...]) -> Array | None:
    found = node.weights(k)
    if found is None:
        return None
    if found.size not in (1, *size):
        raise node.refuse(f"expected {size[0]} values as input {k}, found shape {found.shape}")
    return np.broadcast_to(found.ravel(), size).copy()


def batch_normalization(node: Node) -> list[Value]:
    """By its running statistics, as one scale and one shift, each rounded once to float32."""
    value = node.traced(0)
    if node.integer("training_mode", 0) or len([n for n in node.proto.output if n]) > 1:
        raise node.refuse(
            "expected running statistics (training_mode 0), found that it works out those of the "
            "batch: export the network in eval mode"
        )
    if len(value.shape) < 2:
        raise node.refuse(f"expected at least two axes, found shape {value.shape}")
    size = value.shape[1]
    arrays = [node.weights(k, size) for k in range(1, 5)]
    if any(array is None for array in arrays):
        raise node.refuse("expected scale, bias, mean and variance")
    weight, bias, mean, variance = (array for array in arrays if array is not None)
    eps = node.floating("epsilon", 1e-5)
    if not (variance.astype(np.float64) + eps > 0).all():
        raise node.refuse("expected variances above 0, found others")
    around = (size, *(1,) * (len(value.shape) - 2))
    node.rounded.append(node.origin)
    factor, offset = (a.reshape(around) for a in folded(weight, bias, mean, variance, eps))
    return [arithmetic.affine(value, factor, offset, node.origin)]


def reduce_mean(node: Node) -> list[Value]:
    """The first and the third step of a layer norm that is written out."""
    value = node.value(0)
    of = value.of if isinstance(value, Statistic) else node.traced(0)
    if isinstance(value, Statistic) and value.kind != "squared":
        raise _odd(node, value)
    axes = node.integers("axes")
    if axes is None and (given := node.optional(1)) is not None:
        axes = [int(k) for k in given.ravel()]
    if axes not in ([-1], [len(of.shape) - 1]) or node.integer("keepdims", 1) != 1:
        raise node.refuse(
            f"it takes a mean over the axes {axes} of shape {of.shape}: a Model has means only "
            "over the values of one step, the last axis, which is kept"
        )
    return [Statistic("variance" if isinstance(value, Statistic) else "mean", of)]


def mean(value: Statistic, origin: str) -> Elements:
    """A mean that is no part of a norm: a Dense that adds up the n values of a step by 1 / n."""
    size = value.of.shape[-1]
    return value.of.trace.apply(value.of, Dense(np.full((1, size), 1 / size, np.float32)), origin)


def statistic(node: Node) -> list[Value] | None:
    """What follows after the mean, up to the norm; None where means are used as plain values.

    Raises ReaderError for any other formula.
    """
    kind, values = node.kind, [value for value in node.inputs if value is not None]
    kinds = [value.kind if isinstance(value, Statistic) else "" for value in values]
    first = next(value for value in values if isinstance(value, Statistic))
    if any(
        not np.array_equal(value.of.numbers, first.of.numbers)
        for value in values
        if isinstance(value, Statistic)
    ):
        if all(kind in ("mean", "") for kind in kinds):
            return None
        raise _odd(node, first)
    number = next((v for v in values if isinstance(v, np.ndarray)), None)
    scalar = float(number.ravel()[0]) if number is not None and number.size == 1 else None
    if kind in ("Cast", "Identity"):
        return [first]
    if kind == "ReduceMean":
        return reduce_mean(node)
    match kind, kinds:
        case "Sub", ["", "mean"] if isinstance(x := values[0], Elements):
            if np.array_equal(x.numbers, first.of.numbers):
                return [Statistic("centred", first.of)]
        case "Mul", ["centred", "centred"]:
            return [Statistic("squared", first.of)]
        case "Pow", ["centred", ""] if scalar == 2:
            return [Statistic("squared", first.of)]
        case "Add", ["variance", ""] | ["", "variance"] if scalar is not None:
            return [Statistic("variance + eps", first.of, shortest(scalar))]
        case ("Sqrt", ["variance + eps"]) | ("Pow", ["variance + eps", ""]) if (
            kind == "Sqrt" or scalar == 0.5
        ):
            return [Statistic("deviation", first.of, first.eps)]
        case ("Reciprocal", ["deviation"]) | ("Div", ["", "deviation"]) if (
            kind == "Reciprocal" or scalar == 1
        ):
            return [Statistic("1 / deviation", first.of, first.eps)]
        case (
            ("Div", ["centred", "deviation"])
            | ("Mul", ["centred", "1 / deviation"])
            | ("Mul", ["1 / deviation", "centred"])
        ):
            eps = max(value.eps for value in values if isinstance(value, Statistic))
            layer = LayerNorm(np.ones(first.of.shape[-1], np.float32), None, eps)
            node.rounded.append(node.origin)
            return [first.of.trace.apply(first.of, layer, node.origin)]
    if all(kind in ("mean", "") for kind in kinds):
        return None
    raise _odd(node, first)


def _odd(node: Node, value: Statistic) -> Exception:
    return node.refuse(
        f"it takes the {value.kind} over the values of each step into a formula that is no layer "
        "norm, for which a Model has no layer"
    )

"""The layers of a Model that have no gates: Dense, Affine, a norm, a difference, a residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.base_layer import Array, BaseLayer, StateVector, two_sizes
from fastlstm.errors import ModelError

ACTIVATIONS = ("linear", "relu", "tanh", "sigmoid", "softmax")


@dataclass(frozen=True, eq=False, repr=False)
class Dense(BaseLayer):
    """activation(weight @ x + bias), as `torch.nn.Linear` and an activation after it.

    weight: (output_size, input_size), bias: (output_size,) or None,
    activation: linear, relu, tanh, sigmoid or softmax (over the outputs).
    """

    weight: Array
    bias: Array | None = None
    activation: str = "linear"

    def __post_init__(self) -> None:
        self._check_choice("activation", ACTIVATIONS)
        outputs, inputs = two_sizes(self.kind, "weight", self.weight)
        self._adopt("weight", (outputs, inputs))
        self._adopt("bias", (outputs,))

    @property
    def input_size(self) -> int:
        return int(self.weight.shape[1])

    @property
    def output_size(self) -> int:
        return int(self.weight.shape[0])


@dataclass(frozen=True, eq=False, repr=False)
class Affine(BaseLayer):
    """scale * x + shift, element by element: scaling and its inverse, and folded BatchNorm.

    scale and shift: (size,).
    """

    scale: Array
    shift: Array

    def __post_init__(self) -> None:
        shape: tuple[int, ...] = getattr(self.scale, "shape", ())
        if len(shape) != 1 or shape[0] == 0:
            raise ModelError(
                f"Affine.scale: expected an array of one axis, at least 1 long, found shape {shape}"
            )
        self._adopt("scale", shape)
        self._adopt("shift", shape)

    @property
    def input_size(self) -> int:
        return int(self.scale.shape[0])

    @property
    def output_size(self) -> int:
        return self.input_size


@dataclass(frozen=True, eq=False, repr=False)
class LayerNorm(BaseLayer):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the values of one step.

    As `torch.nn.LayerNorm` over the last axis, whose variance divides by the number of values.
    weight: (size,), bias: (size,) or None.
    """

    weight: Array
    bias: Array | None = None
    eps: float = 1e-5

    def __post_init__(self) -> None:
        shape: tuple[int, ...] = getattr(self.weight, "shape", ())
        if len(shape) != 1 or shape[0] == 0:
            raise ModelError(
                f"LayerNorm.weight: expected an array of one axis, at least 1 long, "
                f"found shape {shape}"
            )
        self._adopt("weight", shape)
        self._adopt("bias", shape)
        # Smaller ones vanish beside any variance in float32; a constant step then divides by 0.
        if not isinstance(self.eps, float) or not 1e-12 <= self.eps < np.inf:
            raise ModelError(
                f"LayerNorm.eps: expected a float of at least 1e-12, found {self.eps!r}"
            )

    @property
    def input_size(self) -> int:
        return int(self.weight.shape[0])

    @property
    def output_size(self) -> int:
        return self.input_size


@dataclass(frozen=True, eq=False, repr=False)
class Difference(BaseLayer):
    """x[t] - x[t - 1], element by element: what changed since the last step.

    x0: (size,), what stands before the first step, zeros if None. The state `x` is the last input.
    """

    size: int
    x0: Array | None = None

    def __post_init__(self) -> None:
        _check_count("Difference.size", self.size)
        self._adopt("x0", (self.size,))

    @property
    def input_size(self) -> int:
        return self.size

    @property
    def output_size(self) -> int:
        return self.size

    @property
    def states(self) -> tuple[StateVector, ...]:
        zeros = np.zeros(self.size, np.float32)
        return (StateVector("x", zeros if self.x0 is None else self.x0),)


@dataclass(frozen=True, eq=False, repr=False)
class Residual(BaseLayer):
    """Ends a residual connection: adds to its input what went into the layer `back` places before.

    y[k] = x[k] + source[columns[k]], where source is that earlier layer's input at the same step.
    The `back` layers in between are the inner chain. With columns 0, 1, 2, ... it is the usual
    skip connection; with the column of one value again and again, every output of a direct
    forecast is relative to that value. Only in a Model, which checks that the source is there.
    """

    back: int
    columns: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_count("Residual.back", self.back)
        try:
            columns = tuple(self.columns)
        except TypeError:
            columns = ()
        if not columns or any(type(k) is not int or k < 0 for k in columns):
            raise ModelError(
                "Residual.columns: expected at least one column of the source, each a whole "
                f"number of at least 0, found {self.columns!r}"
            )
        object.__setattr__(self, "columns", columns)

    @property
    def input_size(self) -> int:
        return len(self.columns)

    @property
    def output_size(self) -> int:
        return len(self.columns)


def _check_count(name: str, value: Any) -> None:
    if type(value) is not int or value < 1:
        raise ModelError(f"{name}: expected a whole number of at least 1, found {value!r}")

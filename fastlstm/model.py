"""Model and its layers: float32 arrays under PyTorch's names, in its shapes and gate order.

Shapes are checked once, here. No torch object and no kernel layout ever appears in this file.
Gate order along the first axis of every weight: LSTM `i f g o`, GRU `r z n`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fastlstm.stream import Stream

Array: TypeAlias = NDArray[np.float32]

ACTIVATIONS = ("linear", "relu", "tanh", "sigmoid", "softmax")
NONLINEARITIES = ("tanh", "relu")


class State(NamedTuple):
    """One state vector of one recurrent layer: what a stream carries from step to step."""

    layer: int  # position in Model.layers
    name: str  # "h" or "c"
    size: int
    initial: Array  # (size,), zeros unless the layer learned it


def _own(layer: str, name: str, array: Any, shape: tuple[int, ...]) -> Array:
    """Return a read-only, C-ordered copy of `array` after checking its type, shape and values."""
    if not isinstance(array, np.ndarray):
        raise ModelError(
            f"{layer}.{name}: expected a NumPy float32 array of shape {shape}, "
            f"found {type(array).__name__}; convert it with numpy.asarray(..., numpy.float32)"
        )
    if array.dtype != np.float32:
        raise ModelError(
            f"{layer}.{name}: expected dtype float32, found {array.dtype}; "
            "convert it with .astype(numpy.float32) if that loss is acceptable"
        )
    if array.shape != shape:
        raise ModelError(f"{layer}.{name}: expected shape {shape}, found {array.shape}")
    if not np.isfinite(array).all():
        where = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
        raise ModelError(
            f"{layer}.{name}: expected finite values, found {array[where]} at index {where}; "
            "the training that made it has probably diverged"
        )
    owned = np.array(array, dtype=np.float32, order="C", copy=True)
    owned.setflags(write=False)
    return owned


def _two_sizes(layer: str, name: str, array: Any) -> tuple[int, int]:
    """Return the two sizes of a matrix, both at least 1: the ones all other shapes follow from."""
    shape = getattr(array, "shape", None)
    if not isinstance(shape, tuple) or len(shape) != 2 or 0 in shape:
        raise ModelError(
            f"{layer}.{name}: expected an array of two axes, each at least 1 long, "
            f"found {'shape ' + str(shape) if shape is not None else type(array).__name__}"
        )
    return int(shape[0]), int(shape[1])


@dataclass(frozen=True, eq=False, repr=False)
class _Layer(ABC):
    """What all layers share; the concrete layers are the classes below."""

    # Names of the state vectors, in PyTorch's order.
    state_names: ClassVar[tuple[str, ...]] = ()

    @property
    def kind(self) -> str:
        """The layer's type as the model file writes it: LSTM, GRU, RNN, Dense or Affine."""
        return type(self).__name__

    @property
    @abstractmethod
    def input_size(self) -> int:
        """Values that go in."""

    @property
    @abstractmethod
    def output_size(self) -> int:
        """Values that come out."""

    @property
    def arrays(self) -> dict[str, Array]:
        """The layer's arrays that are present, by PyTorch's parameter name."""
        found = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value for name, value in found if isinstance(value, np.ndarray)}

    @property
    def options(self) -> dict[str, str]:
        """The layer's settings that are not arrays, such as its activation."""
        found = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value for name, value in found if isinstance(value, str)}

    def _adopt(self, name: str, shape: tuple[int, ...]) -> None:
        value = getattr(self, name)
        if value is not None:
            object.__setattr__(self, name, _own(self.kind, name, value, shape))

    def _check_choice(self, name: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in allowed:
            raise ModelError(
                f"{self.kind}.{name}: expected one of {', '.join(allowed)}, found {value!r}"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        # Made anew from its fields, so that a copy's arrays are checked and read-only too.
        return type(self), tuple(getattr(self, f.name) for f in fields(self))

    def __repr__(self) -> str:
        settings = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"{self.kind}({self.input_size}, {self.output_size}{settings})"


class _Recurrent(_Layer):
    """What LSTM, GRU and RNN share: two weights, two biases, a hidden state."""

    gates: ClassVar[int]

    if TYPE_CHECKING:
        weight_ih_l0: Array
        weight_hh_l0: Array
        bias_ih_l0: Array | None
        bias_hh_l0: Array | None

    def __post_init__(self) -> None:
        rows, inputs = _two_sizes(self.kind, "weight_ih_l0", self.weight_ih_l0)
        if rows % self.gates:
            raise ModelError(
                f"{self.kind}.weight_ih_l0: expected a number of rows divisible by the "
                f"{self.gates} gates, found shape {(rows, inputs)}"
            )
        hidden = rows // self.gates
        self._adopt("weight_ih_l0", (rows, inputs))
        self._adopt("weight_hh_l0", (rows, hidden))
        if (self.bias_ih_l0 is None) != (self.bias_hh_l0 is None):
            raise ModelError(
                f"{self.kind}: expected both of bias_ih_l0 and bias_hh_l0 or neither, as in "
                "PyTorch; found one: give zeros for the other"
            )
        self._adopt("bias_ih_l0", (rows,))
        self._adopt("bias_hh_l0", (rows,))
        for name in self.state_names:
            self._adopt(f"{name}0", (hidden,))

    @property
    def input_size(self) -> int:
        return int(self.weight_ih_l0.shape[1])

    @property
    def hidden_size(self) -> int:
        return int(self.weight_hh_l0.shape[1])

    @property
    def output_size(self) -> int:
        return self.hidden_size


@dataclass(frozen=True, eq=False, repr=False)
class LSTM(_Recurrent):
    """One LSTM layer as `torch.nn.LSTM` defines it, with H = hidden_size and I = input_size.

    weight_ih_l0: (4H, I), weight_hh_l0: (4H, H), bias_ih_l0 and bias_hh_l0: (4H,) or both None,
    rows in gate order i f g o. h0 and c0: (H,), the learned initial state, zeros if None.
    """

    gates: ClassVar[int] = 4
    state_names: ClassVar[tuple[str, ...]] = ("h", "c")

    weight_ih_l0: Array
    weight_hh_l0: Array
    bias_ih_l0: Array | None = None
    bias_hh_l0: Array | None = None
    h0: Array | None = None
    c0: Array | None = None


@dataclass(frozen=True, eq=False, repr=False)
class GRU(_Recurrent):
    """One GRU layer as `torch.nn.GRU` defines it: the reset gate acts after the matrix product.

    weight_ih_l0: (3H, I), weight_hh_l0: (3H, H), bias_ih_l0 and bias_hh_l0: (3H,) or both None,
    rows in gate order r z n. h0: (H,), the learned initial state, zeros if None.
    """

    gates: ClassVar[int] = 3
    state_names: ClassVar[tuple[str, ...]] = ("h",)

    weight_ih_l0: Array
    weight_hh_l0: Array
    bias_ih_l0: Array | None = None
    bias_hh_l0: Array | None = None
    h0: Array | None = None


@dataclass(frozen=True, eq=False, repr=False)
class RNN(_Recurrent):
    """One Elman layer as `torch.nn.RNN` defines it, with nonlinearity "tanh" or "relu".

    weight_ih_l0: (H, I), weight_hh_l0: (H, H), bias_ih_l0 and bias_hh_l0: (H,) or both None.
    h0: (H,), the learned initial state, zeros if None.
    """

    gates: ClassVar[int] = 1
    state_names: ClassVar[tuple[str, ...]] = ("h",)

    weight_ih_l0: Array
    weight_hh_l0: Array
    bias_ih_l0: Array | None = None
    bias_hh_l0: Array | None = None
    h0: Array | None = None
    nonlinearity: str = "tanh"

    def __post_init__(self) -> None:
        self._check_choice("nonlinearity", NONLINEARITIES)
        super().__post_init__()


@dataclass(frozen=True, eq=False, repr=False)
class Dense(_Layer):
    """activation(weight @ x + bias), as `torch.nn.Linear` and an activation after it.

    weight: (output_size, input_size), bias: (output_size,) or None,
    activation: linear, relu, tanh, sigmoid or softmax (over the outputs).
    """

    weight: Array
    bias: Array | None = None
    activation: str = "linear"

    def __post_init__(self) -> None:
        self._check_choice("activation", ACTIVATIONS)
        outputs, inputs = _two_sizes(self.kind, "weight", self.weight)
        self._adopt("weight", (outputs, inputs))
        self._adopt("bias", (outputs,))

    @property
    def input_size(self) -> int:
        return int(self.weight.shape[1])

    @property
    def output_size(self) -> int:
        return int(self.weight.shape[0])


@dataclass(frozen=True, eq=False, repr=False)
class Affine(_Layer):
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


Layer: TypeAlias = LSTM | GRU | RNN | Dense | Affine
LAYERS: Mapping[str, type[Layer]] = MappingProxyType(
    {layer.__name__: layer for layer in (LSTM, GRU, RNN, Dense, Affine)}
)


@dataclass(frozen=True, eq=False)
class Model:
    """A chain of layers, each feeding the next: the one thing that every road starts from.

    Immutable, and safe to share between any number of streams and threads. `metadata` is free:
    any JSON object, kept in the model file as it is. Raises ModelError where sizes do not fit.
    """

    layers: tuple[Layer, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "layers", tuple(self.layers))
        except TypeError:
            raise ModelError(
                f"Model: expected a sequence of layers, found {type(self.layers).__name__}"
            ) from None
        if not self.layers:
            raise ModelError("Model: expected at least one layer, found none")
        for position, layer in enumerate(self.layers):
            # A subclass may compute anything, and no road would know of it.
            if type(layer) not in LAYERS.values():
                raise ModelError(
                    f"Model: expected layer {position} to be one of {', '.join(LAYERS)}, "
                    f"found {type(layer).__name__}"
                )
            previous = self.layers[position - 1]
            if position and layer.input_size != previous.output_size:
                name = next(iter(layer.arrays))
                found = layer.arrays[name].shape
                expected = (*found[:-1], previous.output_size)
                raise ModelError(
                    f"Model: layer {position} ({layer.kind}).{name}: expected shape {expected}, "
                    f"because layer {position - 1} ({previous.kind}) puts out "
                    f"{previous.output_size} values, found {found}"
                )
        try:
            copy = json.loads(json.dumps(dict(self.metadata), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ModelError(f"Model.metadata: expected a JSON object, found: {error}") from None
        object.__setattr__(self, "metadata", MappingProxyType(copy))

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be pickled; worker processes and deepcopy need a Model to be.
        return Model, (self.layers, dict(self.metadata))

    @property
    def input_size(self) -> int:
        """Values in one sample."""
        return self.layers[0].input_size

    @property
    def output_size(self) -> int:
        """Values in one output."""
        return self.layers[-1].output_size

    @property
    def num_parameters(self) -> int:
        """Numbers stored in all layers."""
        return sum(array.size for layer in self.layers for array in layer.arrays.values())

    @property
    def states(self) -> tuple[State, ...]:
        """The state vectors in layer order, `h` before `c`."""
        return tuple(
            State(k, name, layer.hidden_size, _initial(layer, name))
            for k, layer in enumerate(self.layers)
            if isinstance(layer, LSTM | GRU | RNN)
            for name in layer.state_names
        )

    # The two methods below import when called: a Model knows nothing of files or kernels, and
    # `model.stream()` is what a user looks for first.

    def save(self, path: str | Path) -> Path:
        """Write the model to one .safetensors file, whole or not at all; return its path."""
        from fastlstm import model_file

        return model_file.save(self, path)

    def stream(self) -> Stream:
        """Start one live sequence in this model's initial state."""
        from fastlstm.stream import Stream

        return Stream(self)


def _initial(layer: LSTM | GRU | RNN, name: str) -> Array:
    learned: Array | None = getattr(layer, f"{name}0")
    return np.zeros(layer.hidden_size, np.float32) if learned is None else learned

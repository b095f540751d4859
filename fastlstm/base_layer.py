"""What every layer is made of: arrays that are checked once and then read-only, and settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm.errors import ModelError

Array: TypeAlias = NDArray[np.float32]
# The types of a layer's fields that are settings rather than arrays.
SETTINGS = ("str", "int", "float", "tuple[int, ...]")


class StateVector(NamedTuple):
    """One state vector of a layer: its name, such as "h", and where a sequence begins."""

    name: str
    initial: Array  # zeros unless the layer learned it


def own(layer: str, name: str, array: Any, shape: tuple[int, ...]) -> Array:
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


def two_sizes(layer: str, name: str, array: Any) -> tuple[int, int]:
    """Return the two sizes of a matrix, both at least 1: the ones all other shapes follow from."""
    shape = getattr(array, "shape", None)
    if not isinstance(shape, tuple) or len(shape) != 2 or 0 in shape:
        raise ModelError(
            f"{layer}.{name}: expected an array of two axes, each at least 1 long, "
            f"found {'shape ' + str(shape) if shape is not None else type(array).__name__}"
        )
    return int(shape[0]), int(shape[1])


@dataclass(frozen=True, eq=False, repr=False)
class BaseLayer(ABC):
    """What all layers share; the concrete layers are in layers.py."""

    @property
    def kind(self) -> str:
        """The layer's type as the model file writes it: the name of its class."""
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
    def states(self) -> tuple[StateVector, ...]:
        """What the layer carries from step to step, in PyTorch's order: nothing, or `h` and `c`."""
        return ()

    @property
    def options(self) -> dict[str, Any]:
        """The layer's settings that are not arrays, such as its activation, as JSON has them."""
        found = ((f.name, getattr(self, f.name)) for f in fields(self) if f.type in SETTINGS)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in found}

    def _adopt(self, name: str, shape: tuple[int, ...]) -> None:
        value = getattr(self, name)
        if value is not None:
            object.__setattr__(self, name, own(self.kind, name, value, shape))

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

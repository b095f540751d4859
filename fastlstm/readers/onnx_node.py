"""One node of an ONNX graph as its operator sees it: values, attributes, room for the result."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm.errors import ReaderError
from fastlstm.readers import onnx_guard
from fastlstm.readers.elements import Elements

if TYPE_CHECKING:
    import onnx

    from fastlstm.model import Array
    from fastlstm.readers.elements import Trace

Constant: TypeAlias = NDArray[Any]
# States that begin at constants are small; each row of them is a place of its own.
MOST_BESIDE = 200_000


@dataclass(frozen=True, eq=False)
class Statistic:
    """A step of a layer norm that is written out: mean, variance and so on of `of`'s vectors."""

    kind: str
    of: Elements
    eps: float = 0.0


Value: TypeAlias = Elements | Statistic | Constant | None


class TooLarge(ReaderError):
    """The graph makes more than any real network does, in whatever layout."""


@dataclass
class Room:
    """How many values may still be made while one graph is traced."""

    left: int = 50_000_000

    def take(self, count: int, origin: str) -> None:
        """Raise ReaderError where there is no room for `count` more."""
        if count > self.left:
            raise TooLarge(
                f"{origin}: expected a network of real size, found that it makes {count:,} values"
            )
        self.left -= count


@dataclass
class Node:
    """A node with the values of its inputs; absent ones are None."""

    trace: Trace
    proto: onnx.NodeProto
    origin: str
    inputs: list[Value]
    version: int
    room: Room
    attributes: dict[str, onnx.AttributeProto] = field(default_factory=dict)
    # Where a value was rounded once to be held in float32: a scale that is 1 over a constant.
    rounded: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return str(self.proto.op_type)

    def refuse(self, reason: str) -> ReaderError:
        """The error that names this node."""
        return ReaderError(f"{self.origin}: {reason}")

    def value(self, k: int) -> Value:
        """Input k, None where it is absent."""
        return self.inputs[k] if k < len(self.inputs) else None

    def traced(self, k: int) -> Elements:
        """Input k, which must be a value of the network."""
        value = self.value(k)
        if not isinstance(value, Elements):
            found = "a constant" if isinstance(value, np.ndarray) else "nothing"
            if isinstance(value, Statistic):
                found = f"the {value.kind} of a layer norm"
            raise self.refuse(f"expected a value of the network as input {k}, found {found}")
        return value

    def optional(self, k: int) -> Constant | None:
        """Input k, which must be a constant where it is present."""
        value = self.value(k)
        if value is not None and not isinstance(value, np.ndarray):
            raise self.refuse(f"expected a constant as input {k}, found a value of the network")
        return value

    def constant(self, k: int) -> Constant:
        """Input k, which must be a constant."""
        value = self.optional(k)
        if value is None:
            raise self.refuse(f"expected a constant as input {k}, found nothing")
        return value

    def weights(self, k: int, *shape: int | None) -> Array | None:
        """Input k as float32, of that shape where one is given; None is any size."""
        value = self.optional(k)
        if value is None:
            return None
        if shape and (
            value.ndim != len(shape)
            or any(w not in (None, found) for w, found in zip(shape, value.shape, strict=True))
        ):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise self.refuse(f"expected shape ({wanted}) for input {k}, found {value.shape}")
        return self.single(value, f"input {k}")

    def single(self, value: Constant, name: str) -> Array:
        """`value` as float32, which must hold all of it."""
        kind = value.dtype.name
        if kind not in ("float32", "float16", "bfloat16", "float64"):
            raise self.refuse(f"expected weights of float32 for {name}, found {kind}")
        found = value.astype(np.float32)
        if kind == "float64" and not np.array_equal(found, value):
            raise self.refuse(
                f"expected weights of float32 for {name}, found float64 values that are none; "
                "export the network in float32"
            )
        if not np.isfinite(found).all():
            where = tuple(int(k) for k in np.argwhere(~np.isfinite(found))[0])
            raise self.refuse(
                f"expected finite values for {name}, found {found[where]} at index {where}; the "
                "training that made it has probably diverged"
            )
        return found

    def known(self, value: Constant) -> Elements:
        """A constant among values of the network: where a state begins, say."""
        if value.size > MOST_BESIDE:
            raise self.refuse(
                f"expected at most {MOST_BESIDE:,} constants beside values of the network, found "
                f"{value.size:,}"
            )
        found = self.single(value, "its constants")
        return self.trace.constant(found.reshape(found.shape or (1,)), self.origin).moved(
            lambda a: a.reshape(found.shape)
        )

    def make(self, *shape: int) -> None:
        """Claim room for a result of that shape."""
        self.room.take(math.prod(shape), self.origin)

    # Attributes

    def _attribute(self, name: str, kind: str) -> Any:
        from onnx import AttributeProto

        attribute = self.attributes.get(name)
        if attribute is None:
            return None
        if attribute.type != AttributeProto.AttributeType.Value(kind):
            found = AttributeProto.AttributeType.Name(attribute.type)
            raise self.refuse(f"expected {kind} for attribute {name!r}, found {found}")
        return attribute

    def integer(self, name: str, default: int) -> int:
        found = self._attribute(name, "INT")
        return default if found is None else int(found.i)

    def floating(self, name: str, default: float) -> float:
        found = self._attribute(name, "FLOAT")
        return default if found is None else shortest(found.f)

    def text(self, name: str, default: str) -> str:
        found = self._attribute(name, "STRING")
        return default if found is None else found.s.decode("utf-8", "replace")

    def integers(self, name: str) -> list[int] | None:
        found = self._attribute(name, "INTS")
        return None if found is None else [int(k) for k in found.ints]

    def texts(self, name: str) -> list[str] | None:
        found = self._attribute(name, "STRINGS")
        return None if found is None else [s.decode("utf-8", "replace") for s in found.strings]

    def tensor(self, name: str) -> Constant | None:
        found = self._attribute(name, "TENSOR")
        if found is None:
            return None
        return onnx_guard.array(found.t, f"{self.origin}: its attribute {name!r}")


def shortest(value: float) -> float:
    """The shortest decimal of a float32: 1e-05, of which the file holds the nearest float32."""
    return float(str(np.float32(value)))

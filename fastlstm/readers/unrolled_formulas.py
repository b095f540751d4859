"""What a vector of elements is computed from: sums of matrix products, gates, products.

Vectors are numbers of elements in the first sequence of a trace; all sequences are treated alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastlstm.model import Affine, Array, Dense
from fastlstm.readers.elements import Elements, Trace
from fastlstm.readers.places import Activated, Constant, Joined, Layered, Moment, Selected, Sum

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlstm.readers.places import Place

# Far more than a gate of any cell adds; sums of sums of the same values would grow without end.
MOST_TERMS = 200

Vector: TypeAlias = NDArray[np.int64]


class Mismatch(Exception):
    """Why formulas that looked like a cell are none; `depth` is the number of steps that fitted."""

    def __init__(self, reason: str, depth: int = 1) -> None:
        super().__init__(reason)
        self.depth = depth


class Linear(NamedTuple):
    """matrix @ source + bias: matrix (n, m), source (m,)."""

    matrix: Array
    source: Vector
    bias: Array | None


class Scaled(NamedTuple):
    """factor * source, element by element: both (n,)."""

    factor: Array
    source: Vector


@dataclass
class Combination:
    """A sum of matrix products, scaled vectors and constants, all of the same length."""

    linear: list[Linear] = field(default_factory=list)
    scaled: list[Scaled] = field(default_factory=list)
    constants: list[Array] = field(default_factory=list)

    @property
    def biases(self) -> list[Array]:
        """All constants in it, those of its matrix products too."""
        return [*(one.bias for one in self.linear if one.bias is not None), *self.constants]


class Gate(NamedTuple):
    """sigmoid(sign * argument); 1 - sigmoid(a) is sigmoid(-a)."""

    sign: int
    argument: Vector


class Formulas:
    """Reads the places of one trace, vector by vector."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def numbers(self, place: Place, time: Any = 0) -> Vector:
        """Every column of a place at one step."""
        return self.trace.numbers(place, 0, time, np.arange(place.size))

    def sites(self, vector: Vector) -> list[tuple[Place, int, Vector]]:
        """The places that a vector's elements are of: (place, time, positions in the vector)."""
        where = self.trace.where(vector)
        keys = where.place * self.trace.time + where.time
        found = []
        for key in dict.fromkeys(keys.tolist()):
            place = self.trace.places[key // self.trace.time]
            found.append((place, key % self.trace.time, np.flatnonzero(keys == key)))
        return found

    def columns(self, vector: Vector) -> Vector:
        """The column of each element in its place."""
        return self.trace.where(vector).column

    def bare(self, vector: Vector) -> Vector:
        """The same values, as elements of what has only been selected and put side by side."""
        while True:
            columns, found = self.columns(vector), vector.copy()
            for place, time, here in self.sites(vector):
                for k in here if isinstance(place, Selected | Joined | Moment) else ():
                    source = _source(place, int(columns[k]), time)
                    if source is not None:
                        found[k] = self.trace.numbers(source[0], 0, source[1], source[2])
            if np.array_equal(found, vector):
                return vector
            vector = found

    def momentary(self, vector: Vector) -> bool:
        """Whether an element of it belongs to one step of a loop."""
        return any(place.momentary for place, _, _ in self.sites(vector))

    def fed(self, vector: Vector | None) -> bool:
        """Whether all of it are given states and constants, as they are."""
        return vector is not None and self.trace.start(Elements(self.trace, vector)) is not None

    def activation(self, vector: Vector) -> tuple[str, Vector] | None:
        """The activation that all of it are the results of, and what it acts on."""
        vector = self.bare(vector)
        columns, found, kinds = self.columns(vector), np.empty_like(vector), set()
        for place, time, here in self.sites(vector):
            if not isinstance(place, Activated):
                return None
            kinds.add(place.activation)
            found[here] = self.trace.numbers(place.parent, 0, time, columns[here])
        if len(kinds) != 1:
            return None
        return kinds.pop(), found

    def operands(self, vector: Vector, operation: str) -> tuple[Vector, Vector] | None:
        """The two vectors whose sum, difference or product it is."""
        vector = self.bare(vector)
        columns, found = self.columns(vector), np.empty((2, len(vector)), np.int64)
        for place, time, here in self.sites(vector):
            at = columns[here]
            match place:
                case Moment(operation=known, arguments=arguments) if known == operation:
                    for row, argument in zip(found, arguments, strict=True):
                        taken = np.asarray(argument.columns)[at]
                        row[here] = self.trace.numbers(argument.place, 0, argument.time, taken)
                case Sum(base=base, other=other, columns=taken) if operation == "add":
                    found[0, here] = self.trace.numbers(base, 0, time, at)
                    found[1, here] = self.trace.numbers(other, 0, time, np.asarray(taken)[at])
                case _:
                    return None
        return found[0], found[1]

    def gate(self, vector: Vector) -> Gate | None:
        """The gate that all of it are the values of, or one minus which they are."""
        found = self.combination(vector)
        if found.linear or len(found.scaled) != 1:
            return None
        factor, source = found.scaled[0]
        total = sum(found.constants, np.zeros(len(vector), np.float32))
        activation = self.activation(source)
        if activation is None or activation[0] != "sigmoid":
            return None
        if (factor == 1).all() and not total.any():
            return Gate(1, self.bare(activation[1]))
        if (factor == -1).all() and (total == 1).all():
            return Gate(-1, self.bare(activation[1]))
        return None

    def gated(self, vector: Vector) -> list[tuple[Gate, Vector]]:
        """Each way to see it as the product of a gate and another vector."""
        pair = self.operands(vector, "mul")
        if pair is None:
            return []
        gates = [(self.gate(one), other) for one, other in (pair, pair[::-1])]
        return [(gate, self.bare(other)) for gate, other in gates if gate is not None]

    def scaled_gate(self, found: Combination) -> tuple[Gate, Array] | None:
        """A gate times constants: what is left of a product with a constant state."""
        if found.linear or len(found.scaled) != 1:
            return None
        factor, source = found.scaled[0]
        activation = self.activation(source)
        if activation is None or activation[0] != "sigmoid":
            return None
        total = sum(found.constants, np.zeros(len(factor), np.float32))
        argument = self.bare(activation[1])
        if not total.any():
            return Gate(1, argument), factor
        return (Gate(-1, argument), total) if np.array_equal(total, -factor) else None

    def combination(self, vector: Vector, stops: Sequence[Vector | None] = ()) -> Combination:
        """The sum that it is. The vectors of `stops` are not taken apart, nor are matrix products.

        Raises Mismatch where constants multiply each other and float32 would round them.
        """
        found = Combination()
        waiting = [(np.ones(len(vector), np.float32), vector)]
        taken = 0
        while waiting:
            taken += 1
            if taken > MOST_TERMS:
                raise Mismatch(f"it adds more than {MOST_TERMS} values")
            factor, one = waiting.pop(0)
            one = self.bare(one)
            if not factor.any():
                continue
            if any(stop is not None and np.array_equal(one, stop) for stop in stops):
                found.scaled.append(Scaled(factor, one))
                continue
            for operation, sign in (("add", 1), ("sub", -1)):
                pair = self.operands(one, operation)
                if pair is not None:
                    waiting += [(factor, pair[0]), (sign * factor, pair[1])]
                    break
            else:
                further = self._leaf(found, factor, one)
                if further is not None:
                    waiting.append(further)
        return found

    def _leaf(
        self, found: Combination, factor: Array, vector: Vector
    ) -> tuple[Array, Vector] | None:
        """Add what is no sum to `found`; what remains to be taken apart after a scaling."""
        sites = self.sites(vector)
        place, time, _ = sites[0]
        columns = self.columns(vector)
        if len(sites) == 1 and isinstance(place, Constant):
            found.constants.append(_exact(factor, place.values[columns]))
            return None
        if len(sites) == 1 and isinstance(place, Layered):
            layer = place.layer
            if isinstance(layer, Affine):
                shift = _exact(factor, layer.shift[columns])
                if shift.any():
                    found.constants.append(shift)
                parent = self.trace.numbers(place.parent, 0, time, columns)
                return _exact(factor, layer.scale[columns]), parent
            if isinstance(layer, Dense) and layer.activation == "linear":
                bias = None if layer.bias is None else _exact(factor, layer.bias[columns])
                matrix = _exact(factor[:, None], layer.weight[columns])
                source = self.bare(self.numbers(place.parent, time))
                found.linear.append(Linear(matrix, source, bias))
                return None
        found.scaled.append(Scaled(factor, vector))
        return None


def _source(place: Place, column: int, time: int) -> tuple[Place, int, int] | None:
    """(place, time, column) of what a Selected, a Joined or a join has at `column`."""
    match place:
        case Selected(parent=parent, columns=columns):
            return parent, time, columns[column]
        case Joined(parts=parts):
            return parts[column][0], time, parts[column][1]
        case Moment(operation="join", arguments=arguments):
            for argument in arguments:
                if column < len(argument.columns):
                    return argument.place, argument.time, argument.columns[column]
                column -= len(argument.columns)
    return None


def _exact(factor: Array, values: Array) -> Array:
    """Their product; Mismatch where float32 does not hold it."""
    if (factor == 1).all():
        return values
    product: Array = factor * values
    if (product != factor.astype(np.float64) * values).any():
        raise Mismatch("it scales weights by constants, which float32 would round")
    return product

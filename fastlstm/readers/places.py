"""The places of a traced network: what a foreign graph computes, as steps from its input on.

A place is one vector for each sequence and time step: the input, or what a layer makes of another
place. Places are made once each, so that two ways to the same numbers meet in the same object.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fastlstm.model import GRU, LSTM, RNN, Bidirectional

if TYPE_CHECKING:
    from collections.abc import Hashable

    from fastlstm.model import Array, Layer

Columns: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Place:
    """One vector of `size` values for each sequence and step; equal only to itself.

    `origin` is the node or module that made it, for messages.
    """

    size: int
    origin: str

    @cached_property
    def momentary(self) -> bool:
        """Whether it stems from a Moment. Trace asks once for each, so that no question is deep."""
        return any(place.momentary for place in self._sources)

    @cached_property
    def fed(self) -> bool:
        """Whether it stems from given states and constants alone: the same for every sequence."""
        return bool(self._sources) and all(place.fed for place in self._sources)

    @property
    def _sources(self) -> tuple[Place, ...]:
        """The places that it is made of."""
        parent = getattr(self, "parent", None)
        return () if parent is None else (parent,)


@dataclass(frozen=True, eq=False)
class Input(Place):
    """What goes into the network."""


@dataclass(frozen=True, eq=False)
class Start(Place):
    """What stands before the first step, the same for every sequence or the caller's own."""

    @cached_property
    def momentary(self) -> bool:
        """What is made of it belongs to one step of a loop."""
        return True

    @cached_property
    def fed(self) -> bool:
        """It is."""
        return True


@dataclass(frozen=True, eq=False)
class Given(Start):
    """A state that the caller feeds in: known at the first step only."""

    name: str


@dataclass(frozen=True, eq=False)
class Constant(Start):
    """Constants among traced values: where an unrolled loop begins."""

    values: Array


@dataclass(frozen=True, eq=False)
class Layered(Place):
    """What a layer of a Model makes of `parent`."""

    parent: Place
    layer: Layer

    @property
    def recurrent(self) -> bool:
        """Whether the layer carries h from step to step."""
        return isinstance(self.layer, LSTM | GRU | RNN | Bidirectional)


@dataclass(frozen=True, eq=False)
class Activated(Place):
    """An activation of `parent`: relu, tanh or sigmoid of each value, or softmax over them."""

    parent: Place
    activation: str


@dataclass(frozen=True, eq=False)
class Selected(Place):
    """Some columns of `parent`, in their own order."""

    parent: Place
    columns: Columns


@dataclass(frozen=True, eq=False)
class Sum(Place):
    """Two places at the same step: base[k] + other[columns[k]]."""

    base: Place
    other: Place
    columns: Columns

    @property
    def _sources(self) -> tuple[Place, ...]:
        return self.base, self.other


@dataclass(frozen=True, eq=False)
class Joined(Place):
    """Columns of several places side by side: (place, column) for each value."""

    parts: tuple[tuple[Place, int], ...]

    @property
    def _sources(self) -> tuple[Place, ...]:
        return tuple(dict.fromkeys(part for part, _ in self.parts))


@dataclass(frozen=True, eq=False)
class Carried(Place):
    """A state vector of a recurrent place that is not its output: an LSTM's `c`, after each step.

    Also `h` of the backward half of a Bidirectional and the like, which no later layer may read.
    """

    parent: Place
    name: str


@dataclass(frozen=True, eq=False)
class Argument:
    """Columns of a place at one time step, one for each value of a Moment.

    `time` is 0 where the place stems from another Moment, whose elements have no time axis.
    """

    place: Place
    time: int
    columns: Columns


@dataclass(frozen=True, eq=False)
class Moment(Place):
    """A formula over values of different steps, or a product: one time step of an unrolled loop.

    `operation` is "add", "sub", "mul" or "div" of two arguments, or "join": the values of any
    number of arguments side by side. Not expressible by itself: unrolled.py finds the cell that a
    row of such places is.
    """

    operation: str
    arguments: tuple[Argument, ...]

    @property
    def _sources(self) -> tuple[Place, ...]:
        return tuple(argument.place for argument in self.arguments)

    @cached_property
    def momentary(self) -> bool:
        """It is one."""
        return True


def layer_key(layer: Layer, *, initial: bool = True) -> Hashable:
    """What two layers that compute the same share: kind, options and the bits of their arrays.

    `initial` False leaves out where a sequence begins, h0 and c0.
    """
    arrays = tuple(
        (name, array.shape, array.tobytes())
        for name, array in layer.arrays.items()
        if initial or name.removesuffix("_reverse") not in ("h0", "c0", "x0")
    )
    options = tuple((k, str(v)) for k, v in layer.options.items())
    return layer.kind, options, arrays


def selection(size: int, columns: Columns) -> Array:
    """The matrix of zeros and ones that takes `columns` of `size` values; exact in any product."""
    matrix = np.zeros((len(columns), size), np.float32)
    matrix[np.arange(len(columns)), list(columns)] = 1
    return matrix

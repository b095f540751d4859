"""Tensors of a traced graph, element by element: each is a number that says which value it is.

Whatever only moves values (transpose, reshape, slice, stack, flip) is then that operation on an
array of numbers, and whether a tensor really is a sequence of vectors can be read off exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlstm.errors import ReaderError
from fastlstm.readers.places import (
    Activated,
    Carried,
    Constant,
    Given,
    Input,
    Joined,
    Layered,
    Place,
    Selected,
    layer_key,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from numpy.typing import NDArray

    from fastlstm.model import Array, Layer

    Numbers = NDArray[np.int64]

# More elements than any real network's trace has; a file that asks for more is broken or hostile.
MOST_ELEMENTS = 50_000_000


class WrongLayout(ReaderError):
    """The graph takes its axes otherwise than assumed: time where batch was, say."""


class Where(NamedTuple):
    """For each element of a tensor: the position of its place in Trace.places, and where in it."""

    place: Numbers
    batch: Numbers
    time: Numbers  # 0 in places that have no time axis
    column: Numbers


class Vectors(NamedTuple):
    """A tensor as vectors along its last axis: one place, and batch and time of each vector."""

    place: Place
    batch: Numbers  # the tensor's shape without its last axis
    time: Numbers


@dataclass(frozen=True, eq=False)
class Elements:
    """A tensor of values of the network; `numbers` has the tensor's shape."""

    trace: Trace
    numbers: Numbers

    @property
    def shape(self) -> tuple[int, ...]:
        return self.numbers.shape

    def moved(self, change: Callable[[Numbers], Any]) -> Elements:
        """The tensor after an operation that only moves, drops or repeats elements."""
        return Elements(self.trace, np.asarray(change(self.numbers), np.int64))

    def last_axis(self, axis: int) -> Elements:
        """The tensor with `axis` moved to the end."""
        return self.moved(lambda a: np.moveaxis(a, axis, -1))


class Trace:
    """One run of a foreign graph over `batch` sequences of `time` steps, all its places in it."""

    def __init__(self, batch: int, time: int) -> None:
        """Sizes are real ones, as the graph is run with; each at least 1."""
        self.batch, self.time = batch, time
        self.places: list[Place] = []
        # Of each place: the number of its first element, and its size. Both grow by doubling,
        # because a search for elements among many thousands of places happens at every operation.
        self._first = np.zeros(64, np.int64)
        self._sizes = np.zeros(64, np.int64)
        self._position: dict[Place, int] = {}
        self._known: dict[Hashable, Place] = {}
        self._next = 0
        self._starts: dict[Place, Array] = {}
        self.loops: Any = None  # what unrolled.py has found in it

    # Places

    def place(self, key: Hashable, make: Callable[[], Place]) -> Place:
        """The place of that key, made the first time that it is asked for."""
        if key not in self._known:
            made = make()
            # A state that is fed in is one vector for all steps and sequences.
            sites = 1 if isinstance(made, Given) else self.batch * self.time
            if sites * made.size > MOST_ELEMENTS:
                raise ReaderError(
                    f"{made.origin}: expected a network of real size, found {made.size} values in "
                    f"each of {self.time} steps of {self.batch} sequences"
                )
            self._add(made)
            self._known[key] = made
        return self._known[key]

    def _add(self, place: Place) -> None:
        position = len(self.places)
        if position == len(self._first):
            self._first = np.resize(self._first, 2 * position)
            self._sizes = np.resize(self._sizes, 2 * position)
        self._first[position], self._sizes[position] = self._next, place.size
        self._next += self.batch * self.time * place.size
        self._position[place] = position
        self.places.append(place)
        # Known from here on, while its sources' answers are, so that no question is deep.
        _ = place.momentary, place.fed

    def layered(self, parent: Place, layer: Layer, origin: str) -> Layered:
        """What `layer` makes of `parent`."""
        if layer.input_size != parent.size:
            raise ReaderError(
                f"{origin}: expected {layer.input_size} values to act on, found {parent.size} "
                f"from {parent.origin}"
            )
        made = self.place(
            ("layer", parent, layer_key(layer)),
            lambda: Layered(layer.output_size, origin, parent, layer),
        )
        assert isinstance(made, Layered)
        return made

    def selected(self, parent: Place, columns: Sequence[int], origin: str) -> Place:
        """Some columns of `parent`: parent itself where they are all of them in order."""
        wanted = tuple(int(k) for k in columns)
        if wanted == tuple(range(parent.size)):
            return parent
        return self.place(
            ("selected", parent, wanted), lambda: Selected(len(wanted), origin, parent, wanted)
        )

    # Elements of places

    def numbers(self, place: Place, batch: Any, time: Any, column: Any) -> Numbers:
        """The numbers of elements by their coordinates, broadcast against each other."""
        first = int(self._first[self._position[place]])
        site = np.asarray(batch, np.int64) * self.time + time
        return np.asarray(first + site * place.size + column, np.int64)

    def all_of(self, place: Place) -> Elements:
        """(batch, time, size): every element of a place."""
        batch, time = np.arange(self.batch)[:, None, None], np.arange(self.time)[:, None]
        return Elements(self, self.numbers(place, batch, time, np.arange(place.size)))

    def where(self, numbers: Numbers) -> Where:
        """What elements are, by their numbers."""
        firsts = self._first[: len(self.places)]
        place = np.searchsorted(firsts, numbers, "right") - 1
        site, column = np.divmod(numbers - firsts[place], self._sizes[place])
        batch, time = np.divmod(site, self.time)
        return Where(place, batch, time, column)

    def input(self, size: int) -> Elements:
        """The network's input, (batch, time, size)."""
        return self.all_of(self.place(("input",), lambda: Input(size, "the input")))

    def given(
        self,
        name: str,
        shape: tuple[int, ...],
        start: Array | None = None,
        axis: int | None = None,
    ) -> Elements:
        """A state that the caller feeds in: any shape, batch somewhere in it.

        `start`, of the same shape, is what a new sequence begins at; zeros if None. `axis` runs
        over the sequences; needed where there are several and formulas are made of the state.
        """
        count = 1 if axis is None else self.batch
        size = math.prod(shape) // count
        place = self.place(("given", name), lambda: Given(size, name, name))

        def rows(array: Any) -> Any:
            return (array if axis is None else np.moveaxis(array, axis, 0)).reshape(count, size)

        if start is not None:
            starts = rows(np.broadcast_to(start, shape))
            if (starts != starts[:1]).any():
                raise ReaderError(
                    f"{name}: it begins otherwise in some sequences of a batch than in others; a "
                    "Model has one start for all streams"
                )
            self._starts[place] = starts[0]
        numbers = self.numbers(place, np.arange(count)[:, None], 0, np.arange(size))
        taken = rows(np.arange(math.prod(shape)).reshape(shape)).ravel()
        found = np.empty(math.prod(shape), np.int64)
        found[taken] = numbers.ravel()
        return Elements(self, found.reshape(shape))

    def constant(self, values: Any, origin: str) -> Elements:
        """Constants as elements, to stand beside traced ones where a loop begins.

        Equal rows along the last axis are one place, so that the sequences of a batch share it.
        Raises ReaderError for values that are not exactly float32.
        """
        array = np.asarray(values)
        found = array.astype(np.float32)
        if (found != array).any() or not found.size or not found.ndim:
            raise ReaderError(
                f"{origin}: expected a tensor of constants that are exactly float32, found others"
            )
        rows = found.reshape(-1, found.shape[-1])
        numbers = np.empty(rows.shape, np.int64)
        for k, row in enumerate(rows):

            def make(row: Any = row) -> Place:
                return Constant(len(row), origin, row)

            place = self.place(("constant", row.tobytes()), make)
            numbers[k] = self.numbers(place, 0, 0, np.arange(len(row)))
        return Elements(self, numbers.reshape(found.shape))

    def start(self, value: Elements) -> Array | None:
        """What states that are fed in begin at, and constants; None for anything else."""
        where = self.where(value.numbers)
        start = np.zeros(value.shape, np.float32)
        for position in np.unique(where.place):
            place, here = self.places[position], where.place == position
            if isinstance(place, Constant):
                start[here] = place.values[where.column[here]]
            elif not isinstance(place, Given):
                return None
            elif place in self._starts:
                start[here] = self._starts[place][where.column[here]]
        return start

    # Layers

    def vectors(self, value: Elements, origin: str) -> Vectors:
        """`value` as whole vectors along its last axis. Raises ReaderError where it is none.

        The steps of an unrolled loop are exchanged for those of the recurrent layer that it is.
        """
        numbers = value.numbers
        if numbers.ndim == 0 or not numbers.size:
            raise ReaderError(f"{origin}: expected vectors of values, found shape {value.shape}")
        where = self.where(numbers)
        if any(self.places[k].momentary for k in np.unique(where.place)):
            from fastlstm.readers.moments import one_moment
            from fastlstm.readers.unrolled import rolled

            found = one_moment(self, where, origin)
            if found is not None:
                return found
            numbers = rolled(value, origin).numbers
            where = self.where(numbers)
        heads = Where(*(part.reshape(-1, numbers.shape[-1])[0] for part in where))
        if any((part != part[..., :1]).any() for part in (where.batch, where.time)):
            raise WrongLayout(
                f"{origin}: expected the values of one step along the last axis of shape "
                f"{value.shape}, found values of several steps or sequences in one vector"
            )
        if (where.place != heads.place).any() or (where.column != heads.column).any():
            raise ReaderError(
                f"{origin}: it treats some steps otherwise than others: their values come from "
                f"{self._named(where.place)}"
            )
        places = [self.places[k] for k in dict.fromkeys(heads.place.tolist())]
        if len(places) == 1:
            place = self.selected(places[0], heads.column.tolist(), origin)
        else:
            pairs = zip(heads.place.tolist(), heads.column.tolist(), strict=True)
            parts = tuple((self.places[k], column) for k, column in pairs)
            place = self.place(("joined", parts), lambda: Joined(len(parts), origin, parts))
        return Vectors(place, where.batch[..., 0], where.time[..., 0])

    def _named(self, positions: Numbers) -> str:
        names = dict.fromkeys(self.places[k].origin for k in np.unique(positions))
        return ", ".join(names)

    def of(self, vectors: Vectors, place: Place) -> Elements:
        """The same steps of another place, whose vectors are along a new last axis."""
        columns = np.arange(place.size)
        numbers = self.numbers(place, vectors.batch[..., None], vectors.time[..., None], columns)
        return Elements(self, numbers)

    def apply(self, value: Elements, layer: Layer, origin: str) -> Elements:
        """A layer that treats each step by itself, on the last axis of `value`."""
        vectors = self.vectors(value, origin)
        return self.of(vectors, self.layered(vectors.place, layer, origin))

    def activate(self, value: Elements, kind: str, origin: str) -> Elements:
        """Apply relu, tanh or sigmoid to each element, or softmax over the last axis."""
        if kind == "softmax":
            vectors = self.vectors(value, origin)
            return self.of(vectors, self._activated(vectors.place, kind, origin))

        def one(place: Place) -> Place:
            return self._activated(place, kind, origin)

        return self.each_place(value, one)

    def _activated(self, place: Place, kind: str, origin: str) -> Place:
        return self.place(
            ("activated", place, kind), lambda: Activated(place.size, origin, place, kind)
        )

    def each_place(self, value: Elements, change: Callable[[Place], Place]) -> Elements:
        """`value` with every place in it exchanged for one of the same size."""
        where = self.where(value.numbers)
        numbers = np.empty_like(value.numbers)
        for position in np.unique(where.place):
            here = where.place == position
            made = change(self.places[position])
            coordinates = (part[here] for part in where[1:])
            numbers[here] = self.numbers(made, *coordinates)
        return Elements(self, numbers)

    # Recurrent layers over a whole sequence

    def recurrent(self, value: Elements, layer: Layer, origin: str) -> Layered:
        """The place that a recurrent `layer` makes of `value` (time, batch, inputs).

        Raises WrongLayout where the first axis runs over sequences, and ReaderError where it does
        not run over all steps in their order.
        """
        vectors = self.vectors(value, origin)
        steps = np.arange(self.time)[:, None]
        if value.numbers.ndim != 3 or vectors.time.shape != (self.time, self.batch):
            wrong = WrongLayout if value.shape[:2] == (self.batch, self.time) else ReaderError
            raise wrong(
                f"{origin}: expected a sequence of {self.time} steps of {self.batch} sequences, "
                f"found shape {value.shape}"
            )
        if (vectors.time != steps).any() or (vectors.batch != np.arange(self.batch)).any():
            crosswise = self.batch == self.time and (vectors.time == steps.T).all()
            raise (WrongLayout if crosswise else ReaderError)(
                f"{origin}: expected all steps of the sequence in their order, found others"
            )
        return self.layered(vectors.place, layer, origin)

    def outputs(self, place: Place) -> Elements:
        """(time, batch, size): what a recurrent place puts out."""
        return self.all_of(place).moved(lambda a: a.swapaxes(0, 1))

    def final(self, place: Layered, state: int) -> Elements:
        """(batch, size): the state vector place.layer.states[state] after the whole sequence.

        `h` is the output at the last step, at the first in the backward half of a Bidirectional.
        """
        name = place.layer.states[state].name
        size = len(place.layer.states[state].initial)
        batch, column = np.arange(self.batch)[:, None], np.arange(size)
        last = self.time - 1
        if name == "h":
            return Elements(self, self.numbers(place, batch, last, column))
        if name == "h_reverse":
            return Elements(self, self.numbers(place, batch, 0, place.size // 2 + column))
        end = 0 if name.endswith("_reverse") else last
        return Elements(self, self.numbers(self.carried(place, name), batch, end, column))

    def carried(self, place: Layered, name: str) -> Place:
        """The state `name` of a recurrent place, after each step."""
        size = next(len(state.initial) for state in place.layer.states if state.name == name)
        return self.place(
            ("carried", place, name), lambda: Carried(size, place.origin, place, name)
        )

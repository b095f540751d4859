"""Loops that a graph holds written out, formula by formula and step by step, as recurrent layers.

Elements of single steps are exchanged for elements of the recurrent place that they belong to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlstm.errors import ModelError, ReaderError
from fastlstm.model import Bidirectional
from fastlstm.readers.elements import Elements, Trace, Where
from fastlstm.readers.moments import made_of
from fastlstm.readers.places import (
    Activated,
    Joined,
    Layered,
    Moment,
    Place,
    Selected,
    Sum,
)
from fastlstm.readers.unrolled_chains import CELLS, Chain, chain
from fastlstm.readers.unrolled_formulas import Formulas, Mismatch, Vector

if TYPE_CHECKING:
    from fastlstm.readers.elements import Numbers


class Fed(NamedTuple):
    """A state that the caller feeds to the first step of a loop, and where the loop returns it."""

    place: Layered
    state: str  # as place.layer.states names it
    given: Elements  # (size,): what is fed, of places Given or Constant


@dataclass(eq=False)
class _Loop:
    """A chain over the steps of `parent`, forward or backward, and the place that it becomes."""

    chain: Chain
    parent: Place
    times: Numbers
    backward: bool
    place: Layered | None = None
    second: bool = False  # the backward half of a Bidirectional


@dataclass(eq=False)
class _Known:
    """What is known of one trace: states of loops by the element numbers of the first sequence."""

    states: dict[int, tuple[_Loop, str, int, int]] = field(default_factory=dict)
    # The places that hold first steps, which are no Moments where a state of zeros vanished.
    firsts: set[Place] = field(default_factory=set)
    fed: dict[tuple[Place, str], Elements] = field(default_factory=dict)


def _known(trace: Trace) -> _Known:
    if trace.loops is None:
        trace.loops = _Known()
    assert isinstance(trace.loops, _Known)
    return trace.loops


def rolled(value: Elements, origin: str) -> Elements:
    """`value` with the states of loops that are written out exchanged for recurrent places.

    A cell is known by its formula: LSTM (with projection, with peepholes), GRU (reset before or
    after the product), RNN (tanh or relu), with the same weights at each step and its state handed
    on as it is, from the first step on or from the last; both at once are a Bidirectional. A state
    that is fed in begins where Trace.given was told, see `fed_states`. Raises ReaderError where
    formulas are none of these.
    """
    return _Rolling(value.trace, origin).value(value)


def fed_states(trace: Trace) -> tuple[Fed, ...]:
    """The states that callers feed to the loops of a trace that `rolled` has found so far.

    The new state that the graph should return for each is trace.final(place, k), where k is the
    position of `state` in place.layer.states.
    """
    return tuple(
        Fed(place, state, given)  # type: ignore[arg-type]
        for (place, state), given in _known(trace).fed.items()
    )


class _Rolling:
    """One exchange: what is found in it, and why the rest is no loop."""

    def __init__(self, trace: Trace, origin: str) -> None:
        self.trace, self.origin = trace, origin
        self.formulas, self.known = Formulas(trace), _known(trace)
        self.reasons: list[str] = []  # why the last steps, which are tried first, are no loop
        self.used: list[_Loop] = []
        self.made: dict[tuple[Place, int], Vector] = {}
        self.seen: set[bytes] = set()

    def value(self, value: Elements) -> Elements:
        """The tensor with every loop in it rolled up."""
        where = self.trace.where(value.numbers)
        places = [self.trace.places[k] for k in np.unique(where.place)]
        if not any(place.momentary for place in places):
            return value
        # One vector of the first sequence stands for those of all.
        first = np.asarray(value.numbers - where.batch * self._stride(where))
        single, index = np.unique(first, return_inverse=True)
        for place, time, _ in self.formulas.sites(single)[::-1]:
            self.find(place, time)
        self.pair()
        made = np.asarray([self.exchanged(int(n)) for n in single])
        found = self.trace.where(made[index].reshape(value.shape))
        numbers = np.empty(value.shape, np.int64)
        for position in np.unique(found.place):
            here = found.place == position
            place = self.trace.places[position]
            batch = 0 if place.fed else where.batch[here]
            numbers[here] = self.trace.numbers(place, batch, found.time[here], found.column[here])
        return Elements(self.trace, numbers)

    def _stride(self, where: Where) -> Any:
        sizes = np.asarray([place.size for place in self.trace.places])
        return sizes[where.place] * self.trace.time

    # Finding loops

    def find(self, place: Place, time: int) -> None:
        """Find the loops that a place's values at one step are made of."""
        waiting = [(place, time, False)]
        while waiting:
            place, time, inside = waiting.pop()
            vector = self.formulas.numbers(place, time)
            if vector.tobytes() in self.seen or not self._loops_in(place, time):
                continue
            self.seen.add(vector.tobytes())
            known = self._known_in(vector)
            if known:
                self.used += [loop for loop in known if loop not in self.used]
                continue
            why: list[Mismatch] = []
            loop = self._loop(vector, why) or self._loop_of_cell_state(place)
            if loop is None:
                # What a part of a formula is not, nobody asked.
                if not inside and (why or isinstance(place, Moment)):
                    inside = True
                    self.reasons.append(_refusal(place, why))
                waiting += [(*source, inside) for source in made_of(place, time)]

    def _known_in(self, vector: Vector) -> list[_Loop]:
        """The loops whose states are among a vector's elements."""
        found = (self.known.states.get(number) for number in vector.tolist())
        return list(dict.fromkeys(state[0] for state in found if state is not None))

    def _loops_in(self, place: Place, time: int) -> bool:
        """Whether a place has values of loops in it."""
        if place.momentary:
            return not place.fed
        waiting, seen = [place], {place}
        while waiting:
            one = waiting.pop()
            if one in self.known.firsts:
                return bool(self._known_in(self.formulas.numbers(one, time)))
            for source, _ in made_of(one, time):
                if source not in seen:
                    seen.add(source)
                    waiting.append(source)
        return False

    def _loop(self, h: Vector, why: list[Mismatch] | None = None) -> _Loop | None:
        """The loop whose last output is h; `why` takes what nearly is one and is not."""
        for kind in CELLS:
            try:
                found = chain(self.formulas, h, kind)
                if found is None:
                    continue
                loop = self._placed(found)
            except Mismatch as mismatch:
                if why is not None:
                    why.append(mismatch)
                continue
            for k, step in enumerate(found.steps):
                for name, vector in (("h", step.h), ("c", step.c)):
                    for column, number in enumerate([] if vector is None else vector.tolist()):
                        self.known.states[number] = (loop, name, k, column)
                for place, _, _ in self.formulas.sites(step.h):
                    if not place.momentary:
                        self.known.firsts.add(place)
            self.used.append(loop)
            return loop
        return None

    def _loop_of_cell_state(self, place: Place) -> _Loop | None:
        """The loop of an LSTM whose c a place is: that of the h which is made of it."""
        number = int(self.formulas.numbers(place)[0])
        for later in self.trace.places if isinstance(place, Moment) else ():
            if not isinstance(later, Moment) or later.operation != "mul":
                continue
            for argument in later.arguments:
                source = argument.place
                if isinstance(source, Activated) and source.parent is place:
                    for h in (later, *self._projections(later)):
                        loop = self._loop(self.formulas.numbers(h))
                        if loop is not None and number in self.known.states:
                            return loop
        return None

    def _projections(self, place: Place) -> list[Place]:
        return [
            one for one in self.trace.places if isinstance(one, Layered) and one.parent is place
        ]

    def _placed(self, found: Chain) -> _Loop:
        """The loop over the place that its inputs are steps of, in their order."""
        trace = self.trace
        inputs = np.stack(found.inputs)
        own = {n for step in found.steps for n in step.h.tolist()}
        own |= {n for step in found.steps if step.c is not None for n in step.c.tolist()}
        depth = len(found.steps)
        if self._depends(inputs.ravel(), own):
            raise Mismatch(
                "it looks like a loop whose own output is fed back to it as input: a Model takes "
                "its input from outside",
                depth,
            )
        taken = Elements(trace, inputs[:, None])
        if self.formulas.momentary(inputs.ravel()):
            inner = _Rolling(trace, self.origin)
            taken = inner.value(taken)
        if self.formulas.momentary(taken.numbers.ravel()):
            raise Mismatch("its input is fed in as a state is, not as a sequence", depth)
        vectors = trace.vectors(taken, self.origin)
        times = vectors.time[:, 0]
        forward = np.arange(depth)
        if np.array_equal(times, forward):
            return _Loop(found, vectors.place, times, backward=False)
        if np.array_equal(times, trace.time - 1 - forward):
            return _Loop(found, vectors.place, times, backward=True)
        raise Mismatch(
            f"it looks like a loop over the steps {', '.join(map(str, times.tolist()))} of "
            f"{trace.time}: expected all steps from the first on, or from the last back",
            depth,
        )

    def _depends(self, numbers: Vector, states: set[int]) -> bool:
        """Whether values are made of any of the states."""
        stems = {
            (place, time) for place, time, _ in self.formulas.sites(np.asarray(sorted(states)))
        }
        waiting = [
            (place, time)
            for place, time, _ in self.formulas.sites(numbers)
            if place.momentary or (place, time) in stems
        ]
        seen = set(waiting)
        while waiting:
            one = waiting.pop()
            if one in stems:
                return True
            for source in made_of(*one):
                if source not in seen and (source[0].momentary or source in stems):
                    seen.add(source)
                    waiting.append(source)
        return False

    # Places

    def pair(self) -> None:
        """Give each loop its place: those that run backward with one that runs forward."""
        alone = [loop for loop in self.used if not loop.backward]
        for loop in alone:
            loop.place, loop.second = self._made(loop, loop.chain.layer), False
        for loop in self.used:
            if not loop.backward:
                continue
            for other in alone:
                if other.parent is not loop.parent:
                    continue
                try:
                    both = Bidirectional(other.chain.layer, loop.chain.layer)
                except ModelError:
                    continue
                loop.place = other.place = self._made(other, both)
                loop.second = True
                alone.remove(other)
                break
            else:
                raise ReaderError(
                    f"{self.origin}: it uses a loop that runs from the last step to the first "
                    f"({self._name(loop)}) without one of the same kind that runs from the first "
                    "to the last over the same input beside it, as a Bidirectional layer has"
                )
        for loop in self.used:
            assert loop.place is not None
            for name, vector in loop.chain.fed.items():
                state = name + "_reverse" * loop.second
                self.known.fed[loop.place, state] = Elements(self.trace, vector)

    def _name(self, loop: _Loop) -> str:
        return self.formulas.sites(loop.chain.steps[-1].h)[0][0].origin

    def _made(self, loop: _Loop, layer: Any) -> Layered:
        return self.trace.layered(loop.parent, layer, self._name(loop))

    # Exchanging elements

    def exchanged(self, number: int) -> int:
        """What an element of the first sequence is exchanged for."""
        state = self.known.states.get(number)
        if state is not None:
            return self._state(*state)
        place, time, _ = self.formulas.sites(np.asarray([number]))[0]
        if not self._loops_in(place, time):
            return number
        column = int(self.formulas.columns(np.asarray([number]))[0])
        return int(self._rebuilt(place, time)[column])

    def _state(self, loop: _Loop, name: str, step: int, column: int) -> int:
        if loop not in self.used:
            self.used.append(loop)
            self.pair()
        place: Place | None = loop.place
        assert isinstance(place, Layered)
        if name != "h":
            place = self.trace.carried(place, name + "_reverse" * loop.second)
        elif loop.second:
            column += place.size // 2
        return int(self.trace.numbers(place, 0, loop.times[step], column))

    def _rebuilt(self, place: Place, time: int) -> Vector:
        """A place's values at one step, made anew of what its sources are exchanged for."""
        if (place, time) not in self.made:
            self.made[place, time] = self._made_anew(place, time)
        return self.made[place, time]

    def _made_anew(self, place: Place, time: int) -> Vector:
        from fastlstm.readers import arithmetic

        def of(source: Place, at: int, columns: Any = None) -> Elements:
            numbers = self.formulas.numbers(source, at)
            taken = numbers if columns is None else numbers[list(columns)]
            return Elements(self.trace, np.asarray([[self.exchanged(int(n)) for n in taken]]))

        made: Elements | None = None
        match place:
            case Layered(parent=parent, layer=layer) if not place.recurrent:
                made = self.trace.apply(of(parent, time), layer, place.origin)
            case Activated(parent=parent, activation=kind):
                made = self.trace.activate(of(parent, time), kind, place.origin)
            case Selected(parent=parent, columns=columns):
                made = of(parent, time, columns)
            case Sum(base=base, other=other, columns=columns):
                made = arithmetic.add(of(base, time), of(other, time, columns), place.origin)
            case Joined():
                parts = [of(part, time, (column,)).numbers for part, column in place.parts]
                made = Elements(self.trace, np.concatenate(parts, axis=-1))
            case Moment(operation="join", arguments=arguments):
                parts = [of(a.place, a.time, a.columns).numbers for a in arguments]
                made = Elements(self.trace, np.concatenate(parts, axis=-1))
            case Moment(operation="add" | "sub" as operation, arguments=(a, b)):
                sides = [of(side.place, side.time, side.columns) for side in (a, b)]
                if not any(self.formulas.momentary(side.numbers[0]) for side in sides):
                    combine = arithmetic.add if operation == "add" else arithmetic.subtract
                    made = combine(sides[0], sides[1], place.origin)
        if made is None or self.formulas.momentary(made.numbers[0]):
            raise ReaderError(f"{place.origin}: {self._reason(place)}")
        vector: Vector = made.numbers[0]
        return vector

    def _reason(self, place: Place) -> str:
        return self.reasons[0] if self.reasons else _refusal(place, [])


def _refusal(place: Place, why: list[Mismatch]) -> str:
    """Why a place is no cell: what sets it apart from a cell that it is nearly, if there is one."""
    for mismatch in why:
        if mismatch.depth:
            return str(mismatch)
    what = f" ({place.operation})" if isinstance(place, Moment) else ""
    nearest = f". What comes nearest: {why[0]}" if why else ""
    return (
        f"its formula{what} is none of the cells that a Model has: LSTM, h = o * tanh(c) with "
        "c = f * c + i * g; GRU, h = (1 - z) * n + z * h; RNN, h = tanh or relu of W x + U h + b; "
        f"each with sigmoid gates and tanh{nearest}"
    )

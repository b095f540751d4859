"""One time step of an unrolled loop as the formula of a cell: LSTM, GRU or RNN."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.readers.unrolled_formulas import Combination, Formulas, Gate, Linear, Mismatch, Vector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastlstm.model import Array

GATES = {"LSTM": ("i", "f", "g", "o"), "GRU": ("r", "z", "n"), "RNN": ("h",)}
# The peepholes in the order of a layer's peephole_l0.
PEEPHOLES = ("i", "f", "o")


@dataclass
class Step:
    """One step read as a cell: what its gates are the sums of, and the states that it takes.

    A previous state is None where the formula holds only constants in its place; `starts` has
    those that can still be seen. A gate is absent where it is multiplied by a zero state.
    """

    kind: str
    h: Vector
    h_before: Vector | None = None
    c: Vector | None = None
    c_before: Vector | None = None
    options: dict[str, Any] = field(default_factory=dict)
    sums: dict[str, tuple[int, Combination]] = field(default_factory=dict)  # sign and sum
    recurrent: Combination | None = None  # what a GRU's n has of the state, where that is apart
    starts: dict[str, Array] = field(default_factory=dict)
    projection: Array | None = None
    reset_matrix: Array | None = None  # what acts on r * h where h is constant

    @property
    def gates(self) -> tuple[str, ...]:
        """The gates in a layer's order."""
        return GATES[self.kind]


def steps(formulas: Formulas, h: Vector, kind: str) -> Iterator[Step]:
    """Each way to read h as what a cell of that kind puts out."""
    h = formulas.bare(h)
    if kind == "LSTM":
        found = _lstm(formulas, h)
        if found is not None:
            yield found
    elif kind == "GRU":
        yield from _gru(formulas, h)
    else:
        yield from _rnn(formulas, h)


def sources(formulas: Formulas, step: Step) -> list[Vector]:
    """The vectors that matrices act on, those that belong together each."""
    found: dict[bytes, Vector] = {}
    for _, combination in step.sums.values():
        for linear in combination.linear:
            for _, _, here in formulas.sites(linear.source):
                vector = linear.source[here]
                found[vector.tobytes()] = vector
    return list(found.values())


def _fed(formulas: Formulas, step: Step) -> Vector | None:
    """The state that the first step is fed with, where a matrix acts on it."""
    fed = [vector for vector in sources(formulas, step) if formulas.fed(vector)]
    if len(fed) > 1:
        raise Mismatch("it takes more than one given state")
    return fed[0] if fed else None


# LSTM: c = f * c_before + i * g, h = o * tanh(c)

_NO_LSTM = (
    "it looks like an LSTM, h = o * tanh(c), but its c is not f * c + i * g with sigmoid gates f "
    "and i, tanh of g, and the c of the step before as it is"
)


def _output(formulas: Formulas, h: Vector) -> tuple[Array | None, Gate, Vector] | None:
    """Projection, gate o and c of h = projection @ (o * tanh(c))."""
    projection = None
    if formulas.operands(h, "mul") is None:
        sites = formulas.sites(h)
        if len(sites) != 1 or not formulas.momentary(h):
            return None
        whole = formulas.combination(h)
        if len(whole.linear) != 1 or whole.scaled or whole.biases:
            return None
        projection, h, _ = whole.linear[0]
    for o, other in formulas.gated(h):
        activation = formulas.activation(other)
        if activation is not None and activation[0] == "tanh":
            return projection, o, formulas.bare(activation[1])
    return None


def _lstm(formulas: Formulas, h: Vector) -> Step | None:
    output = _output(formulas, h)
    if output is None:
        return None
    projection, o, c = output
    step = Step("LSTM", h, c=c, projection=projection)
    pair = formulas.operands(c, "add")
    gates = {"o": o}
    arguments: dict[str, tuple[int, Vector]] = {}
    for addend in (c,) if pair is None else pair:
        gated = formulas.gated(addend)
        new = [(i, g) for i, g in ((i, formulas.activation(g)) for i, g in gated) if g is not None]
        if len(new) == 1 and new[0][1] is not None and new[0][1][0] == "tanh" and "i" not in gates:
            gates["i"] = new[0][0]
            arguments["g"] = (1, formulas.bare(new[0][1][1]))
        elif len(gated) == 1 and not new and step.c_before is None:
            gates["f"], step.c_before = gated[0]
        else:
            start = _constant_state(formulas, addend)
            if start is None or "c" in step.starts:
                raise Mismatch(_NO_LSTM)
            step.starts["c"], gate = start
            if gate is not None:
                gates["f"] = gate
    if "i" not in gates or (step.c_before is not None and "c" in step.starts):
        raise Mismatch(_NO_LSTM)
    arguments.update(gates)
    stops = (c, step.c_before)
    for name, (sign, argument) in arguments.items():
        step.sums[name] = (sign, formulas.combination(argument, stops))
    if step.c_before is None or formulas.fed(step.c_before):
        step.h_before = _fed(formulas, step)
        return step
    for vector in sources(formulas, step):
        before = _output(formulas, vector)
        if before is not None and np.array_equal(before[2], step.c_before):
            step.h_before = vector
            return step
    raise Mismatch(
        "it looks like an LSTM, c = f * c + i * g and h = o * tanh(c), but its gates do not take "
        "the h that belongs to the c before: expected h = o * tanh(c) of the step before, as it is"
    )


def _constant_state(formulas: Formulas, vector: Vector) -> tuple[Array, Gate | None] | None:
    """The state, and the gate if it matters, of a gate times a constant state."""
    found = formulas.combination(vector)
    if not (found.linear or found.scaled or found.constants):
        return np.zeros(len(vector), np.float32), None
    scaled = formulas.scaled_gate(found)
    return None if scaled is None else (scaled[1], scaled[0])


# GRU: h = (1 - z) * n + z * h_before


def _gru(formulas: Formulas, h: Vector) -> Iterator[Step]:
    for z, n, before in _blends(formulas, h):
        activation = formulas.activation(n)
        assert activation is not None
        step = Step("GRU", h)
        if before is not None and before.dtype == np.int64:
            step.h_before = before
        elif before is not None:
            step.starts["h"] = before.astype(np.float32)
        if z is not None:
            step.sums["z"] = (z.sign, formulas.combination(z.argument, (step.h_before,)))
        try:
            _candidate(formulas, step, activation[1])
        except Mismatch as mismatch:
            # Many a product looks like a first step.
            raise Mismatch(str(mismatch), int(step.h_before is not None)) from None
        if step.h_before is None:
            step.h_before = _fed(formulas, step)
        yield step


def _blends(formulas: Formulas, h: Vector) -> Iterator[tuple[Gate | None, Vector, Any]]:
    """(z, n, state) of each way to see h as (1 - z) * n + z * state; a constant state as floats."""

    def new(vector: Any) -> bool:
        activation = None if vector.dtype != np.int64 else formulas.activation(vector)
        return activation is not None and activation[0] == "tanh"

    pair = formulas.operands(h, "add")
    if pair is None:
        # A state of zeros, of which (1 - z) * n is left.
        gated = formulas.gated(h)
        for gate, n in gated:
            if new(n):
                yield Gate(-gate.sign, gate.argument), n, np.zeros(len(h), np.float32)
        shifted = formulas.combination(h)
        if len(shifted.scaled) == 1 and len(shifted.constants) == 1 and not gated:
            # A constant state, state + z * (n - state).
            for gate, change in formulas.gated(shifted.scaled[0].source):
                for n, before in _changes(formulas, change):
                    if new(n) and np.array_equal(before, shifted.constants[0]):
                        yield Gate(-gate.sign, gate.argument), n, before
        return
    for one, other in (pair, pair[::-1]):
        one, other = formulas.bare(one), formulas.bare(other)
        if new(one):
            # n + z * (state - n)
            for gate, change in formulas.gated(other):
                for before, n in _changes(formulas, change):
                    if np.array_equal(n, one):
                        yield gate, one, before
        for gate, n in formulas.gated(one):
            if new(n):
                # (1 - z) * n + z * state
                opposite = (-gate.sign, gate.argument)
                for z, before in formulas.gated(other):
                    if z.sign == opposite[0] and np.array_equal(z.argument, opposite[1]):
                        yield z, n, before
                start = _constant_state(formulas, other)
                if start is not None and (start[1] is None or _same(start[1], opposite)):
                    yield Gate(*opposite), n, start[0]
            for end, before in _changes(formulas, n):
                if new(end) and np.array_equal(before, other):
                    # state + (1 - z) * (n - state)
                    yield Gate(-gate.sign, gate.argument), end, other


def _same(gate: Gate, other: tuple[int, Vector]) -> bool:
    return gate.sign == other[0] and np.array_equal(gate.argument, other[1])


def _changes(formulas: Formulas, vector: Vector) -> Iterator[tuple[Any, Any]]:
    """(a, b) where the vector is a - b; either may be constants."""
    pair = formulas.operands(vector, "sub")
    if pair is not None:
        yield formulas.bare(pair[0]), formulas.bare(pair[1])
        return
    found = formulas.combination(vector)
    if len(found.scaled) != 1 or found.linear:
        return
    factor, source = found.scaled[0]
    total = sum(found.constants, np.zeros(len(vector), np.float32))
    if (factor == -1).all():
        yield total, source
    if (factor == 1).all():
        yield source, -total


def _candidate(formulas: Formulas, step: Step, argument: Vector) -> None:
    """Read a GRU's n, with the reset gate after its matrix product or before it."""
    whole = formulas.combination(argument, (step.h_before,))
    reset: Gate | None = None
    rest = Combination(constants=whole.constants)
    for linear in whole.linear:
        left = np.ones(len(linear.source), bool)
        for _, _, here in formulas.sites(linear.source):
            found = _reset_before(formulas, step, linear.source[here])
            if found is None:
                continue
            if step.recurrent is not None:
                raise Mismatch("it looks like a GRU whose n takes the state twice")
            left[here] = False
            step.options["reset"], (reset, state) = "before", found
            bias = None if left.any() else linear.bias
            matrix = np.ascontiguousarray(linear.matrix[:, here])
            step.recurrent = Combination()
            if len(state):
                step.recurrent.linear.append(Linear(matrix, state, bias))
            else:
                step.reset_matrix = matrix
                step.recurrent.constants += [] if bias is None else [bias]
        if left.any():
            matrix = np.ascontiguousarray(linear.matrix[:, left])
            rest.linear.append(Linear(matrix, linear.source[left], linear.bias))
    for scaled in whole.scaled:
        inner: Combination | None = None
        for gate, other in formulas.gated(scaled.source) if (scaled.factor == 1).all() else ():
            reset, inner = gate, formulas.combination(other, (step.h_before,))
        constant = formulas.scaled_gate(Combination(scaled=[scaled]))
        if inner is None and constant is not None:
            reset, inner = constant[0], Combination(constants=[constant[1]])
        if inner is None or step.recurrent is not None:
            raise Mismatch(
                "it looks like a GRU whose n adds values other than matrix products and r * (W h)"
            )
        step.options["reset"], step.recurrent = "after", inner
    step.sums["n"] = (1, rest)
    if reset is not None:
        step.sums["r"] = (reset.sign, formulas.combination(reset.argument, (step.h_before,)))


def _reset_before(
    formulas: Formulas, step: Step, vector: Vector
) -> tuple[Gate | None, Vector] | None:
    """The gate r, and h, of the vector r * h; h is empty where it is constant."""
    for gate, other in formulas.gated(vector):
        if step.h_before is not None and np.array_equal(other, step.h_before):
            return gate, other
    if step.h_before is None:
        state = _constant_state(formulas, vector)
        if state is not None and np.array_equal(state[0], step.starts.get("h", state[0])):
            return state[1], np.zeros(0, np.int64)
    return None


# RNN: h = tanh(W x + U h_before + b)


def _rnn(formulas: Formulas, h: Vector) -> Iterator[Step]:
    activation = formulas.activation(h)
    if activation is None or activation[0] not in ("tanh", "relu"):
        return
    kind, argument = activation
    whole = formulas.combination(argument)
    if whole.scaled or not whole.linear:
        return
    sums = {"h": (1, whole)}
    step = Step("RNN", h, options={"nonlinearity": kind}, sums=sums)
    fed = _fed(formulas, step)
    for vector in [] if fed is not None else sources(formulas, step):
        before = formulas.activation(vector)
        if len(vector) == len(h) and before is not None and before[0] == kind:
            yield Step("RNN", h, vector, options=step.options, sums=sums)
    yield Step("RNN", h, fed, options=step.options, sums=sums)

"""Loops whose states are fed in, or put out: one step of a cell, and what a loop ends with."""

import numpy as np
import pytest

from fastlstm import reference
from fastlstm.errors import ReaderError
from fastlstm.model import GRU, LSTM, RNN, Bidirectional, Dense, Model
from fastlstm.readers import arithmetic
from fastlstm.readers.elements import Elements, Trace
from fastlstm.readers.places import Carried
from fastlstm.readers.unrolled import fed_states, rolled

RANDOM = np.random.default_rng(3)
INPUTS, HIDDEN = 3, 4


def floats(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def arrays(gates):
    rows = gates * HIDDEN
    return [floats(rows, INPUTS), floats(rows, HIDDEN), floats(rows), floats(rows)]


def products(trace, x, h, weights):
    """W x + b and U h + b, or what is known of it where h is constant."""
    w_ih, w_hh, b_ih, b_hh = weights
    wide = trace.apply(x, Dense(w_ih, b_ih), "x")
    if isinstance(h, Elements):
        return wide, trace.apply(h, Dense(w_hh, b_hh), "h")
    return wide, np.broadcast_to(h @ w_hh.T + b_hh, wide.shape)


def plus(a, b):
    if isinstance(b, Elements):
        return arithmetic.add(a, b, "add")
    return arithmetic.affine(a, None, b, "add")


def times(a, b):
    if isinstance(b, Elements):
        return arithmetic.multiply(a, b, "mul")
    return arithmetic.affine(a, b, None, "mul")


def chunks(value, count):
    if not isinstance(value, Elements):
        return np.split(value, count, -1)
    return [value.moved(lambda a, k=k: np.split(a, count, -1)[k]) for k in range(count)]


def lstm_step(trace, x, h, c, weights):
    gates = chunks(plus(*products(trace, x, h, weights)), 4)
    i, f, o = (trace.activate(gates[k], "sigmoid", "gate") for k in (0, 1, 3))
    c = plus(times(i, trace.activate(gates[2], "tanh", "g")), times(f, c))
    return times(o, trace.activate(c, "tanh", "tanh")), c


def rnn_step(trace, x, h, weights):
    return trace.activate(plus(*products(trace, x, h, weights)), "tanh", "tanh")


def gru_step(trace, x, h, weights):
    x_gates, h_gates = (chunks(part, 3) for part in products(trace, x, h, weights))
    r, z = (
        trace.activate(plus(a, b), "sigmoid", "gate")
        for a, b in zip(x_gates[:2], h_gates[:2], strict=True)
    )
    n = trace.activate(plus(x_gates[2], times(r, h_gates[2])), "tanh", "n")
    return plus(times(arithmetic.affine(z, -1.0, 1.0, "1 - z"), n), times(z, h))


def step(trace, x, t):
    return x.moved(lambda a: a[:, t])


def has(layer, weights):
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    for name, expected in zip(names, weights, strict=True):
        assert layer.arrays[name].tobytes() == expected.tobytes()


def same(one, other):
    assert np.array_equal(one.numbers, other.numbers)


@pytest.mark.parametrize("batch", [1, 2])
def test_one_step_of_an_lstm_with_its_state_fed_in(batch):
    trace, weights = Trace(batch, 1), arrays(4)
    x = step(trace, trace.input(INPUTS), 0)
    shape, axis = (1, batch, HIDDEN), 1
    h, c = (trace.given(name, shape, axis=axis).moved(lambda a: a[0]) for name in ("h", "c"))
    new_h, new_c = lstm_step(trace, x, h, c, weights)
    # The new cell state first: the loop is found from it too.
    found_c, found_h = rolled(new_c, "c"), rolled(new_h, "h")
    fed = {one.state: one for one in fed_states(trace)}
    assert set(fed) == {"h", "c"}
    place = fed["h"].place
    assert isinstance(place.layer, LSTM)
    has(place.layer, weights)
    same(found_h, trace.final(place, 0))
    same(found_c, trace.final(place, 1))
    same(fed["h"].given, h.moved(lambda a: a[0]))
    same(fed["c"].given, c.moved(lambda a: a[0]))
    assert place.layer.h0 is None
    assert place.layer.c0 is None


@pytest.mark.parametrize("start", [None, floats(1, HIDDEN)])
@pytest.mark.parametrize(("make", "kind", "gates"), [(gru_step, GRU, 3), (rnn_step, RNN, 1)])
def test_one_step_of_a_cell_with_h_fed_in(make, kind, gates, start):
    trace, weights = Trace(1, 1), arrays(gates)
    h = trace.given("h", (1, HIDDEN), start)
    new = make(trace, step(trace, trace.input(INPUTS), 0), h, weights)
    found = rolled(new, "h")
    (fed,) = fed_states(trace)
    assert isinstance(fed.place.layer, kind)
    has(fed.place.layer, weights)
    same(found, trace.final(fed.place, 0))
    same(fed.given, h.moved(lambda a: a[0]))
    if start is None:
        assert fed.place.layer.h0 is None
    else:
        assert fed.place.layer.h0.tobytes() == start[0].tobytes()


def test_two_cells_of_one_step_each():
    trace, weights = Trace(1, 1), arrays(4)
    second = [floats(12, HIDDEN), *arrays(3)[1:]]
    h, c, k = (trace.given(name, (1, HIDDEN)) for name in "hck")
    new_h, new_c = lstm_step(trace, step(trace, trace.input(INPUTS), 0), h, c, weights)
    new_k = gru_step(trace, new_h, k, second)
    found = trace.vectors(rolled(new_k, "k"), "k").place
    has(found.layer, second)
    has(found.parent.layer, weights)
    assert {(one.place.layer.kind, one.state) for one in fed_states(trace)} == {
        ("LSTM", "h"),
        ("LSTM", "c"),
        ("GRU", "h"),
    }
    same(rolled(new_c, "c"), trace.final(found.parent, 1))


def test_several_steps_from_a_fed_state():
    trace, weights = Trace(2, 3), arrays(4)
    x = trace.input(INPUTS)
    h, c = (trace.given(name, (2, HIDDEN), axis=0) for name in "hc")
    outputs = []
    for t in range(3):
        h, c = lstm_step(trace, step(trace, x, t), h, c, weights)
        outputs.append(h.numbers)
    found = rolled(Elements(trace, np.stack(outputs)), "y")
    place = fed_states(trace)[0].place
    same(found, trace.outputs(place))
    same(rolled(c, "c"), trace.final(place, 1))
    assert isinstance(trace.places[trace.where(rolled(c, "c").numbers).place[0, 0]], Carried)


def test_what_two_directions_end_with():
    trace, ways = Trace(2, 3), [arrays(4), arrays(4)]
    x, zeros = trace.input(INPUTS), np.zeros((2, HIDDEN), np.float32)
    outputs, ends = [], []
    for weights, order in zip(ways, (range(3), range(2, -1, -1)), strict=True):
        h, c, found = zeros, zeros, {}
        for t in order:
            h, c = lstm_step(trace, step(trace, x, t), h, c, weights)
            found[t] = h.numbers
        outputs.append(np.stack([found[t] for t in range(3)]))
        ends.append((h.numbers, c.numbers))
    y = rolled(Elements(trace, np.concatenate(outputs, -1)), "y")
    place = trace.vectors(y, "y").place
    assert isinstance(place.layer, Bidirectional)
    has(place.layer.forward, ways[0])
    has(place.layer.backward, ways[1])
    same(y, trace.outputs(place))
    for state, name in ((0, "h"), (1, "c")):
        last = rolled(Elements(trace, np.stack([end[state] for end in ends])), name)
        same(last.moved(lambda a: a[0]), trace.final(place, state))
        same(last.moved(lambda a: a[1]), trace.final(place, 2 + state))


@pytest.mark.parametrize("steps", [2, 3])
def test_a_state_that_can_be_seen_beside_its_rounded_product(steps):
    """A GRU's h0 stands in z * h0; what W h0 + b became may be rounded as float32 rounds it."""
    trace, weights = Trace(1, steps), arrays(3)
    h0 = floats(1, HIDDEN)
    x, h, outputs = trace.input(INPUTS), h0, []
    for t in range(steps):
        h = gru_step(trace, step(trace, x, t), h, weights)
        outputs.append(h.numbers)
    place = trace.vectors(rolled(Elements(trace, np.stack(outputs, 1)), "y"), "y").place
    has(place.layer, weights)
    assert place.layer.h0.tobytes() == h0[0].tobytes()
    series = floats(steps, INPUTS)
    expected = Model((GRU(*weights, h0=h0[0]),))
    assert np.array_equal(
        reference.run(Model((place.layer,)), series), reference.run(expected, series)
    )


def test_a_state_that_does_not_fit_its_product():
    trace, weights = Trace(1, 2), arrays(3)
    h0, x, h, outputs = floats(1, HIDDEN), trace.input(INPUTS), None, []
    for t in range(2):
        if h is None:
            wrong = [*weights[:3], weights[3] + np.float32(1e-4)]
            h = gru_step(trace, step(trace, x, t), h0, wrong)
        else:
            h = gru_step(trace, step(trace, x, t), h, weights)
        outputs.append(h.numbers)
    with pytest.raises(ReaderError, match="has other constants in the first step"):
        rolled(Elements(trace, np.stack(outputs, 1)), "y")


def test_a_state_that_is_fed_twice():
    trace, weights = Trace(1, 1), arrays(4)
    h, c = (trace.given(name, (1, HIDDEN)) for name in "hc")
    x = step(trace, trace.input(INPUTS), 0)
    wide = trace.apply(c, Dense(floats(16, HIDDEN)), "c")
    gates = arithmetic.add(plus(*products(trace, x, h, weights)), wide, "add")
    i, f, g, o = chunks(gates, 4)
    new_c = plus(
        times(trace.activate(i, "sigmoid", "i"), trace.activate(g, "tanh", "g")),
        times(trace.activate(f, "sigmoid", "f"), c),
    )
    new = times(trace.activate(o, "sigmoid", "o"), trace.activate(new_c, "tanh", "tanh"))
    with pytest.raises(ReaderError, match="it takes more than one given state"):
        rolled(new, "h")


def test_sums_of_sums_without_end():
    """Each doubles the one before: 2 ** 60 terms, if they were written out."""
    trace = Trace(1, 2)
    x = trace.input(INPUTS)
    value = arithmetic.multiply(step(trace, x, 0), step(trace, x, 1), "mul")
    for _ in range(60):
        value = arithmetic.add(value, value, "double")
    for found in (value, trace.activate(value, "tanh", "tanh")):
        with pytest.raises(ReaderError, match=r"is none of the cells|adds more than 200 values"):
            rolled(found, "y")


def test_a_start_is_one_for_all_sequences():
    trace = Trace(2, 1)
    start = np.repeat(floats(1, 1, HIDDEN), 2, axis=1)
    h = trace.given("h", (1, 2, HIDDEN), start, axis=1)
    assert np.array_equal(trace.start(h), start)
    start[0, 1, 0] += 1
    with pytest.raises(ReaderError, match="begins otherwise in some sequences"):
        trace.given("k", (1, 2, HIDDEN), start, axis=1)


def test_constants_are_exactly_float32():
    trace = Trace(2, 1)
    values = floats(2, HIDDEN)
    assert np.array_equal(trace.start(trace.constant(values, "h0")), values)
    with pytest.raises(ReaderError, match="exactly float32"):
        trace.constant(np.full((1, 2), 0.1), "h0")

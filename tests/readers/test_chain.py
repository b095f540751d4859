"""Places into layers: connections, branches that are carried along, and what is refused."""

import numpy as np
import pytest

import cases
from fastlstm import reference
from fastlstm.errors import ReaderError
from fastlstm.model import Dense, Model, Residual
from fastlstm.readers import arithmetic, chain
from fastlstm.readers.elements import Elements, Trace

BATCH, TIME, SIZE = 2, 3, 3


class Network:
    """Layers on a trace, and the same on numbers, so that the one can be held against the other."""

    def __init__(self):
        self.trace = Trace(BATCH, TIME)
        self.x = self.trace.input(SIZE)

    def model(self, value):
        return Model(chain.layers(self.trace.vectors(value, "the output").place))

    def dense(self, value, outputs):
        layer = cases.dense(value.shape[-1], outputs)
        return self.trace.apply(value, layer, "dense"), layer

    def tanh(self, value):
        y, layer = self.dense(value, value.shape[-1])
        return self.trace.activate(y, "tanh", "tanh"), Dense(layer.weight, layer.bias, "tanh")

    def gru(self, value, hidden):
        layer = cases.recurrent("GRU", value.shape[-1], hidden)
        by_time = value.moved(lambda a: a.swapaxes(0, 1))
        place = self.trace.recurrent(by_time, layer, "gru")
        return self.trace.outputs(place).moved(lambda a: a.swapaxes(0, 1)), layer


def run(x, *layers):
    """A chain over x in the reference, float64 from layer to layer."""
    return reference.run(Model(layers), x)


def samples(seed=0):
    return np.random.default_rng(seed).standard_normal((9, SIZE)).astype(np.float32)


def side_by_side(*values):
    trace = values[0].trace
    return Elements(trace, np.concatenate([value.numbers for value in values], -1))


def test_the_usual_connection_is_a_residual_and_nothing_else():
    net = Network()
    y, gru = net.gru(net.x, SIZE)
    for value in (arithmetic.add(y, net.x, "add"), arithmetic.add(net.x, y, "add")):
        model = net.model(value)
        assert [layer.kind for layer in model.layers] == ["GRU", "Residual"]
        x = samples()
        np.testing.assert_allclose(reference.run(model, x), run(x, gru) + x, rtol=0, atol=1e-15)


def test_connections_within_connections():
    net = Network()
    inner, gru = net.gru(net.x, SIZE)
    first = arithmetic.add(inner, net.x, "add")
    outer, dense = net.tanh(first)
    model = net.model(arithmetic.add(first, outer, "add"))
    assert [layer.kind for layer in model.layers] == ["GRU", "Residual", "Dense", "Residual"]
    x = samples()
    h = run(x, gru) + x
    z = h @ dense.weight.astype(float).T + dense.bias
    np.testing.assert_allclose(reference.run(model, x), h + np.tanh(z), rtol=0, atol=1e-14)


def test_a_hundred_connections_one_after_the_other():
    net = Network()
    value = net.x
    layers = []
    for _ in range(100):
        y, dense = net.tanh(value)
        value = arithmetic.add(value, y, "add")
        layers += [dense, Residual(1, (0, 1, 2))]
    model = net.model(value)
    assert [layer.kind for layer in model.layers] == ["Dense", "Residual"] * 100
    np.testing.assert_array_equal(reference.run(model, samples()), run(samples(), *layers))


def test_more_connections_than_can_be_followed_are_refused():
    net = Network()
    value = net.x
    for _ in range(3000):
        y = net.trace.activate(value, "tanh", "tanh")
        value = arithmetic.add(value, y, "add")
    with pytest.raises(ReaderError, match="expected a network of real depth"):
        net.model(value)


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_shortcut_is_carried_along(bias):
    net = Network()
    y, gru = net.gru(net.x, 5)
    shortcut = cases.dense(SIZE, 5, bias=bias)
    short = net.trace.apply(net.x, shortcut, "shortcut")
    x = samples()
    expected = run(x, gru) + run(x, shortcut)
    for value in (arithmetic.add(y, short, "add"), arithmetic.add(short, y, "add")):
        model = net.model(value)
        assert [layer.kind for layer in model.layers] == ["Dense", "GRU", "Residual"]
        np.testing.assert_allclose(reference.run(model, x), expected, rtol=0, atol=1e-14)


def test_two_linear_layers_side_by_side_and_summed():
    net = Network()
    one, first = net.dense(net.x, 4)
    other = Dense(-first.weight[::-1].copy(), first.bias)
    second = net.trace.apply(net.x, other, "other")
    x = samples()
    model = net.model(arithmetic.add(one, second, "add"))
    expected = run(x, first) + run(x, other)
    np.testing.assert_allclose(reference.run(model, x), expected, rtol=0, atol=1e-14)
    model = net.model(side_by_side(one, second))
    expected = np.concatenate([run(x, first), run(x, other)], 1)
    np.testing.assert_allclose(reference.run(model, x), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_input_beside_what_a_layer_makes_of_it(order):
    net = Network()
    y, gru = net.gru(net.x, 5)
    parts = (y, net.x)
    joined = side_by_side(*(parts[k] for k in order))
    head, dense = net.dense(joined, 2)
    model = net.model(head)
    x = samples()
    both = (run(x, gru), x)
    z = np.concatenate([both[k] for k in order], 1) @ dense.weight.astype(float).T + dense.bias
    np.testing.assert_allclose(reference.run(model, x), z, rtol=0, atol=1e-14)


def test_every_layer_before_side_by_side_with_the_next():
    net = Network()
    y, gru = net.gru(net.x, 4)
    two = side_by_side(net.x, y)
    z, _ = net.gru(two, 2)
    model = net.model(side_by_side(z, net.x, y.moved(lambda a: a[..., 1:3])))
    x = samples()
    top, h = reference.run(net.model(z), x), run(x, gru)
    expected = np.concatenate([top, x, h[:, 1:3]], 1)
    np.testing.assert_allclose(reference.run(model, x), expected, rtol=0, atol=1e-14)


def test_a_difference_of_two_values_is_a_sum_with_a_negative():
    net = Network()
    y, gru = net.gru(net.x, SIZE)
    x = samples()
    h = run(x, gru)
    for value, expected in (
        (arithmetic.subtract(y, net.x, "sub"), h - x),
        (arithmetic.subtract(net.x, y, "sub"), x - h),
    ):
        np.testing.assert_allclose(reference.run(net.model(value), x), expected, atol=1e-15)


def test_a_value_with_itself():
    net = Network()
    y, gru = net.gru(net.x, SIZE)
    model = net.model(arithmetic.add(y, y, "add"))
    np.testing.assert_array_equal(reference.run(model, samples()), 2 * run(samples(), gru))


def test_a_value_with_itself_turned_round():
    net = Network()
    y, gru = net.gru(net.x, SIZE)
    model = net.model(arithmetic.add(y, y.moved(lambda a: a[..., ::-1]), "add"))
    assert [layer.kind for layer in model.layers] == ["GRU", "Dense"]
    h = run(samples(), gru)
    np.testing.assert_array_equal(reference.run(model, samples()), h + h[:, ::-1])


@pytest.mark.parametrize("axis", [-1, 1])
def test_one_value_twice_with_another_constant_each_time(axis):
    net = Network()
    twice = side_by_side(net.x, net.x)
    scale, shift = cases.affine(2 * SIZE).arrays.values()
    turned = twice.moved(lambda a: np.moveaxis(a, -1, axis))
    around = (..., None) if axis == 1 else ...
    made = arithmetic.affine(turned, scale[around], shift[around], "norm")
    model = net.model(made.last_axis(axis))
    x = samples().astype(float)
    expected = np.concatenate([x, x], 1) * scale.astype(float) + shift
    np.testing.assert_allclose(reference.run(model, samples()), expected, rtol=0, atol=1e-15)


def test_a_constant_of_its_own_at_each_step_is_refused():
    net = Network()
    positions = np.arange(TIME, dtype=np.float32)[:, None]
    with pytest.raises(ReaderError, match="not the same float32 values at every step"):
        arithmetic.affine(net.x, None, positions, "positions")


def test_two_recurrent_branches_are_refused_by_name():
    net = Network()
    y, _ = net.gru(net.x, SIZE)
    turned = net.x.moved(lambda a: a[..., ::-1])
    z, _ = net.gru(turned, SIZE)
    with pytest.raises(ReaderError, match="sum of both: it adds the outputs of two branches, gru"):
        net.model(arithmetic.add(y, z, "sum of both"))
    with pytest.raises(ReaderError, match="it puts the outputs of branches side by side"):
        net.model(side_by_side(y, z))


def test_a_product_of_two_values_is_refused():
    net = Network()
    y, _ = net.gru(net.x, SIZE)
    with pytest.raises(ReaderError, match="gate"):
        net.model(arithmetic.multiply(y, net.x, "gate"))

"""The contracts of a stream for LayerNorm, Difference and Residual, and what is beside them."""

import numpy as np
import pytest

import cases
import checks
from fastlstm import reference
from fastlstm.compiled import spec_of
from fastlstm.errors import InputError
from fastlstm.kernels.packing import pack
from fastlstm.model import Affine, Dense, Difference, LayerNorm, Model, Residual
from fastlstm.verify import judge, truth

MODELS = {
    "norm": lambda: [cases.layer_norm(1), cases.recurrent("LSTM", 1, 17), cases.layer_norm(17)],
    "difference": lambda: [
        cases.difference(1),
        cases.recurrent("GRU", 1, 20),
        cases.difference(20),
        cases.dense(20, 1),
    ],
    "residual": lambda: [
        cases.recurrent("LSTM", 1, 18),
        cases.recurrent("GRU", 18, 18),
        cases.residual(1, 18),
        cases.dense(18, 1),
        cases.residual(4, 1),
    ],
    "forecast of 24": lambda: [
        cases.difference(1),
        cases.recurrent("LSTM", 1, 33, initial=True),
        cases.layer_norm(33),
        cases.dense(33, 24),
        Residual(4, (0,) * 24),
    ],
}


def chain(name):
    return Model(tuple(MODELS[name]()))


@pytest.mark.parametrize("name", MODELS)
def test_within_the_bound_over_10000_steps(name):
    model = chain(name)
    stream = model.stream()
    true = truth(model, reference.check_input(model, 10_000))
    row = judge(name, lambda x: (stream.run(x), stream.state), true)
    assert row.verdict == "ok", row


@pytest.mark.parametrize("size", [1, 3, 17, 64, 130])
def test_a_norm_is_no_further_than_twice_torch_float32(size):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    layer = cases.layer_norm(size)
    model = Model((layer,))
    x = cases.stream(model, 2000)
    exact = reference.run(model, x)
    weight, bias = torch.tensor(layer.weight), torch.tensor(layer.bias)
    theirs = torch.nn.functional.layer_norm(torch.tensor(x), (size,), weight, bias, layer.eps)
    distance = np.abs(theirs.numpy() - exact).max()
    assert np.abs(model.stream().run(x) - exact).max() <= 2 * distance + 1e-6


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("before", [59, 60])
def test_a_snapshot_and_a_reset(name, before):
    model = chain(name)
    x = cases.stream(model, 60)
    stream = model.stream()
    first = stream.run(x)
    stream.reset()
    assert stream.snapshot() == model.stream().snapshot()
    assert np.array_equal(stream.run(x), first)
    stream.reset()
    stream.run(x[:before])
    kept = stream.snapshot()
    expected = stream.run(x)
    other = model.stream()
    other.restore(kept)
    assert np.array_equal(other.run(x), expected)


@pytest.mark.parametrize("name", MODELS)
def test_bad_input_changes_nothing(name):
    checks.bad_input_changes_nothing(chain(name))


def test_the_state_of_a_difference_is_its_last_input():
    model = Model((Difference(3, np.array([1, 2, 3], np.float32)),))
    stream = model.stream()
    assert [vector.tolist() for vector in stream.state] == [[1, 2, 3]]
    assert stream.step([5, 5, 5]).tolist() == [4, 3, 2]
    assert stream.run([[5, 6, 7], [0, 0, 0]]).tolist() == [[0, 1, 2], [-5, -6, -7]]
    assert [vector.tolist() for vector in stream.state] == [[0, 0, 0]]


def test_columns_are_those_of_the_source_however_many_it_has():
    zero = Dense(np.zeros((4, 40), np.float32))
    x = np.arange(40, dtype=np.float32)
    for columns in ((0, 1, 2, 3), (39, 38, 0, 17), (36, 37, 38, 39), (7, 7, 7, 7)):
        stream = Model((zero, Residual(1, columns))).stream()
        assert stream.step(x).tolist() == list(columns)
        assert stream.run(x[np.newaxis]).tolist() == [list(columns)]


def test_a_forecast_feeds_back_what_the_connection_adds():
    model = chain("residual")
    stream, by_hand = model.stream(), model.stream()
    x = cases.stream(model, 20)
    stream.run(x)
    by_hand.run(x)
    expected = [by_hand.step(by_hand.output) for _ in range(15)]
    assert np.array_equal(stream.forecast(15), np.array(expected))
    assert stream.snapshot() == by_hand.snapshot()


def test_models_that_differ_in_columns_and_eps_alone_share_their_program():
    def plan(columns, eps):
        size = len(columns)
        model = Model((cases.layer_norm(3, eps=eps), cases.dense(3, size), Residual(2, columns)))
        return repr(pack([spec_of(model, *numbered) for numbered in enumerate(model.layers)]).plan)

    assert plan((0, 2, 1), 1e-5) == plan((2, 2, 0), 0.5)
    assert plan((0, 0, 0), 1e-5) == plan((2, 2, 2), 0.5)
    # A long forecast's plan is no longer than a short one's.
    assert len(plan((1, 0) * 400, 1e-5)) < len(plan((1, 0, 0), 1e-5)) + 100


@pytest.mark.parametrize("size", [5, 16, 33])
def test_a_norm_of_equal_values_is_its_bias(size):
    norm = cases.layer_norm(size)
    stream = Model((norm,)).stream()
    for value in (0, 1e-3, 1 / 3, -1234.567, 1e6):
        y = stream.step(np.full(size, value, np.float32))
        np.testing.assert_allclose(y, norm.bias, rtol=0, atol=1e-5)


def test_a_norm_keeps_the_digits_of_values_far_from_zero():
    """A mean that is rounded once is off by a tenth of these deviations."""
    rng = np.random.default_rng(0)
    x = (1e6 + rng.standard_normal((50, 100)) / 3).astype(np.float32)
    model = Model((LayerNorm(np.ones(100, np.float32)),))
    true = reference.run(model, x)
    np.testing.assert_allclose(model.stream().run(x), true, rtol=0, atol=2e-6)


def overflowing(*layers):
    """A model whose forecast ends in infinity; its LSTM of 3 units leaves lanes over."""
    wide = Affine(np.array([100], np.float32), np.zeros(1, np.float32))
    return Model((wide, *layers, cases.dense(3, 1), Residual(len(layers) + 1, (0,))))


def test_a_forecast_that_overflows_leaves_nothing_behind():
    model = overflowing(cases.recurrent("LSTM", 1, 3))
    stream, untouched = model.stream(), model.stream()
    stream.push(1.0)
    untouched.push(1.0)
    with pytest.raises(InputError, match="not finite"):
        stream.forecast(40)
    for _ in range(3):
        assert np.array_equal(stream.step(0.5), untouched.step(0.5))


def test_a_run_that_overflows_leaves_nothing_to_the_next():
    """The room for spans is shared by the streams of a model, and unused lanes are in it too."""
    narrow = cases.recurrent("RNN", 130, 3, nonlinearity="relu")
    loud = Dense(100 * cases.dense(130, 130).weight)
    ends = (cases.dense(3, 1), cases.dense(1, 130), cases.dense(130, 1))
    model = Model((loud, narrow, *ends))
    x = np.random.default_rng(0).standard_normal((200, 130)).astype(np.float32)
    expected = Model(model.layers).stream().run(x)
    assert np.isfinite(expected).all()
    stream = model.stream()
    assert stream._code.plan.span
    assert not np.isfinite(stream.run(x * np.float32(3e37))).all()
    assert np.array_equal(model.stream().run(x), expected)

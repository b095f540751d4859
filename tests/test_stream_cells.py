"""The contracts of a stream for every cell that torch does not have, and at the ends of spans."""

import numpy as np
import pytest

import cases
import checks
from fastlstm import reference
from fastlstm.model import Model
from fastlstm.verify import judge, truth

CELLS = {
    "projected": lambda hidden: cases.recurrent("LSTM", 1, hidden, projection=(hidden + 2) // 3),
    "projected up": lambda hidden: cases.recurrent("LSTM", 1, hidden, projection=hidden + 5),
    "peephole": lambda hidden: cases.recurrent("LSTM", 1, hidden, peephole=True),
    "both": lambda hidden: cases.recurrent("LSTM", 1, hidden, projection=hidden, peephole=True),
    "reset before": lambda hidden: cases.recurrent("GRU", 1, hidden, reset="before"),
}


@pytest.mark.parametrize("hidden", [8, 17, 64])
@pytest.mark.parametrize("name", CELLS)
def test_within_the_bound_over_10000_steps(name, hidden):
    model = Model((CELLS[name](hidden),))
    stream = model.stream()
    true = truth(model, reference.check_input(model, 10_000))
    row = judge(name, lambda x: (stream.run(x), stream.state), true)
    assert row.verdict == "ok", row


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("hidden", [8, 17, 64])
def test_a_projection_is_no_further_than_twice_torch_float32(hidden):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    module = torch.nn.LSTM(1, hidden, proj_size=5)
    layer = cases.recurrent("LSTM", 1, hidden, projection=5)
    checks.no_further_than_twice_torch(layer, module)


@pytest.mark.parametrize("name", CELLS)
def test_a_snapshot_and_a_reset(name):
    model = Model((CELLS[name](17),))
    x = cases.stream(model, 60)
    stream = model.stream()
    first = stream.run(x)
    kept = stream.snapshot()
    expected = stream.run(x)
    other = model.stream()
    other.restore(kept)
    assert np.array_equal(other.run(x), expected)
    assert not np.array_equal(expected, first)
    stream.reset()
    assert np.array_equal(stream.run(x), first)


@pytest.mark.parametrize("name", CELLS)
def test_bad_input_changes_nothing(name):
    checks.bad_input_changes_nothing(Model((CELLS[name](9),)))


@pytest.mark.parametrize("name", CELLS)
def test_a_state_that_fades_is_never_denormal(name):
    layer = CELLS[name](12)
    quiet = {
        key: np.float32(0 if key.startswith("bias") else 0.3) * array
        for key, array in layer.arrays.items()
    }
    model = Model((type(layer)(**quiet, **layer.options),))
    stream = model.stream()
    stream.run(5 * cases.stream(model, 50)[:20])
    assert all(vector.any() for vector in stream.state)
    sizes = []
    for _ in range(2_000):
        stream.push(0.0)
        state = np.concatenate(stream.state)
        assert not np.any((state != 0) & (np.abs(state) < np.finfo(np.float32).tiny))
        sizes.append(np.abs(state).max())
    assert any(0 < size < 1e-25 for size in sizes)
    assert not state.any()


# So many weights that `run` takes spans, with layers that take their input half at once.
SPANS = {
    "LSTM": lambda: Model((cases.recurrent("LSTM", 40, 40), cases.recurrent("LSTM", 40, 30))),
    "GRU": lambda: Model((cases.recurrent("GRU", 70, 40), cases.dense(40, 60, "tanh"))),
    "RNN": lambda: Model((cases.affine(100), cases.recurrent("RNN", 100, 90))),
    "projected": lambda: Model((cases.recurrent("LSTM", 30, 60, projection=40, peephole=True),)),
    "reset before": lambda: Model(
        (cases.recurrent("GRU", 70, 50, reset="before"), cases.dense(50, 6, "softmax"))
    ),
    "connected": lambda: cases.model("connected-spans"),
    "around an LSTM": lambda: Model(
        (cases.recurrent("LSTM", 40, 50), cases.dense(50, 40), cases.residual(2, 40))
    ),
    "dense": lambda: Model((cases.dense(3, 120, "sigmoid"), cases.dense(120, 110, "relu"))),
}


@pytest.mark.parametrize("name", SPANS)
def test_blocks_of_any_length_give_the_bits_of_single_steps(name):
    model = SPANS[name]()
    stream = model.stream()
    span = stream._code.plan.span
    assert span >= 48, "this model should be run by spans"
    x = cases.stream(model, 4 * span + 11)
    expected = np.array([stream.step(sample) for sample in x])
    for length in (1, 2, 3, 5, 6, 7, span - 1, span, span + 1, 2 * span, len(x)):
        other, cuts = model.stream(), range(length, len(x), length)
        blocks = [other.run(block) for block in np.split(x, cuts)]
        assert np.array_equal(np.concatenate(blocks), expected), length
        assert other.snapshot() == stream.snapshot()


@pytest.mark.parametrize("name", ["LSTM", "RNN", "connected"])
def test_rows_may_lie_apart(name):
    model = SPANS[name]()
    x = cases.stream(model, 120)
    expected = model.stream().run(x)
    wide = np.full((120, model.input_size + 3), 9, np.float32)
    wide[:, : model.input_size] = x
    assert np.array_equal(model.stream().run(wide[:, : model.input_size]), expected)
    assert np.array_equal(model.stream().run(x[::-1][::-1]), expected)
    backwards = model.stream().run(np.ascontiguousarray(x[::-1]))
    assert np.array_equal(model.stream().run(x[::-1]), backwards)
    # The last row ends where memory does: a page of its own, nothing behind it.
    assert np.array_equal(model.stream().run(x[:1]), expected[:1])

"""One call for a block of time steps: the compiled loop itself, for layers of every kind."""

import pytest
from measured import STEPS, agrees, by_run, timed

from fastlstm import reference
from fastlstm.bench.models import CELLS, plain_model
from fastlstm.model import Affine, Bidirectional, Dense, Difference, LayerNorm, Model, Residual
from fastlstm.roads import SequenceSession, StreamSession

SIZES = (8, 24, 32, 64, 128, 256)
# Of the layers without a recurrence: more would hide what a call costs, fewer be that cost.
WIDE = 64


def time_run(benchmark, model, session_of=StreamSession):
    session = session_of(model)
    agrees(by_run(session), model)
    x = reference.check_input(model, STEPS, seed=2)
    run = session.stream.run if session_of is StreamSession else model.run
    timed(benchmark, lambda: run(x), STEPS)


@pytest.mark.parametrize("hidden", SIZES)
@pytest.mark.parametrize("cell", CELLS)
def test_run(benchmark, cell, hidden):
    time_run(benchmark, plain_model(cell, hidden))


@pytest.mark.parametrize("hidden", [16, 64])
@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_run_of_a_stack(benchmark, cell, hidden):
    time_run(benchmark, plain_model(cell, hidden, layers=3))


@pytest.mark.parametrize("hidden", [64, 256])
def test_run_with_many_inputs(benchmark, hidden):
    time_run(benchmark, plain_model("LSTM", hidden, inputs=hidden))


@pytest.mark.parametrize("hidden", [16, 64])
@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_whole_sequence_in_both_directions(benchmark, cell, hidden):
    # Two layers of the same sizes with weights of their own.
    halves = plain_model(cell, hidden, inputs=hidden, layers=2, outputs=None).layers
    time_run(benchmark, Model((Bidirectional(*halves),)), SequenceSession)


def dense(activation="linear"):
    layer = plain_model("RNN", WIDE, outputs=WIDE).layers[-1]
    return Dense(layer.weight, layer.bias, activation)


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "sigmoid", "softmax"])
def test_dense(benchmark, activation):
    time_run(benchmark, Model((dense(activation),)))


def test_affine(benchmark):
    values = dense()
    time_run(benchmark, Model((Affine(values.weight[0], values.bias),)))


def test_layer_norm(benchmark):
    values = dense()
    time_run(benchmark, Model((LayerNorm(values.weight[0], values.bias),)))


def test_difference(benchmark):
    time_run(benchmark, Model((Difference(WIDE), dense())))


def test_residual(benchmark):
    time_run(benchmark, Model((dense(), Residual(1, tuple(range(WIDE))))))

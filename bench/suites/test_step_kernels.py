"""One call a time step: push and step of each kind of layer, at sizes that rule each other out."""

import numpy as np
import pytest
from measured import STEPS, agrees, timed

from fastlstm import reference
from fastlstm.bench.models import CELLS, plain_model
from fastlstm.roads import PushSession, StreamSession

# Latency, the odd block, registers, memory: see docs/kernels.md.
SIZES = (8, 24, 32, 64, 128)


def by_step(session):
    def run(x):
        session.reset()
        return np.stack([session.step(sample) for sample in x]), session.state()

    return run


def time_calls(benchmark, call, model):
    samples = list(reference.check_input(model, STEPS, seed=2))

    def calls():
        for sample in samples:
            call(sample)

    timed(benchmark, calls, STEPS)


@pytest.mark.parametrize("hidden", SIZES)
@pytest.mark.parametrize("cell", CELLS)
def test_push(benchmark, cell, hidden):
    model = plain_model(cell, hidden)
    session = PushSession(model)
    agrees(by_step(session), model)
    time_calls(benchmark, session.stream.push, model)


def test_push_of_a_stack(benchmark):
    model = plain_model("LSTM", 64, inputs=16, layers=3, outputs=8)
    session = PushSession(model)
    agrees(by_step(session), model)
    time_calls(benchmark, session.stream.push, model)


def test_step_with_a_fresh_output(benchmark):
    model = plain_model("LSTM", 8)
    session = StreamSession(model)
    agrees(by_step(session), model)
    time_calls(benchmark, session.stream.step, model)


def test_push_of_a_plain_float(benchmark):
    model = plain_model("LSTM", 8)
    session = PushSession(model)
    stream = session.stream

    def run(x):
        session.reset()
        outputs = []
        for sample in x:
            stream.push(float(sample[0]))
            outputs.append(stream.output.copy())
        return np.stack(outputs), session.state()

    agrees(run, model)
    samples = [float(x) for x in reference.check_input(model, STEPS, seed=2)[:, 0]]

    def calls():
        for sample in samples:
            stream.push(sample)

    timed(benchmark, calls, STEPS)

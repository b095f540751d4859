"""What is paid around the steps: packing, making a stream, snapshots, loading a file."""

import numpy as np
import pytest
from measured import agrees, by_run, timed

import fastlstm
from fastlstm import reference
from fastlstm.bench.models import plain_model
from fastlstm.compiled import Compiled, compiled, spec_of
from fastlstm.kernels.packing import pack
from fastlstm.roads import StreamSession

MODELS = {
    "LSTM-32": {"cell": "LSTM", "hidden": 32},
    "3 LSTM-128": {"cell": "LSTM", "hidden": 128, "layers": 3},
}


@pytest.fixture(params=MODELS)
def model(request):
    return plain_model(**MODELS[request.param])


def test_packing(benchmark, model):
    specs = [spec_of(model, k, layer) for k, layer in enumerate(model.layers)]
    # What is timed gives the weights that a right stream reads.
    agrees(by_run(StreamSession(model)), model)
    assert (pack(specs).weights == compiled(model).weights).all()
    timed(benchmark, lambda: pack(specs))


def test_preparing_a_model(benchmark, model):
    # Packing, and finding machine code that is compiled already.
    agrees(by_run(StreamSession(model)), model)
    assert (Compiled(model).weights == compiled(model).weights).all()
    timed(benchmark, lambda: Compiled(model))


def test_making_a_stream(benchmark, model):
    agrees(by_run(StreamSession(model)), model)
    timed(benchmark, lambda: fastlstm.Stream(model))


def restored_halfway(session):
    """The first half, a snapshot, something else, back, and the second half."""

    def run(x):
        half = len(x) // 2
        session.reset()
        first = session.run(x[:half])
        snapshot = session.stream.snapshot()
        session.run(x[::-1])
        session.stream.restore(snapshot)
        return np.concatenate([first, session.run(x[half:])]), session.state()

    return run


def test_snapshot(benchmark, model):
    session = StreamSession(model)
    agrees(restored_halfway(session), model)
    timed(benchmark, session.stream.snapshot)


def test_restore(benchmark, model):
    session = StreamSession(model)
    agrees(restored_halfway(session), model)
    snapshot = session.stream.snapshot()
    timed(benchmark, lambda: session.stream.restore(snapshot))


def test_reset(benchmark, model):
    session = StreamSession(model)
    session.run(reference.check_input(model, 50, seed=3))
    agrees(by_run(session), model)
    timed(benchmark, session.stream.reset)


def test_loading_a_file(benchmark, model, tmp_path):
    path = model.save(tmp_path / "model.safetensors")
    agrees(by_run(StreamSession(fastlstm.load(path))), model)
    timed(benchmark, lambda: fastlstm.load(path))

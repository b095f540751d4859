"""Every foreign runtime as a Session: the reference's numbers, however a stream is cut."""

import shutil

import numpy as np
import pytest

import cases
from fastlstm.export import onnx_graph, sessions
from fastlstm.export.replay import replay
from fastlstm.verify import judge, truth

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

QUICK = ("OnnxSession", "OnnxBindingSession", "TorchSession", "TorchCellSession")
NAMES = ("GRU-17", "LSTM-1", "rnn-relu", "no-bias", "learned-start", "mixed", "scaled", "lstm-bare")


needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler is installed"
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def assert_streams(model, session):
    replay(model, session, type(session).__name__)
    x = cases.stream(model, 200)

    def uneven(x):
        session.reset()
        pieces = [x[:1], x[1:1], x[1:100], x[100:], x[:0]]
        return np.concatenate([session.run(piece) for piece in pieces]), session.state()

    row = judge("uneven pieces", uneven, truth(model, x))
    assert row.verdict == "ok", row


@pytest.mark.parametrize("session", [*QUICK, "TorchScriptSession"])
@pytest.mark.parametrize("name", NAMES)
def test_streams(session, name):
    model = cases.model(name)
    assert_streams(model, getattr(sessions, session)(model))


@pytest.mark.parametrize("session", ["OnnxSession", "OnnxBindingSession"])
def test_onnx_sessions_run_the_written_file_too(session, tmp_path):
    model = cases.model("mixed")
    proto = onnx_graph.build(model)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    for graph in (proto, proto.SerializeToString(), tmp_path / "m.onnx"):
        assert_streams(model, getattr(sessions, session)(model, graph))


@pytest.mark.parametrize("session", QUICK)
def test_outputs_and_states_are_the_callers_to_keep(session):
    model = cases.model("learned-start")
    live = getattr(sessions, session)(model)
    x = cases.stream(model, 6)
    first, state = live.step(x[0]), live.state()
    block = live.run(x[1:4])
    kept = [array.copy() for array in (first, block, *state)]
    live.step(x[4])
    live.run(x[1:4])
    for array, before in zip((first, block, *state), kept, strict=True):
        np.testing.assert_array_equal(array, before)


def test_torch_keeps_its_switch_for_one_dnn():
    model = cases.model("LSTM-8")
    before = torch.backends.mkldnn.enabled
    sessions.TorchSession(model).step(np.zeros(2, np.float32))
    assert torch.backends.mkldnn.enabled == before


@needs_compiler
def test_compiled_steps_of_two_models_in_one_process():
    # The second would find the first one's machine code if they shared a code object.
    for name in ("LSTM-3", "mixed"):
        model = cases.model(name)
        assert_streams(model, sessions.InductorSession(model))

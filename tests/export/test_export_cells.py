"""Peepholes, projections, the early reset and both directions on every foreign road.

Each against the reference, within verify's bounds; and what a road cannot do is refused by name.
"""

import shutil

import numpy as np
import pytest

import cases
import checks
from fastlstm import export, reference
from fastlstm.errors import ExportError, UnsupportedError
from fastlstm.export import onnx_graph, onnx_recurrent, sessions, torchscript_module
from fastlstm.export.replay import BATCH, BATCH_STEPS, STREAMS, replay
from fastlstm.model import LSTM, Bidirectional, Model
from fastlstm.verify import judge, truth

torch = pytest.importorskip("torch", reason="torch is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

CELLS = {
    "peephole": ("LSTM", 17, {"peephole": True}),
    "peephole-no-bias": ("LSTM", 5, {"peephole": True, "bias": False}),
    "reset-before": ("GRU", 11, {"reset": "before"}),
    "reset-before-no-bias": ("GRU", 6, {"reset": "before", "bias": False}),
}
PROJECTED = {
    "projection": ("LSTM", 9, {"projection": 4}),
    "projection-as-large": ("LSTM", 5, {"projection": 5, "bias": False}),
    "peephole-and-projection": ("LSTM", 13, {"peephole": True, "projection": 6}),
}
PLAIN = {
    "lstm": ("LSTM", 8, {}),
    "gru": ("GRU", 7, {}),
    "rnn-relu": ("RNN", 5, {"nonlinearity": "relu", "bias": False}),
}

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler is installed"
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def chain(name, both=False):
    """Two such layers with a learned start, one after the other, and a Dense on top."""
    kind, hidden, options = {**CELLS, **PROJECTED, **PLAIN}[name]
    make = cases.bidirectional if both else cases.recurrent
    first = make(kind, 2, hidden, seed=1, initial=True, **options)
    second = make(kind, first.output_size, hidden, seed=2, initial=True, **options)
    return Model((first, second, cases.dense(second.output_size, 3)))


def everything():
    """Every new cell in one model, for what takes long to compile."""
    return Model(
        (
            cases.recurrent("LSTM", 2, 13, peephole=True, projection=6, initial=True),
            cases.recurrent("GRU", 6, 11, reset="before", initial=True),
            cases.recurrent("LSTM", 11, 7, projection=5, bias=False),
            cases.recurrent("LSTM", 5, 9, peephole=True),
        )
    )


def assert_whole_sequences(model, session):
    replay(model, session, type(session).__name__)
    for steps in (1, 3, 120):

        def run(x):
            session.reset()
            return session.run(x), session.state()

        row = judge("whole", run, truth(model, cases.stream(model, steps)))
        assert row.verdict == "ok", row


@pytest.mark.parametrize("both", [False, True], ids=["forward", "bidirectional"])
@pytest.mark.parametrize("name", [*CELLS, *PROJECTED, *PLAIN])
def test_the_onnx_file_takes_any_batch_and_time(name, both):
    model = chain(name, both)
    data = onnx_graph.build(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for batch, steps in ((1, 1), (3, 40)):
        x = np.stack([cases.stream(model, steps, seed) for seed in range(batch)])
        feed = {"x": x, **onnx_graph.initial_states(model, batch)}
        y, *states = session.run(None, feed)
        checks.batch_is_right(model, x, y, states)


@pytest.mark.parametrize("road", ["OnnxSession", "OnnxBindingSession"])
@pytest.mark.parametrize("both", [False, True], ids=["forward", "bidirectional"])
@pytest.mark.parametrize("name", [*CELLS, *PROJECTED, "lstm", "rnn-relu"])
def test_onnx_sessions(name, both, road):
    model = chain(name, both)
    assert_whole_sequences(model, getattr(sessions, road)(model))
    # Without the Dense, the bare graph ends in the recurrent layer itself.
    bare = Model(model.layers[:2])
    assert_whole_sequences(bare, getattr(sessions, road)(bare))


@pytest.mark.parametrize("name", [*CELLS, *PROJECTED])
def test_a_second_runtime_reads_the_same_numbers(name):
    from onnx.reference import ReferenceEvaluator

    model = chain(name)
    x = cases.stream(model, 8)[None]
    feed = {"x": x, **onnx_graph.initial_states(model)}
    y, *states = ReferenceEvaluator(onnx_graph.build(model)).run(None, feed)
    checks.batch_is_right(model, x, y, [state.reshape(1, -1) for state in states])


def test_names_sizes_and_nodes_of_a_bidirectional_graph():
    layers = (
        cases.bidirectional("LSTM", 2, 5),
        cases.bidirectional("GRU", 10, 4, reset="before"),
    )
    proto = onnx_graph.build(Model(layers))
    described = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.input, *proto.graph.output)
    }
    state = {
        f"{name}{end}_{place}": ["batch", size]
        for end in "0N"
        for name, layer, size in (("h", "l0", 5), ("c", "l0", 5), ("h", "l1", 4))
        for place in (layer, f"{layer}_reverse")
    }
    assert described == {"x": ["batch", "time", 2], "y": ["batch", "time", 8], **state}
    # Model.states' order: forward's vectors, then backward's.
    inputs = [value.name for value in proto.graph.input]
    assert inputs[1:5] == ["h0_l0", "c0_l0", "h0_l0_reverse", "c0_l0_reverse"]
    nodes = {node.op_type: node for node in proto.graph.node}
    assert [node.op_type for node in proto.graph.node if node.op_type in "LSTM GRU"] == [
        "LSTM",
        "GRU",
    ]
    for kind in ("LSTM", "GRU"):
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in nodes[kind].attribute}
        assert attributes["direction"] == b"bidirectional"
    assert attributes["linear_before_reset"] == 0


def swapped_peepholes(monkeypatch):
    monkeypatch.setattr(onnx_recurrent, "PEEPHOLES", (0, 1, 2))


def no_peepholes(monkeypatch):
    monkeypatch.setattr(onnx_graph._Graph, "peepholes", lambda *_: "")


def swapped_halves(monkeypatch):
    weights = onnx_graph._Graph.weights
    monkeypatch.setattr(
        onnx_graph._Graph, "weights", lambda self, name, halves: weights(self, name, halves[::-1])
    )


@pytest.mark.parametrize("fault", [swapped_peepholes, no_peepholes, swapped_halves])
def test_a_wrong_leanest_graph_is_caught(fault, monkeypatch):
    fault(monkeypatch)
    model = chain("peephole", both=True)
    with pytest.raises(ExportError, match="OnnxSession, as one sequence: over 16 steps"):
        replay(model, sessions.OnnxSession(model), "OnnxSession")


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_wrong_onnx_exporter_is_caught(name, monkeypatch, tmp_path):
    swapped_halves(monkeypatch)
    with pytest.raises(ExportError, match="ONNX Runtime, as one sequence: over 16 steps"):
        export.onnx(chain(name, both=True), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_half_without_bias_or_peephole_gets_zeros():
    arrays = dict(cases.recurrent("LSTM", 2, 5, peephole=True).arrays)
    plain = {k: v for k, v in arrays.items() if k.startswith("weight")}
    model = Model((Bidirectional(LSTM(**plain), LSTM(**arrays)),))
    assert_whole_sequences(model, sessions.OnnxSession(model))


@pytest.mark.parametrize("road", ["TorchSession", "TorchCellSession", "TorchScriptSession"])
@pytest.mark.parametrize("name", [*CELLS, *PROJECTED])
def test_torch_sessions(name, road):
    model = chain(name)
    assert_whole_sequences(model, getattr(sessions, road)(model))


@pytest.mark.parametrize("road", ["TorchSession", "TorchScriptSession"])
@pytest.mark.parametrize("name", [*CELLS, *PROJECTED, *PLAIN])
def test_torch_runs_whole_sequences_in_both_directions(name, road):
    model = chain(name, both=True)
    assert_whole_sequences(model, getattr(sessions, road)(model))


@pytest.mark.parametrize("both", [False, True], ids=["forward", "bidirectional"])
@pytest.mark.parametrize("name", ["peephole-and-projection", "reset-before", "lstm"])
def test_torchscript_takes_any_batch_and_time(name, both):
    model = chain(name, both)
    module = torchscript_module.to_torchscript(model)
    for batch, steps in ((1, 1), (4, 25)):
        x = np.stack([reference.check_input(model, steps, seed) for seed in range(batch)])
        given = torch.from_numpy(x)
        y, states = module(given, module.initial_state(given))
        checks.batch_is_right(model, x, y.numpy(), [state.numpy() for state in states])


@pytest.mark.parametrize("target", ["onnx", "torchscript"])
def test_what_is_written_of_a_bidirectional_model_and_its_snippet(target, tmp_path):
    model = chain("peephole", both=True)
    done = getattr(export, target)(model, tmp_path / "model.file")
    at_once = BATCH * BATCH_STEPS if target == "onnx" else 0
    assert done.steps == sum(steps for steps, _ in STREAMS) + at_once
    assert 0 < done.max_abs_error <= done.bound
    names = {}
    if target == "torchscript":
        with pytest.warns(DeprecationWarning, match="torch.jit.load"):
            exec(done.snippet, names)
    else:
        exec(done.snippet, names)
    expected = reference.run(model, np.zeros((10, 2)))
    np.testing.assert_allclose(np.asarray(names["y"])[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "road", ["OnnxSession", "OnnxBindingSession", "TorchSession", "TorchScriptSession"]
)
def test_a_step_of_a_bidirectional_model_is_refused_and_changes_nothing(road):
    model = chain("gru", both=True)
    session = getattr(sessions, road)(model)
    with pytest.raises(UnsupportedError, match=r"layer 0 \(Bidirectional\) needs the whole seq"):
        session.step(np.zeros(2, np.float32))
    for found, state in zip(session.state(), model.states, strict=True):
        np.testing.assert_array_equal(found, state.initial)
    assert_whole_sequences(model, session)


def test_roads_of_single_steps_refuse_a_bidirectional_model(tmp_path):
    model = Model((cases.affine(2), *chain("gru", both=True).layers))
    for road in ("TorchCellSession", "InductorSession", "AotiSession"):
        with pytest.raises(UnsupportedError, match=r": layer 1 \(Bidirectional\) needs the whole"):
            getattr(sessions, road)(model)
    with pytest.raises(UnsupportedError, match="Inductor: layer 1"):
        export.inductor(model, tmp_path / "m.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [*CELLS, *PROJECTED])
def test_the_step_for_inductor_before_it_is_compiled(name):
    checks.step_for_inductor_is_right(chain(name), atol=1e-12)


@needs_compiler
def test_the_compiled_step():
    model = everything()
    assert_whole_sequences(model, sessions.InductorSession(model))


@needs_compiler
def test_the_inductor_package(tmp_path):
    done = export.inductor(everything(), tmp_path / "m.pt2")
    assert 0 < done.max_abs_error <= done.bound
    assert list(tmp_path.iterdir()) == [done.path]

"""LayerNorm, Difference and Residual on every foreign road, each against the reference.

Also where they meet: behind recurrent layers, across bidirectional ones, at either end of a model.
"""

import json
import shutil

import numpy as np
import pytest

import cases
import checks
from fastlstm import export, reference
from fastlstm.errors import ExportError
from fastlstm.export import onnx_graph, sessions, torchscript_module
from fastlstm.export.replay import replay
from fastlstm.model import Difference, LayerNorm, Model, Residual
from fastlstm.verify import judge, truth

torch = pytest.importorskip("torch", reason="torch is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler is installed"
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def everything():
    """All three kinds, each kind of columns, and a connection within another."""
    return Model(
        (
            cases.difference(4),
            cases.recurrent("GRU", 4, 6, initial=True),
            cases.layer_norm(6),
            # With these weights its cell state stays small; with others it adds up all roundings.
            cases.recurrent("LSTM", 6, 6, peephole=True, seed=1),
            Residual(2, (5, 4, 3, 2, 1, 0)),
            Residual(4, (0,) * 6),
            Difference(6),
            cases.dense(6, 9, "tanh"),
            # Not one column: a norm takes off what all values share, and leaves its rounding.
            Residual(8, (3, 1, 2, 0, 3, 1, 2, 0, 3)),
            cases.layer_norm(9, bias=False, eps=1e-3),
        )
    )


CHAINS = {
    "norm": lambda: Model((cases.layer_norm(5),)),
    "norm-of-one-value": lambda: Model((cases.layer_norm(1, eps=0.1), cases.dense(1, 2))),
    "difference": lambda: Model((Difference(3),)),
    "difference-learned": lambda: Model((cases.difference(3), cases.recurrent("RNN", 3, 4))),
    "difference-last": lambda: Model((cases.recurrent("LSTM", 3, 4), cases.difference(4))),
    "differences": lambda: Model((Difference(2), cases.difference(2), cases.dense(2, 1))),
    "skip": lambda: Model((cases.recurrent("LSTM", 3, 3), Residual(1, (0, 1, 2)))),
    "skip-of-wider": lambda: Model(
        (cases.dense(5, 4), cases.recurrent("GRU", 4, 3), Residual(2, (0, 1, 2)))
    ),
    "skip-of-recurrent": lambda: Model(
        (
            cases.recurrent("GRU", 2, 5),
            cases.layer_norm(5),
            cases.recurrent("LSTM", 5, 5),
            cases.layer_norm(5, bias=False),
            Residual(3, tuple(range(5))),
            cases.dense(5, 5, "relu"),
            Residual(1, tuple(range(5))),
            cases.recurrent("RNN", 5, 2),
        )
    ),
    "one-column": lambda: Model((cases.recurrent("LSTM", 1, 6), Residual(1, (0,) * 6))),
    "one-column-of-many": lambda: Model(
        (Difference(3), cases.recurrent("GRU", 3, 6), Residual(2, (2,) * 6))
    ),
    "columns": lambda: Model((cases.dense(4, 5), Residual(1, (3, 0, 0, 2, 1)))),
    "some-in-a-row": lambda: Model((cases.dense(4, 2), Residual(1, (2, 3)))),
    "doubled": lambda: Model((cases.layer_norm(3), Residual(1, (0, 1, 2)), Residual(1, (0, 1, 2)))),
    "everything": everything,
}
BOTH = {
    "skip-across": lambda: Model(
        (
            cases.dense(2, 6),
            cases.bidirectional("LSTM", 6, 3, initial=True),
            Residual(1, tuple(range(6))),
            cases.layer_norm(6),
            cases.bidirectional("GRU", 6, 4, reset="before"),
            Residual(4, (5, 4, 3, 2, 1, 0, 0, 0)),
        )
    ),
    "difference-within": lambda: Model(
        (
            cases.difference(2),
            cases.bidirectional("RNN", 2, 3),
            cases.difference(6),
            cases.recurrent("LSTM", 6, 4),
            cases.bidirectional("LSTM", 4, 2, peephole=True),
            Residual(1, (3, 1, 2, 0)),
            Residual(6, (1,) * 4),
        )
    ),
}
ALL = {**CHAINS, **BOTH}


def assert_streams(model, session):
    """Whole, by single steps and in uneven pieces, empty ones too; bidirectional models whole."""
    replay(model, session, type(session).__name__)
    cuts = [] if model.bidirectional else [1, 1, 2, 57, 57]
    x = cases.stream(model, 80)

    def run(x):
        session.reset()
        return np.concatenate([session.run(piece) for piece in np.split(x, cuts)]), session.state()

    row = judge("uneven pieces", run, truth(model, x))
    assert row.verdict == "ok", row


@pytest.mark.parametrize(
    "road", ["OnnxSession", "OnnxBindingSession", "TorchSession", "TorchScriptSession"]
)
@pytest.mark.parametrize("name", ALL)
def test_sessions(name, road):
    model = ALL[name]()
    assert_streams(model, getattr(sessions, road)(model))


@pytest.mark.parametrize("name", CHAINS)
def test_torch_cells(name):
    model = CHAINS[name]()
    assert_streams(model, sessions.TorchCellSession(model))


@pytest.mark.parametrize("name", ALL)
def test_the_onnx_file_takes_any_batch_and_time(name):
    model = ALL[name]()
    data = onnx_graph.build(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for batch, steps in ((1, 1), (3, 40)):
        x = np.stack([cases.stream(model, steps, seed) for seed in range(batch)])
        y, *states = session.run(None, {"x": x, **onnx_graph.initial_states(model, batch)})
        checks.batch_is_right(model, x, y, states)


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("name", CHAINS)
def test_a_second_runtime_reads_the_same_numbers(name, bare):
    from onnx.reference import ReferenceEvaluator

    model = CHAINS[name]()
    evaluator = ReferenceEvaluator(onnx_graph.build(model, bare=bare))
    x = np.stack([cases.stream(model, 8)])
    feed = {"x": x, **onnx_graph.initial_states(model)}
    if bare:
        feed = {n: v.swapaxes(0, 1) if n == "x" else v[None] for n, v in feed.items()}
    y, *states = evaluator.run(None, feed)
    states = [state.reshape(1, -1) for state in states]
    checks.batch_is_right(model, x, y.reshape(1, 8, model.output_size), states)


@pytest.mark.parametrize("name", ["differences", "difference", "columns", "norm"])
def test_no_steps_hand_the_state_on_in_the_onnx_file(name):
    model = CHAINS[name]()
    data = onnx_graph.build(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    x = np.zeros((2, 0, model.input_size), np.float32)
    feed = onnx_graph.initial_states(model, 2)
    feed = {name: state + np.float32(0.5) for name, state in feed.items()}
    y, *states = session.run(None, {"x": x, **feed})
    assert y.shape == (2, 0, model.output_size)
    for found, given in zip(states, feed.values(), strict=True):
        np.testing.assert_array_equal(found, given)


def test_names_and_sizes_of_the_states_of_differences():
    model = Model((Difference(2), cases.recurrent("LSTM", 2, 5), cases.difference(5)))
    proto = onnx_graph.build(model)
    described = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.input, *proto.graph.output)
    }
    assert described == {
        "x": ["batch", "time", 2],
        "x0_l0": ["batch", 2],
        "h0_l1": ["batch", 5],
        "c0_l1": ["batch", 5],
        "x0_l2": ["batch", 5],
        "y": ["batch", "time", 5],
        "xN_l0": ["batch", 2],
        "hN_l1": ["batch", 5],
        "cN_l1": ["batch", 5],
        "xN_l2": ["batch", 5],
    }
    (about,) = (json.loads(p.value) for p in proto.metadata_props if p.key == "fastlstm")
    assert about["states"][3]["initial"] == model.layers[2].x0.tolist()


def gathers(model):
    return [node for node in onnx_graph.build(model).graph.node if node.op_type == "Gather"]


def test_only_columns_out_of_order_are_gathered_and_one_column_once():
    for name in ("skip", "one-column", "doubled"):
        assert not gathers(CHAINS[name]())
    for name, columns in (("one-column-of-many", [2]), ("columns", [3, 0, 0, 2, 1])):
        model = CHAINS[name]()
        (node,) = gathers(model)
        constants = {c.name: c for c in onnx_graph.build(model).graph.initializer}
        found = onnx.numpy_helper.to_array(constants[node.input[1]])
        np.testing.assert_array_equal(found, columns)


def forgotten_state(monkeypatch):
    """Right over one sequence, wrong wherever its state is fed back."""
    node = onnx_graph._Graph.node

    def stale(self, kind, inputs, output, **attributes):
        if output == "xN_l0":
            inputs = ["x0_l0_wide", *inputs[1:]]
        return node(self, kind, inputs, output, **attributes)

    monkeypatch.setattr(onnx_graph._Graph, "node", stale)


def other_columns(monkeypatch):
    residual = onnx_graph._Graph.residual

    def swapped(self, k, layer, x, source, size):
        layer = Residual(layer.back, layer.columns[::-1])
        return residual(self, k, layer, x, source, size)

    monkeypatch.setattr(onnx_graph._Graph, "residual", swapped)


def another_eps(monkeypatch):
    layer_norm = onnx_graph._Graph.layer_norm
    monkeypatch.setattr(
        onnx_graph._Graph,
        "layer_norm",
        lambda self, k, layer, x: layer_norm(self, k, LayerNorm(layer.weight, layer.bias), x),
    )


@pytest.mark.parametrize("fault", [forgotten_state, other_columns, another_eps])
def test_a_wrong_onnx_exporter_is_caught(fault, monkeypatch, tmp_path):
    fault(monkeypatch)
    with pytest.raises(ExportError, match="ONNX Runtime, "):
        export.onnx(everything(), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["everything", "skip-across", "difference-within"])
def test_torchscript_takes_any_batch_and_time(name):
    model = ALL[name]()
    module = torchscript_module.to_torchscript(model)
    for batch, steps in ((1, 1), (4, 25)):
        x = np.stack([reference.check_input(model, steps, seed) for seed in range(batch)])
        given = torch.from_numpy(x)
        y, states = module(given, module.initial_state(given))
        checks.batch_is_right(model, x, y.numpy(), [state.numpy() for state in states])


@pytest.mark.parametrize("road", ["OnnxBindingSession", "TorchSession", "TorchCellSession"])
def test_the_state_of_a_difference_is_no_view_of_the_input(road):
    model = CHAINS["differences"]()
    session = getattr(sessions, road)(model)
    x = cases.stream(model, 3)
    session.step(x[0])
    kept = session.state()
    before = [vector.copy() for vector in kept]
    np.testing.assert_array_equal(kept[0], x[0])
    session.step(x[1])
    for found, vector in zip(kept, before, strict=True):
        np.testing.assert_array_equal(found, vector)


@pytest.mark.parametrize("name", CHAINS)
def test_the_step_for_inductor_before_it_is_compiled(name):
    checks.step_for_inductor_is_right(CHAINS[name](), atol=1e-12)


@needs_compiler
def test_the_compiled_step():
    model = everything()
    assert_streams(model, sessions.InductorSession(model))


@needs_compiler
def test_the_inductor_package(tmp_path):
    model = everything()
    done = export.inductor(model, tmp_path / "m.pt2")
    assert 0 < done.max_abs_error <= done.bound
    assert list(tmp_path.iterdir()) == [done.path]

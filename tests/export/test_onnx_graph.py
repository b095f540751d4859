"""The ONNX file against the float64 reference, in ONNX Runtime and in onnx's own evaluator."""

import json

import numpy as np
import pytest

import cases
import checks
import onnx_files
from fastlstm import export, reference
from fastlstm.errors import ExportError
from fastlstm.export import onnx_graph, onnx_nodes
from fastlstm.model import Model

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

KINDS = {
    "LSTM": {},
    "GRU": {},
    "RNN": {},
    "RNN-relu": {"nonlinearity": "relu"},
}


def chain(kind, hidden, layers, **options):
    sizes = [2] + [hidden] * layers
    return Model(
        tuple(
            cases.recurrent(kind[:4].rstrip("-"), sizes[k], hidden, seed=k, **options)
            for k in range(layers)
        )
    )


def runtime(model):
    data = onnx_graph.build(model).SerializeToString()
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def feed(model, x, states=None):
    """X (batch, time, inputs) and the states that an earlier call put out, or the initial ones."""
    start = onnx_graph.initial_states(model, len(x))
    if states is not None:
        start = dict(zip(start, states, strict=True))
    return {"x": x, **start}


def batch_of_streams(model, batch, steps):
    return np.stack([reference.check_input(model, steps, seed) for seed in range(batch)])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("hidden", [1, 3, 16, 17])
@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_layers(kind, hidden, layers, bias):
    model = chain(kind, hidden, layers, bias=bias, **KINDS[kind])
    x = batch_of_streams(model, 3, 40)
    y, *states = runtime(model).run(None, feed(model, x))
    checks.batch_is_right(model, x, y, states)


@pytest.mark.parametrize("name", cases.MODELS)
def test_every_awkward_model_on_awkward_streams(name):
    model = cases.model(name)
    x = np.stack([cases.stream(model, 60, seed) for seed in range(2)])
    y, *states = runtime(model).run(None, feed(model, x))
    checks.batch_is_right(model, x, y, states)


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "sigmoid", "softmax"])
@pytest.mark.parametrize("bias", [True, False])
def test_dense_and_affine_layers(activation, bias):
    model = Model((cases.affine(3), cases.dense(3, 5, activation, bias=bias), cases.affine(5)))
    x = batch_of_streams(model, 7, 4)
    (y,) = runtime(model).run(None, feed(model, x))
    checks.batch_is_right(model, x, y, [])


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("name", ["mixed", "learned-start", "gru-stack"])
def test_one_file_serves_any_batch_and_any_cut_of_time(name, batch):
    model = cases.model(name)
    session = runtime(model)
    x = batch_of_streams(model, batch, 30)
    outputs, states = [], None
    for piece in np.split(x, [1, 2, 9, 10, 25], axis=1):
        y, *states = session.run(None, feed(model, piece, states))
        outputs.append(y)
    checks.batch_is_right(model, x, np.concatenate(outputs, axis=1), states)


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("name", onnx_files.ALL)
def test_every_cell_step_by_step_with_the_state_carried(name, layers, batch):
    model = onnx_files.chain(name, layers=layers)
    x = batch_of_streams(model, batch, 20)
    for options in ({}, {"lengths": True}):
        session = onnx_files.session(model, **options)
        counts = {"lengths": np.ones(batch, np.int32)} if options else {}
        outputs, states = [], None
        for step in np.split(x, 20, axis=1):
            y, *states = session.run(None, {**feed(model, step, states), **counts})
            outputs.append(y)
        checks.batch_is_right(model, x, np.concatenate(outputs, axis=1), states)


# Without rnn-relu: onnx's own evaluator knows no Relu inside an RNN node.
@pytest.mark.parametrize("name", ["LSTM-3", "GRU-17", "RNN-8", "mixed", "lstm-stack"])
@pytest.mark.parametrize("bare", [False, True])
def test_a_second_runtime_reads_the_same_numbers(name, bare):
    from onnx.reference import ReferenceEvaluator

    model = cases.model(name)
    evaluator = ReferenceEvaluator(onnx_graph.build(model, bare=bare))
    x = batch_of_streams(model, 1, 6)
    fed = feed(model, x)
    if bare:
        fed = {"x": x.swapaxes(0, 1), **{n: s[None] for n, s in fed.items() if n != "x"}}
    y, *states = evaluator.run(None, fed)
    states = [state.reshape(1, -1) for state in states]
    checks.batch_is_right(model, x, y.reshape(1, len(x[0]), model.output_size), states)


def test_the_graph_is_one_node_a_layer_and_never_unrolled():
    model = cases.model("learned-start")
    proto = onnx_graph.build(model)
    kinds = [node.op_type for node in proto.graph.node]
    assert [kind for kind in kinds if kind in ("LSTM", "GRU", "RNN")] == ["LSTM", "GRU", "RNN"]
    assert not {"Loop", "Scan", "If", "Slice", "Concat"} & set(kinds)
    for node in proto.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert attributes.get("layout", 0) == 0
        if node.op_type == "GRU":
            assert attributes["linear_before_reset"] == 1


def test_names_sizes_and_versions_are_as_documented():
    proto = onnx_graph.build(cases.model("mixed"))
    described = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.input, *proto.graph.output)
    }
    assert described == {
        "x": ["batch", "time", 3],
        "h0_l2": ["batch", 12],
        "h0_l3": ["batch", 30],
        "c0_l3": ["batch", 30],
        "y": ["batch", "time", 7],
        "hN_l2": ["batch", 12],
        "hN_l3": ["batch", 30],
        "cN_l3": ["batch", 30],
    }
    assert proto.ir_version == 8
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 17)]


def test_the_file_tells_how_to_start_and_what_to_expect(tmp_path):
    model = cases.model("learned-start")
    export.onnx(model, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["fastlstm"])
    assert [layer["kind"] for layer in about["layers"]] == ["LSTM", "GRU", "RNN"]
    state = {s["input"]: np.array([s["initial"]], np.float32) for s in about["states"]}
    for name, array in onnx_graph.initial_states(model).items():
        np.testing.assert_array_equal(state[name], array)
    x = np.array([about["check_input"]], np.float32)
    y = session.run(["y"], {"x": x, **state})[0]
    np.testing.assert_allclose(y[0], about["check_output"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(about["check_output"], reference.run(model, x[0]))


def test_a_graph_that_onnx_itself_refuses_is_an_export_error(monkeypatch):
    monkeypatch.setitem(onnx_nodes.ACTIVATIONS, "tanh", "Tahn")
    with pytest.raises(ExportError, match=r"onnx\.checker refuses the graph: .*Tahn"):
        onnx_graph.build(Model((cases.dense(2, 2, "tanh"),)))

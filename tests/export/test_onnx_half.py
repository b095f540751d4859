"""ONNX files with weights of float16: the model with rounded weights, computed in float32."""

import json

import numpy as np
import pytest

import cases
import onnx_files
from fastlstm import export, reference
from fastlstm.errors import ExportError
from fastlstm.export import onnx_graph, onnx_half, sessions
from fastlstm.export.onnx_nodes import Nodes
from fastlstm.export.replay import STREAMS, replay
from fastlstm.model import LSTM, Bidirectional, Dense, Model

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

BOTH = pytest.mark.parametrize("both", [False, True], ids=["forward", "bidirectional"])
MIXED = lambda: Model(  # noqa: E731
    (
        cases.affine(3),
        cases.layer_norm(3),
        cases.difference(3),
        cases.recurrent("GRU", 3, 12, initial=True),
        cases.bidirectional("LSTM", 12, 5, peephole=True, initial=True),
        cases.dense(10, 12, "relu", bias=False),
        cases.residual(2, 12),
        cases.affine(12),
    )
)


def fed(model, x):
    return {"x": x, **onnx_graph.initial_states(model, len(x))}


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("name", [*onnx_files.CELLS, "mixed"])
def test_it_computes_to_the_bit_what_float32_does_with_rounded_weights(name, lengths):
    model = MIXED() if name == "mixed" else onnx_files.chain(name, layers=2)
    x = np.stack([cases.stream(model, 50, seed) for seed in range(3)])
    feed = fed(model, x)
    if lengths:
        feed["lengths"] = np.array([50, 3, 0], np.int32)
    found = onnx_files.session(model, half=True, lengths=lengths).run(None, feed)
    rounded = onnx_half.rounded(model)
    expected = onnx_files.session(rounded, lengths=lengths).run(None, feed)
    plain = onnx_files.session(model, lengths=lengths).run(None, feed)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(found[0] - plain[0]).max() > 1e-5  # it is another network


@pytest.mark.parametrize("layers", [1, 2, 3])
@BOTH
@pytest.mark.parametrize("name", onnx_files.ALL)
def test_every_cell_against_the_reference_of_the_rounded_model(name, both, layers):
    model = onnx_files.chain(name, layers=layers, both=both)
    rounded = onnx_half.rounded(model)
    session = sessions.OnnxSession(rounded, onnx_graph.build(model, half=True, bare=layers == 2))
    replay(rounded, session, name, batch=session.batch)


@BOTH
@pytest.mark.parametrize("name", ["lstm", "gru-before", "projection"])
def test_what_is_written_and_how_far_it_is_from_the_model(name, both, tmp_path):
    model = onnx_files.chain(name, layers=2, both=both)
    done = export.onnx(model, tmp_path / "m.onnx", half=True)
    rounded = onnx_half.rounded(model)
    expected = 0.0
    for steps, seed in STREAMS:
        x = reference.check_input(model, steps, seed)
        distance = np.abs(reference.run(rounded, x) - reference.run(model, x)).max()
        expected = max(expected, distance)
    assert 10 * done.bound < expected
    assert abs(done.rounding - expected) <= done.bound
    assert done.max_abs_error <= done.bound
    assert export.onnx(model, tmp_path / "m.onnx").rounding == 0
    names = {}
    exec(done.snippet, names)


def test_the_check_vector_is_that_of_the_file(tmp_path):
    model = onnx_files.chain("lstm")
    export.onnx(model, tmp_path / "m.onnx", half=True)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["fastlstm"])
    x = np.array([about["check_input"]], np.float32)
    y = session.run(["y"], fed(model, x))[0]
    np.testing.assert_allclose(y[0], about["check_output"], rtol=0, atol=1e-6)
    # The start of a sequence is not rounded.
    assert about["states"][0]["initial"] == model.layers[0].h0.tolist()


def test_weights_are_half_as_large_and_scalings_as_they_were():
    model = MIXED()
    constants = {c.name: c for c in onnx_graph.build(model, half=True).graph.initializer}
    arrays = {name: onnx.numpy_helper.to_array(c) for name, c in constants.items()}
    np.testing.assert_array_equal(arrays["l0_scale"], model.layers[0].scale)
    np.testing.assert_array_equal(arrays["l7_shift"], model.layers[7].shift)
    floats = {name: a for name, a in arrays.items() if a.dtype == np.float32}
    assert sorted(floats) == ["l0_scale", "l0_shift", "l7_scale", "l7_shift"]
    np.testing.assert_array_equal(arrays["l5_weight_half"], model.layers[5].weight.T.astype("f2"))
    nodes = onnx_files.inside(onnx_graph.build(model, half=True))
    casts = {node.input[0] for node in nodes if node.op_type == "Cast"}
    assert casts == {name for name, a in arrays.items() if a.dtype == np.float16}


@pytest.mark.parametrize("name", ["lstm", "projection"])
def test_the_file_is_about_half_as_large(name):
    kind, _, options = onnx_files.ALL[name]
    layer = cases.recurrent(kind, 64, 256, **options)
    model = Model((layer, cases.dense(layer.output_size, 1)))
    sizes = [onnx_graph.build(model, half=half).ByteSize() for half in (False, True)]
    assert sizes[1] < 0.55 * sizes[0]


def test_the_runtime_folds_the_casts_when_it_loads_the_file(tmp_path):
    for name in ("lstm", "projection", "peephole"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(tmp_path / "folded.onnx")
        data = onnx_graph.build(onnx_files.chain(name, layers=2), half=True).SerializeToString()
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        folded = onnx_files.inside(onnx.load(tmp_path / "folded.onnx"))
        kinds = [node.op_type for node in folded]
        assert "Cast" not in kinds
        assert kinds.count("Scan" if name == "peephole" else "LSTM") == 2
        # Of a projection: h and c widened, y and h projected; the product of weights is gone.
        assert (kinds.count("Pad"), kinds.count("Concat")) == ((4, 0) if "pro" in name else (0, 0))


def too_large(array, place, value=70000.0):
    changed = array.copy()
    changed[place] = value
    return changed


def test_a_weight_beyond_the_range_is_refused_by_name(tmp_path):
    layer = cases.recurrent("LSTM", 2, 5, peephole=True)
    arrays = {**layer.arrays, "peephole_l0": too_large(layer.peephole_l0, 7)}
    models = {
        r"layer 1 \(LSTM\)\.peephole_l0": Model((cases.affine(2), LSTM(**arrays))),
        r"layer 0 \(Bidirectional\)\.backward\.peephole_l0": Model(
            (Bidirectional(layer, LSTM(**arrays)),)
        ),
    }
    for where, model in models.items():
        message = rf"{where}: expected values within float16's range of \+-65504, found 70000 at "
        with pytest.raises(ExportError, match=message + r"index \(7,\)"):
            export.onnx(model, tmp_path / "m.onnx", half=True)
    assert not list(tmp_path.iterdir())


def test_the_greatest_float16_itself_is_taken():
    weight = np.array([[65504.0, -65519.0]], np.float32)
    layer = onnx_half.rounded(Model((Dense(weight),))).layers[0]
    np.testing.assert_array_equal(layer.weight, [[65504, -65504]])


def test_a_graph_with_other_weights_than_the_rounded_ones_is_caught(monkeypatch, tmp_path):
    def cut(self, name, array):
        """One place towards zero."""
        return weight(self, name, np.nextafter(array.astype(np.float16), np.float16(0)))

    weight = Nodes.weight
    monkeypatch.setattr(Nodes, "weight", cut)
    with pytest.raises(ExportError, match="ONNX Runtime, as one sequence: over 16 steps"):
        export.onnx(onnx_files.chain("gru"), tmp_path / "m.onnx", half=True)
    assert not list(tmp_path.iterdir())

"""Projections folded into a plain LSTM node: the reference in doubles, within bounds in float32."""

import numpy as np
import pytest

import cases
import checks
import onnx_files
from fastlstm import export, reference
from fastlstm.errors import ExportError
from fastlstm.export import onnx_graph, onnx_half, onnx_recurrent, sessions
from fastlstm.export.replay import replay
from fastlstm.model import LSTM, Bidirectional, Model

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

BOTH = pytest.mark.parametrize("both", [False, True], ids=["forward", "bidirectional"])
NAMES = pytest.mark.parametrize("name", onnx_files.PROJECTED)


def batch_of(model, batch, steps):
    return np.stack([cases.stream(model, steps, seed) for seed in range(batch)])


@pytest.mark.parametrize("layers", [1, 2, 3])
@BOTH
@NAMES
def test_any_batch_and_time(name, both, layers):
    model = onnx_files.chain(name, layers=layers, both=both, top=layers != 2)
    session = onnx_files.session(model)
    for batch, steps in ((1, 1), (1, 40), (7, 2), (7, 30)):
        x = batch_of(model, batch, steps)
        y, *states = session.run(None, {"x": x, **onnx_graph.initial_states(model, batch)})
        checks.batch_is_right(model, x, y, states)


@pytest.mark.parametrize("batch", [1, 7])
@NAMES
def test_step_by_step_and_in_pieces_with_the_state_carried(name, batch):
    model = onnx_files.chain(name, layers=2)
    session = onnx_files.session(model)
    x, fed = batch_of(model, batch, 25), onnx_graph.initial_states(model, batch)
    outputs = []
    for piece in np.split(x, [1, 2, 3, 4, 11, 12], axis=1):
        y, *states = session.run(None, {"x": piece, **fed})
        fed = dict(zip(fed, states, strict=True))
        outputs.append(y)
    checks.batch_is_right(model, x, np.concatenate(outputs, axis=1), states)


@pytest.mark.parametrize("steps", [1, 12])
@BOTH
@NAMES
def test_in_doubles_it_is_the_reference(name, both, steps):
    # With weights of float16 the file holds the two factors, so that nothing at all is rounded.
    model = onnx_half.rounded(onnx_files.chain(name, layers=2, both=both))
    evaluator = onnx_files.in_doubles(onnx_graph.build(model, half=True))
    x = batch_of(model, 1, steps).astype(np.float64)
    feed = {k: v.astype(np.float64) for k, v in onnx_graph.initial_states(model).items()}
    y, *states = evaluator.run(None, {"x": x, **feed})
    true = reference.run_with_state(model, x[0])
    np.testing.assert_allclose(y[0], true.output, rtol=0, atol=1e-13)
    for found, expected in zip(states, true.state, strict=True):
        np.testing.assert_allclose(found.reshape(-1), expected, rtol=0, atol=1e-13)


@BOTH
def test_the_product_of_the_two_weights_is_rounded_once(both):
    model = onnx_files.chain("projection", both=both)
    layer = model.layers[0]
    halves = [layer.forward, layer.backward] if both else [layer]
    constants = {c.name: c for c in onnx_graph.build(model).graph.initializer}
    r = onnx.numpy_helper.to_array(constants["l0_R"])
    for found, half in zip(r, halves, strict=True):
        i, f, g, o = np.split(half.weight_hh_l0.astype(np.float64), 4)
        for gate, w_hh in zip(np.split(found, 4), (i, o, f, g), strict=True):
            product = (w_hh @ half.weight_hr_l0.astype(np.float64)).astype(np.float32)
            np.testing.assert_array_equal(gate[:9, :9], product)
            np.testing.assert_array_equal(gate[:9, 9:], w_hh)
            np.testing.assert_array_equal(gate[9:], np.zeros((4, 13)))


@BOTH
@NAMES
def test_it_is_one_node_a_layer_and_the_state_has_the_projections_size(name, both):
    model = onnx_files.chain(name, layers=3, both=both)
    for options in ({}, {"bare": True}, {"lengths": True}, {"half": True}):
        proto = onnx_graph.build(model, **options)
        kinds = [node.op_type for node in onnx_files.inside(proto)]
        # With lengths, or as a loop, each direction is one by itself.
        loop = "peephole" in name and "bare" not in options
        nodes = 6 if both and (loop or "lengths" in options) else 3
        assert (kinds.count("LSTM"), kinds.count("Scan")) == ((0, nodes) if loop else (nodes, 0))
        assert not {"Loop", "If"} & set(kinds)
        sizes = [value.type.tensor_type.shape.dim[-1].dim_value for value in proto.graph.input]
        states = [state.size for state in model.states]
        assert sizes[1 : 1 + len(states)] == states


@pytest.mark.parametrize("road", ["OnnxSession", "OnnxBindingSession"])
@BOTH
@NAMES
def test_the_leanest_graph(name, both, road):
    # Without the Dense, it ends in the projection itself.
    model = onnx_files.chain(name, layers=2, both=both, top=False)
    replay(model, getattr(sessions, road)(model), road)


@pytest.mark.parametrize("half", [False, True])
def test_a_half_without_a_projection_beside_one_as_large_as_the_units(half):
    arrays = dict(cases.recurrent("LSTM", 2, 5, seed=3, initial=True).arrays)
    with_one = cases.recurrent("LSTM", 2, 5, projection=5, initial=True)
    for halves in ((LSTM(**arrays), with_one), (with_one, LSTM(**arrays))):
        model = Model((Bidirectional(*halves),))
        x = batch_of(model, 3, 20)
        feed = {"x": x, **onnx_graph.initial_states(model, 3)}
        y, *states = onnx_files.session(model, half=half).run(None, feed)
        checks.batch_is_right(onnx_half.rounded(model) if half else model, x, y, states)


def test_what_is_written(tmp_path):
    for both in (False, True):
        done = export.onnx(onnx_files.chain("projection", layers=2, both=both), tmp_path / "m.onnx")
        assert 0 < done.max_abs_error <= done.bound


def lost_start(monkeypatch):
    """Right only where a sequence begins with zeros."""

    def widened(self, k, halves, before):
        names = original(self, k, halves, before)
        zero = self.constant("zero_f", np.float32(0))
        return [self.node("Mul", [names[0], zero], f"l{k}_lost"), names[1]]

    original = onnx_recurrent.RecurrentNodes.widened
    monkeypatch.setattr(onnx_recurrent.RecurrentNodes, "widened", widened)


def lasting_start(monkeypatch):
    """What came in as h0 stays in the extra units: right for the first step only."""

    def gates(kind, array, extra=0):
        found = original(kind, array, extra)
        if extra and array.ndim == 1:
            found.reshape(4, -1)[:, -extra:] = 0.5  # the gates of units that should rest
        return found

    original = onnx_recurrent._gates
    monkeypatch.setattr(onnx_recurrent, "_gates", gates)


def other_factor(monkeypatch):
    monkeypatch.setattr(
        onnx_recurrent, "_folded", lambda half: half.weight_hh_l0 @ half.weight_hr_l0[::-1]
    )


def shifted_cell_state(monkeypatch):
    """The extra units before the real ones in c, and after them in h."""
    node = onnx_graph._Graph.node

    def shifted(self, kind, inputs, output, **attributes):
        if output == "l0_c0":
            inputs = [inputs[0], self.integers("in_front", 0, 0, 4, 0, 0, 0)]
        return node(self, kind, inputs, output, **attributes)

    monkeypatch.setattr(onnx_graph._Graph, "node", shifted)


@pytest.mark.parametrize("fault", [lost_start, lasting_start, other_factor, shifted_cell_state])
def test_a_wrong_projection_is_caught_before_anything_is_written(fault, monkeypatch, tmp_path):
    fault(monkeypatch)
    with pytest.raises(ExportError, match="ONNX Runtime, as one sequence: over 16 steps"):
        export.onnx(onnx_files.chain("projection"), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_what_the_runtime_itself_refuses_is_an_export_error(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_recurrent.RecurrentNodes, "widened", lambda self, k, halves, b: b)
    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", lambda proto, **_: proto)
    with pytest.raises(ExportError, match=r"ONNX Runtime cannot run the graph: .*initial_h must"):
        export.onnx(onnx_files.chain("projection"), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())

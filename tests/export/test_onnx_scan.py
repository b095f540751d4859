"""Peepholes as a Scan of plain operators: the reference in doubles, and its shape in the file."""

import numpy as np
import pytest

import cases
import checks
import onnx_files
from fastlstm import export, reference
from fastlstm.errors import ExportError
from fastlstm.export import onnx_graph, onnx_half, onnx_scan
from fastlstm.model import LSTM, Bidirectional, Model

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

BOTH = pytest.mark.parametrize("both", [False, True], ids=["forward", "bidirectional"])
NAMES = pytest.mark.parametrize("name", ["peephole", "peephole-and-projection"])


def batch_of(model, batch, steps):
    return np.stack([cases.stream(model, steps, seed) for seed in range(batch)])


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("steps", [1, 12])
@BOTH
@NAMES
def test_in_doubles_it_is_the_reference(name, both, steps, half):
    model = onnx_files.chain(name, layers=2, both=both)
    model = onnx_half.rounded(model) if half else model
    evaluator = onnx_files.in_doubles(onnx_graph.build(model, half=half))
    x = batch_of(model, 3, steps).astype(np.float64)
    feed = {k: v.astype(np.float64) for k, v in onnx_graph.initial_states(model, 3).items()}
    y, *states = evaluator.run(None, {"x": x, **feed})
    for k in range(3):
        true = reference.run_with_state(model, x[k])
        np.testing.assert_allclose(y[k], true.output, rtol=0, atol=1e-13)
        for found, expected in zip(states, true.state, strict=True):
            np.testing.assert_allclose(found[k], expected, rtol=0, atol=1e-13)


@BOTH
def test_one_half_may_have_what_the_other_lacks(both):
    arrays = dict(cases.recurrent("LSTM", 2, 5, peephole=True, initial=True).arrays)
    plain = {k: v for k, v in arrays.items() if k.startswith("weight")}
    halves = (LSTM(**plain), LSTM(**arrays))
    model = Model((Bidirectional(*(halves if both else halves[::-1])),))
    x = batch_of(model, 3, 20)
    for options in ({}, {"half": True}, {"lengths": True}):
        feed = {"x": x, **onnx_graph.initial_states(model, 3)}
        if "lengths" in options:
            feed["lengths"] = np.full(3, 20, np.int32)
        y, *states = onnx_files.session(model, **options).run(None, feed)
        expected = onnx_half.rounded(model) if "half" in options else model
        checks.batch_is_right(expected, x, y, states)


@BOTH
@NAMES
def test_the_body_is_one_step_of_plain_operators(name, both):
    model = onnx_files.chain(name, layers=2, both=both)
    proto = onnx_graph.build(model)
    scans = [node for node in proto.graph.node if node.op_type == "Scan"]
    assert len(scans) == (4 if both else 2)
    for scan in scans:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in scan.attribute}
        body = attributes["body"]
        kinds = [node.op_type for node in body.node]
        products = 2 if "projection" in name else 1
        assert sorted(set(kinds)) == [
            "Add",
            "Identity",
            "MatMul",
            "Mul",
            "Sigmoid",
            "Split",
            "Tanh",
        ]
        # What the input adds is one product for all steps, outside.
        assert kinds.count("MatMul") == products
        assert not body.initializer
        assert attributes["num_scan_inputs"] == 1
        # onnx's evaluator has no directions.
        assert not {"scan_input_directions", "scan_output_directions"} & set(attributes)
    # No weight of the LSTM node's own P, in whichever order.
    assert not [node for node in proto.graph.node if node.op_type == "LSTM"]
    assert not [c for c in proto.graph.initializer if c.name.endswith("_P")]


@BOTH
def test_the_leanest_graph_keeps_the_node_which_onnx_runtime_computes_right(both):
    model = onnx_files.chain("peephole", layers=2, both=both)
    nodes = list(onnx_files.inside(onnx_graph.build(model, bare=True)))
    lstms = [node for node in nodes if node.op_type == "LSTM"]
    assert [node.input[7] for node in lstms] == ["l0_P", "l1_P"]
    assert "Scan" not in {node.op_type for node in nodes}


def swapped_peepholes(monkeypatch):
    monkeypatch.setattr(onnx_scan, "PEEPHOLES", "iof")


def no_peepholes(monkeypatch):
    monkeypatch.setattr(onnx_scan._Step, "peeping", lambda self, gate, c: self.own(f"{gate}_sum"))


def late_peepholes(monkeypatch):
    """The output gate sees the state before the step, as the others do."""
    peeping = onnx_scan._Step.peeping
    monkeypatch.setattr(
        onnx_scan._Step, "peeping", lambda self, gate, c: peeping(self, gate, self.own("c_before"))
    )


def never_turned(monkeypatch):
    monkeypatch.setattr(onnx_scan.ScanNodes, "turned", lambda self, x, output: x)


def turned_once(monkeypatch):
    turned = onnx_scan.ScanNodes.turned

    def once(self, x, output):
        return x if output.endswith("_h") else turned(self, x, output)

    monkeypatch.setattr(onnx_scan.ScanNodes, "turned", once)


@pytest.mark.parametrize(
    "fault", [swapped_peepholes, no_peepholes, late_peepholes, never_turned, turned_once]
)
def test_a_wrong_loop_is_caught_before_anything_is_written(fault, monkeypatch, tmp_path):
    fault(monkeypatch)
    with pytest.raises(ExportError, match="ONNX Runtime, as one sequence: over 16 steps"):
        export.onnx(onnx_files.chain("peephole", both=True), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())

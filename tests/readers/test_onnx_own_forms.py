"""Lengths and loops as our exporter writes them: read back to the bit, or refused where changed."""

import numpy as np
import pytest

import cases
import onnx_files
from fastlstm import from_onnx
from fastlstm.errors import ReaderError
from fastlstm.model import LSTM, Bidirectional, Model
from fastlstm.readers.onnx_lengths import HOLD
from fastlstm.readers.places import layer_key

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

import onnx_graphs as graphs  # noqa: E402  after the skip
from onnx.helper import make_node as node  # noqa: E402

from fastlstm.export import onnx_graph, onnx_lengths, onnx_recurrent, onnx_scan  # noqa: E402
from fastlstm.export.onnx_half import rounded  # noqa: E402

BOTH = pytest.mark.parametrize("both", [False, True], ids=["forward", "both"])
FORMS = {
    "lengths-half": {"lengths": True, "half": True},
    "lengths-bare": {"lengths": True, "bare": True},
    "lengths-bare-half": {"lengths": True, "bare": True, "half": True},
}


def keys(model):
    return [layer_key(layer) for layer in model.layers]


def read(model, **form):
    return from_onnx(onnx_graph.build(model, **form).SerializeToString())


@pytest.mark.parametrize("form", FORMS)
@BOTH
@pytest.mark.parametrize("name", ["lstm", "gru-before", "peephole", "peephole-and-projection"])
def test_forms_together(name, both, form):
    layers = onnx_files.chain(name, layers=2, both=both).layers
    model = Model((cases.difference(2), *layers))
    expected = rounded(model) if FORMS[form].get("half") else model
    assert keys(read(model, **FORMS[form])) == keys(expected)


@pytest.mark.parametrize("lengths", [False, True])
@BOTH
@pytest.mark.parametrize("name", ["peephole", "peephole-and-projection"])
def test_a_loop_over_one_sequence_and_any_time(name, both, lengths):
    """The batch of a file that is made for one sequence is no axis of its states' rows."""
    model = onnx_files.chain(name, both=both)
    proto = onnx_graph.build(model, lengths=lengths)
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "batch":
                dim.dim_value = 1
    assert keys(from_onnx(proto.SerializeToString())) == keys(model)


def test_a_half_may_lack_what_the_other_has():
    arrays = dict(cases.recurrent("LSTM", 2, 5, peephole=True, initial=True).arrays)
    plain = {k: v for k, v in arrays.items() if k.startswith("weight")}
    for halves in ((LSTM(**plain), LSTM(**arrays)), (LSTM(**arrays), LSTM(**plain))):
        model = Model((Bidirectional(*halves),))
        for lengths in (False, True):
            assert keys(read(model, lengths=lengths)) == keys(model)


# Lengths


@pytest.mark.parametrize("name", ["lstm", "projection", "gru", "rnn"])
@BOTH
def test_sequence_lens_may_be_away(name, both, monkeypatch):
    """The graph is right without it, and so it is read."""
    model = onnx_files.chain(name, both=both)
    monkeypatch.setattr(onnx_recurrent, "LENGTHS", "")
    assert keys(read(model, lengths=True)) == keys(model)


@pytest.mark.parametrize(
    "column",
    [
        [0, 0, 0, 0],
        [HOLD, -HOLD, 0, 0],
        [-HOLD / 10, HOLD / 10, 0, 0],
        [-HOLD, HOLD, 1, 0],
        [-HOLD, HOLD, 0, -HOLD],
        [0, HOLD, 0, 0],
    ],
)
@pytest.mark.parametrize("name", ["lstm", "projection"])
def test_weights_that_hold_no_state_are_refused(name, column, monkeypatch):
    monkeypatch.setattr(onnx_recurrent, "HOLD", np.array(column, np.float32))
    with pytest.raises(ReaderError, match=r"LSTM node 'l0_y': .*hold c after a sequence's end"):
        read(onnx_files.chain(name), lengths=True)


def test_a_unit_that_is_not_held_is_refused():
    proto = onnx_graph.build(onnx_files.chain("lstm"), lengths=True)
    (hold,) = [c for c in proto.graph.initializer if c.name == "l0_hold"]
    column = onnx.numpy_helper.to_array(hold).copy()
    column.reshape(4, 7)[:, 3] = 0
    hold.CopyFrom(onnx.numpy_helper.from_array(column, hold.name))
    with pytest.raises(ReaderError, match=r"LSTM node 'l0_y': .*hold c after a sequence's end"):
        from_onnx(proto.SerializeToString())


def turned_whole(self, x, output):
    """Backward from the end of the padded batch: the same where no sequence is shorter."""
    ends = {"last": -1, "before_first": np.iinfo(np.int64).min, "axis0": 0, "back": -1}
    places = [self.integers(name, value) for name, value in ends.items()]
    return self.node("Slice", [x, *places], output)


def test_what_is_another_network_for_shorter_sequences_is_refused(monkeypatch):
    model = onnx_files.chain("gru", both=True)
    assert keys(read(model, lengths=True)) == keys(model)
    monkeypatch.setattr(onnx_lengths.LengthNodes, "mirrored", turned_whole)
    with pytest.raises(ReaderError, match=r"Bidirectional, Dense; lengths \[2, 1\] of 3"):
        read(model, lengths=True)


def with_lengths(kind, *, heeded, direction="forward", last=False):
    """One node by time, whose graph has lengths; the node takes them where it heeds them."""
    gates, directions = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 1 + (direction == "bidirectional")
    constants = {
        "w": graphs.uniform(directions, gates * 4, 3),
        "r": graphs.uniform(directions, gates * 4, 4, seed=1),
        "shape": np.array([0, 0, -1]),
    }
    more = {"linear_before_reset": 1} if kind == "GRU" else {}
    nodes = [
        node(
            kind, ["x", "w", "r", "", "lengths" if heeded else ""], ["y4", "end"], "it",
            hidden_size=4, direction=direction, **more,
        ),
        node("Transpose", ["y4"], ["pairs"], perm=[0, 2, 1, 3]),
        node("Reshape", ["pairs", "shape"], ["y"]),
    ]  # fmt: skip
    if last:
        nodes[0].output[1] = "ends"
        constants["axis"] = np.array([0])
        nodes[1:] = [node("Squeeze", ["ends", "axis"], ["y"])]
    inputs = {"x": ("time", "batch", 3), "lengths": ("i32", "batch")}
    return graphs.graph(nodes, constants, inputs)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_nodes_that_heed_lengths_and_nodes_that_do_not(kind):
    for direction in ("forward", "bidirectional"):
        model = from_onnx(with_lengths(kind, heeded=True, direction=direction).SerializeToString())
        assert model.bidirectional == (direction == "bidirectional")
    # Forward there is no difference before a sequence's end.
    from_onnx(with_lengths(kind, heeded=False).SerializeToString())
    with pytest.raises(ReaderError, match=r"Bidirectional; lengths \[2, 1\] of 3"):
        from_onnx(with_lengths(kind, heeded=False, direction="bidirectional").SerializeToString())


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_what_comes_after_the_last_step_does_so_at_each_sequences_own(kind):
    from_onnx(with_lengths(kind, heeded=True, last=True).SerializeToString())
    with pytest.raises(ReaderError, match=r"lengths \[2, 1\] of 3"):
        from_onnx(with_lengths(kind, heeded=False, last=True).SerializeToString())


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_the_judge_heeds_lengths_as_onnx_runtime_does(kind, direction):
    from onnx.reference import ReferenceEvaluator

    from fastlstm.readers.onnx_lengths import heeding

    proto = with_lengths(kind, heeded=True, direction=direction)
    x = graphs.uniform(5, 4, 3, seed=2)
    feed = {"x": x, "lengths": np.array([5, 3, 1, 2], np.int32)}
    (expected,) = graphs.run(proto, feed)
    (found,) = ReferenceEvaluator(proto, new_ops=heeding()).run(None, feed)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    (passed_over,) = ReferenceEvaluator(proto).run(None, feed)
    assert np.abs(passed_over - expected).max() > 0.01


# Loops


def test_peepholes_are_those_of_the_formula(monkeypatch):
    model = onnx_files.chain("peephole")
    monkeypatch.setattr(onnx_scan, "PEEPHOLES", "fio")
    layer = read(model).layers[0]
    i, f, o = np.split(model.layers[0].peephole_l0, 3)
    np.testing.assert_array_equal(layer.peephole_l0, np.concatenate([f, i, o]))


@pytest.mark.parametrize(
    ("at", "kind", "message"),
    [
        ("o", "Tanh", "node 'l0_step"),  # a gate that is no sigmoid
        ("c_tanh", "Sigmoid", "node 'l0_step"),
        ("held", "Sub", "node 'l0_step"),
        ("taken", "Add", "node 'l0_step"),
        ("h", "Add", "node 'l0_step"),
        ("i", "HardSigmoid", "HardSigmoid node 'l0_step_i': no layer of a Model computes"),
    ],
)
@BOTH
def test_a_body_that_is_no_cell_is_refused_by_name(at, kind, message, both, monkeypatch):
    original = onnx_scan._Step.node

    def made(self, known, inputs, output, **attributes):
        return original(self, kind if output == at else known, inputs, output, **attributes)

    monkeypatch.setattr(onnx_scan._Step, "node", made)
    make = cases.bidirectional if both else cases.recurrent
    with pytest.raises(ReaderError, match=message):
        read(Model((make("LSTM", 2, 5, peephole=True),)))


@pytest.mark.parametrize("at", ["g", "c_tanh"])
def test_a_peephole_where_a_layer_has_none_is_refused(at, monkeypatch):
    """The candidate sees the state; the state is scaled before it is put out."""
    original = onnx_scan._Step.node

    def made(self, kind, inputs, output, **attributes):
        if output == at:
            scale = self.weight("more", np.linspace(0.5, 1, 5, dtype=np.float32))
            seen = original(self, "Mul", [self.own("c_before"), scale], "more_seen")
            inputs = [original(self, "Add", [inputs[0], seen], "more_sum")]
        return original(self, kind, inputs, output, **attributes)

    monkeypatch.setattr(onnx_scan._Step, "node", made)
    with pytest.raises(ReaderError, match=r"node 'l0_step_.*LSTM"):
        read(Model((cases.recurrent("LSTM", 2, 5, peephole=True),)))

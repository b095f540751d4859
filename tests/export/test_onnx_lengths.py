"""The input `lengths` of an ONNX file: each row of a padded batch as a sequence of its own.

In ONNX Runtime, which heeds sequence_lens, and in graphs without it, as others take them.
"""

import numpy as np
import pytest

import cases
import onnx_files
from fastlstm import export, reference
from fastlstm.errors import ExportError
from fastlstm.export import onnx_graph, onnx_half, onnx_lengths, onnx_recurrent, sessions
from fastlstm.export.replay import BATCH, LENGTHS, replay
from fastlstm.model import Difference, Model, Residual
from fastlstm.verify import truth

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

BOTH = pytest.mark.parametrize("both", [False, True], ids=["forward", "bidirectional"])
NAMES = pytest.mark.parametrize("name", onnx_files.ALL)
PLAIN = {
    "difference": lambda: Model((cases.difference(3), cases.dense(3, 4), Difference(4))),
    "difference-alone": lambda: Model((cases.difference(2),)),
    "no-state": lambda: Model((cases.affine(2), cases.dense(2, 3, "softmax"))),
    "across": lambda: Model(
        (
            cases.difference(4),
            cases.bidirectional("GRU", 4, 2, initial=True),
            cases.layer_norm(4),
            Residual(2, (3, 1, 0, 2)),
            cases.recurrent("LSTM", 4, 5, projection=4, initial=True),
            Residual(5, (0, 1, 2, 3)),
            cases.difference(4),
        )
    ),
}


def rows_are_right(model, x, lengths, y, states):
    """Every row against the reference of its own steps, and exactly 0 after them."""
    for k, steps in enumerate(lengths):
        true = truth(model, x[k, :steps])
        np.testing.assert_allclose(y[k, :steps], true.output, rtol=0, atol=true.bound)
        np.testing.assert_array_equal(y[k, steps:], 0)
        for found, expected in zip(states, true.state, strict=True):
            np.testing.assert_allclose(found[k], expected, rtol=0, atol=true.state_bound)


def fed(model, x, lengths):
    states = onnx_graph.initial_states(model, len(x))
    return {"x": x, **states, "lengths": np.array(lengths, np.int32)}


def assert_padded_batches(model, bare=False, half=False):
    session = onnx_files.session(model, lengths=True, bare=bare, half=half)
    model = onnx_half.rounded(model) if half else model
    for steps, lengths in ((20, (20,)), (1, (1, 0)), (20, (3, 20, 0, 1, 11, 19, 7)), (5, (2, 2))):
        x = np.stack([cases.stream(model, steps, seed) for seed in range(len(lengths))])
        padded = x.copy()
        for row, count in zip(padded, lengths, strict=True):
            row[count:] = np.nan  # whatever looks at it is found out
        feed = fed(model, padded, lengths)
        if bare:
            one = {name: value[None] for name, value in feed.items()}
            feed = {**one, "x": padded.swapaxes(0, 1), "lengths": feed["lengths"]}
        y, *states = session.run(None, feed)
        if bare:
            y = y.reshape(steps, len(x), model.output_size).swapaxes(0, 1)
            states = [state[0] for state in states]
        rows_are_right(model, x, lengths, y, states)


@pytest.mark.parametrize("layers", [1, 2, 3])
@BOTH
@NAMES
def test_padded_batches(name, both, layers):
    model = onnx_files.chain(name, layers=layers, both=both, top=layers != 2)
    assert_padded_batches(model, bare=layers == 2)


@pytest.mark.parametrize("layers", [1, 2])
@BOTH
@NAMES
def test_padded_batches_without_sequence_lens(name, both, layers, monkeypatch):
    """What is right here is right wherever sequence_lens is passed over."""
    unheeded(monkeypatch)
    model = onnx_files.chain(name, layers=layers, both=both)
    nodes = [*onnx_files.inside(onnx_graph.build(model, lengths=True))]
    assert not [node for node in nodes if node.op_type != "Cast" and "lengths" in node.input]
    assert_padded_batches(model, half=layers == 2)


@BOTH
@NAMES
def test_in_doubles_it_is_the_reference(name, both):
    """Onnx's evaluator passes over sequence_lens: all that is right there the graph itself does."""
    if name == "rnn-relu":
        pytest.skip("onnx's evaluator knows no Relu inside an RNN node")
    layers = onnx_files.chain(name, layers=2, both=both).layers
    # With weights of float16 the file holds a projection's two factors, so that nothing is rounded.
    model = onnx_half.rounded(Model((cases.difference(2), *layers)))
    evaluator = onnx_files.in_doubles(onnx_graph.build(model, lengths=True, half=True))
    counts = (3, 9, 0, 1)
    x = np.stack([cases.stream(model, 9, seed) for seed in range(4)]).astype(np.float64)
    padded = x.copy()
    for row, count in zip(padded, counts, strict=True):
        row[count:] = np.nan
    feed = {k: v.astype(np.float64) for k, v in onnx_graph.initial_states(model, 4).items()}
    with np.errstate(over="ignore"):  # its sigmoid of a gate that is shut
        counted = {"lengths": np.array(counts, np.int32)}
        y, *states = evaluator.run(None, {"x": padded, **feed, **counted})
    for k, count in enumerate(counts):
        true = reference.run_with_state(model, x[k, :count])
        np.testing.assert_allclose(y[k, :count], true.output, rtol=0, atol=1e-13)
        np.testing.assert_array_equal(y[k, count:], 0)
        for found, expected in zip(states, true.state, strict=True):
            np.testing.assert_allclose(found[k], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("name", PLAIN)
def test_layers_without_gates(name, bare):
    assert_padded_batches(PLAIN[name](), bare)


@NAMES
def test_streams_of_a_pace_of_their_own(name):
    """Calls of few steps, in which some streams have none: their state is handed on."""
    model = onnx_files.chain(name, layers=2)
    session = onnx_files.session(model, lengths=True)
    seen, outputs = [[] for _ in range(BATCH)], [[] for _ in range(BATCH)]
    feed, rng = onnx_graph.initial_states(model, BATCH), np.random.default_rng(0)
    for steps in (1, 1, 3, 1, 5, 1, 1):
        x = rng.standard_normal((BATCH, steps, 2)).astype(np.float32)
        lengths = rng.integers(0, steps + 1, BATCH).astype(np.int32)
        y, *states = session.run(None, {"x": x, **feed, "lengths": lengths})
        feed = dict(zip(feed, states, strict=True))
        for k, count in enumerate(lengths):
            seen[k].append(x[k, :count])
            outputs[k].append(y[k, :count])
    for k in range(BATCH):
        true = truth(model, np.concatenate(seen[k]))
        np.testing.assert_allclose(np.concatenate(outputs[k]), true.output, atol=true.bound, rtol=0)
        for found, expected in zip(states, true.state, strict=True):
            np.testing.assert_allclose(found[k], expected, rtol=0, atol=true.state_bound)


@pytest.mark.parametrize("road", ["OnnxSession", "OnnxBindingSession"])
@pytest.mark.parametrize("name", ["lstm", "projection", "gru", "rnn"])
def test_a_session_feeds_the_lengths_of_a_single_stream(name, road):
    model = onnx_files.chain(name, layers=2)
    for bare in (False, True):
        graph = onnx_graph.build(model, lengths=True, bare=bare)
        session = getattr(sessions, road)(model, graph)
        replay(model, session, road, batch=getattr(session, "batch", None), lengths=True)


def test_names_places_and_nodes():
    model = Model((cases.difference(2), *onnx_files.chain("gru", layers=2, both=True).layers))
    proto = onnx_graph.build(model, lengths=True)
    inputs = [value.name for value in proto.graph.input]
    states = [*onnx_graph.initial_states(model)]
    assert inputs == ["x", *states, "lengths"]
    described = proto.graph.input[-1].type.tensor_type
    assert described.elem_type == onnx.TensorProto.INT32
    assert [d.dim_param for d in described.shape.dim] == ["batch"]
    for node in proto.graph.node:
        if node.op_type == "GRU":
            assert node.input[4] == "lengths"
    # Without lengths it would be one node; here the backward half is one by itself.
    assert sum(node.op_type == "GRU" for node in proto.graph.node) == 4
    # A live stream does not pay for it.
    assert "lengths" not in str(onnx_graph.build(model).graph.input)
    kinds = {node.op_type for node in onnx_graph.build(model).graph.node}
    assert not kinds & {"Where", "Less", "Range", "GatherND"}
    # Not ReverseSequence, which OpenCV lacks.
    assert "ReverseSequence" not in {node.op_type for node in proto.graph.node}


def test_the_weights_that_hold_the_state_stay_float32_and_beyond_any_sum():
    model = onnx_files.chain("projection")
    for half in (False, True):
        constants = onnx_graph.build(model, lengths=True, half=half).graph.initializer
        (hold,) = [onnx.numpy_helper.to_array(c) for c in constants if c.name == "l0_hold"]
        assert hold.dtype == np.float32
        # In ONNX's order, i o f c, each with the 9 units and 4 more that rest.
        gates = hold.reshape(4, 13)
        assert gates[:, :9].T.tolist() == 9 * [[-1e9, 0, 1e9, 0]]
        assert not gates[:, 9:].any()


@BOTH
@pytest.mark.parametrize("name", ["peephole", "gru-before", "rnn"])
def test_what_is_written_and_its_snippet(name, both, tmp_path):
    model = onnx_files.chain(name, both=both)
    done = export.onnx(model, tmp_path / "m.onnx", lengths=True)
    ways = ["as one sequence", "one step at a time", "in pieces"]
    assert done.ways == (
        *(ways[:1] if both else ways),
        "7 sequences at once",
        "7 sequences of 0 to 16 steps at once",
    )
    assert done.steps == (1 if both else 3) * (16 + 64) + 7 * 16 + sum(LENGTHS)
    assert 0 < done.max_abs_error <= done.bound
    assert len(done.snippet.splitlines()) == 5
    names = {}
    exec(done.snippet, names)
    expected = [reference.run_with_state(model, np.zeros((steps, 2))) for steps in (10, 4)]
    for k, (true, steps) in enumerate(zip(expected, (10, 4), strict=True)):
        np.testing.assert_allclose(names["y"][k, :steps], true.output, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(names["y"][k, steps:], 0)
        for found, state in zip(names["state"], true.state, strict=True):
            np.testing.assert_allclose(found[k], state, rtol=0, atol=1e-6)


def unheeded(monkeypatch):
    """Nodes that never hear of lengths, as where a runtime passes over them."""
    monkeypatch.setattr(onnx_recurrent, "LENGTHS", "")


def nothing_kept(monkeypatch):
    monkeypatch.setattr(onnx_lengths.LengthNodes, "kept", lambda self, found, given, output: found)


def no_silence(monkeypatch, where="y_within"):
    silenced = onnx_lengths.LengthNodes.silenced
    monkeypatch.setattr(
        onnx_lengths.LengthNodes,
        "silenced",
        lambda self, y, output: y if output == where else silenced(self, y, output),
    )


def no_mask(monkeypatch):
    no_silence(monkeypatch, "x_within")


def nothing_held(monkeypatch):
    monkeypatch.setattr(onnx_lengths, "HOLD", np.zeros(4, np.float32))
    monkeypatch.setattr(onnx_recurrent, "HOLD", np.zeros(4, np.float32))


def one_step_late(monkeypatch):
    node = onnx_graph._Graph.node

    def late(self, kind, inputs, output, **attributes):
        if kind == "Less":
            kind = "LessOrEqual"
        return node(self, kind, inputs, output, **attributes)

    monkeypatch.setattr(onnx_graph._Graph, "node", late)


def last_of_the_padding(monkeypatch):
    """Final states that are those of the last step of the padded batch."""

    def ended(self, states, after):
        last = self.constant("the_last", np.int64(-1))
        self.node("Gather", [states, last], after, axis=0)

    monkeypatch.setattr(onnx_lengths.LengthNodes, "ended", ended)


def turned_whole(monkeypatch):
    """Backward halves that begin at the end of the padded batch."""

    def mirrored(self, x, output):
        ends = {"last": -1, "before_first": np.iinfo(np.int64).min, "axis0": 0, "back": -1}
        places = [self.integers(name, value) for name, value in ends.items()]
        return self.node("Slice", [x, *places], output)

    monkeypatch.setattr(onnx_lengths.LengthNodes, "mirrored", mirrored)


@pytest.mark.parametrize(
    ("fault", "name", "both"),
    [
        (no_mask, "lstm", False),
        (no_mask, "projection", True),
        (nothing_held, "lstm", False),
        (nothing_held, "projection", True),
        (last_of_the_padding, "rnn", False),
        (turned_whole, "gru", True),
    ],
)
def test_where_sequence_lens_is_passed_over_every_part_matters(fault, name, both, monkeypatch):
    unheeded(monkeypatch)
    fault(monkeypatch)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_padded_batches(onnx_files.chain(name, both=both))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (nothing_kept, "its final state within"),
        (no_silence, "outputs of exactly 0 after each sequence's end, found"),
        (one_step_late, "outputs of exactly 0 after each sequence's end, found"),
        (last_of_the_padding, "its final state within"),
    ],
)
@BOTH
def test_a_graph_wrong_only_where_there_is_padding_is_caught(
    fault, message, both, monkeypatch, tmp_path
):
    layers = onnx_files.chain("lstm", both=both).layers
    model = Model((cases.difference(2), *layers))
    fault(monkeypatch)
    with pytest.raises(ExportError) as caught:
        export.onnx(model, tmp_path / "m.onnx", lengths=True)
    assert "ONNX Runtime, 7 sequences of 0 to 16 steps at once" in str(caught.value)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())
    # Without lengths the same fault has nothing to spoil.
    export.onnx(model, tmp_path / "m.onnx")

"""Every attribute of the LSTM, GRU and RNN nodes: read and held to ONNX Runtime, or refused."""

import numpy as np
import pytest

from fastlstm import from_onnx
from fastlstm.errors import ReaderError
from fastlstm.readers.places import layer_key

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import onnx_graphs as graphs  # noqa: E402  after the skip
from onnx.helper import make_node as node  # noqa: E402

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DIRECTIONS = ("forward", "reverse", "bidirectional")


def recurrent(
    kind, *, direction="forward", hidden=4, biases=True, start=None, given=False, peephole=False,
    lengths=None, **attributes,
):  # fmt: skip
    """A graph of one node between two transposes: (batch, time, 3) in and out."""
    count, gates = 2 if direction == "bidirectional" else 1, GATES[kind]
    constants = {
        "w": graphs.uniform(count, gates * hidden, 3, seed=1),
        "r": graphs.uniform(count, gates * hidden, hidden, seed=2),
        "out": np.array([0, 0, -1]),
    }
    inputs = dict(graphs.X)
    if biases:
        constants["b"] = graphs.uniform(count, 2 * gates * hidden, seed=3)
    states = ["h0", "c0"][: 2 if kind == "LSTM" else 1]
    shape = (count, "batch", hidden)
    names = {}
    for k, state in enumerate(states):
        if given:
            inputs[state], names[state] = shape, state
        elif start is not None:
            constants[state] = np.broadcast_to(
                graphs.uniform(count, 1, hidden, seed=4 + k), (count, start, hidden)
            )
            names[state] = state
    if peephole:
        constants["p"] = graphs.uniform(count, 3 * hidden, seed=6)
    if lengths == "input":
        inputs["lengths"] = ("i32", "batch")
    elif lengths is not None:
        constants["lengths"] = graphs.constant("lengths", np.array(lengths), np.int32)
    if start is not None or (lengths is not None and lengths != "input"):
        inputs["x"] = (start or len(lengths), 6, 3)
    ins = ["xt", "w", "r", "b" if biases else "", "lengths" if lengths is not None else ""]
    ins += [names.get(state, "") for state in states]
    if peephole:
        ins += ["p"]
    nodes = [
        node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        node(kind, ins, ["ys"], "cell", hidden_size=hidden, direction=direction, **attributes),
        node("Transpose", ["ys"], ["yt"], perm=[2, 0, 1, 3]),
        node("Reshape", ["yt", "out"], ["y"]),
    ]
    return graphs.graph(nodes, constants, inputs)


def assert_read(proto, **options):
    model = from_onnx(proto.SerializeToString())
    graphs.agrees(model, proto, **options)
    return model


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", GATES)
def test_directions_and_biases(kind, direction, biases):
    model = assert_read(recurrent(kind, direction=direction, biases=biases))
    kinds = [layer.kind for layer in model.layers]
    assert (
        kinds
        == {
            "forward": [kind],
            "reverse": ["Bidirectional", "Dense"],
            "bidirectional": ["Bidirectional"],
        }[direction]
    )
    arrays = model.layers[0].arrays
    w = graphs.uniform(2 if direction == "bidirectional" else 1, GATES[kind] * 4, 3, seed=1)
    name = "weight_ih_l0_reverse" if direction == "reverse" else "weight_ih_l0"
    assert sorted(arrays[name].ravel()) == sorted(w[0].ravel())


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("LSTM", {"input_forget": 1}),
        ("GRU", {"linear_before_reset": 1}),
        ("RNN", {"activations": ["Relu"]}),
        ("GRU", {"activations": ["SIGMOID", "tanh"]}),
        ("LSTM", {"activations": ["Sigmoid", "Tanh", "Tanh"]}),
    ],
)
def test_attributes(kind, attributes, direction):
    if direction == "bidirectional" and "activations" in attributes:
        attributes = {"activations": 2 * attributes["activations"]}
    assert_read(recurrent(kind, direction=direction, **attributes))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_peepholes(direction):
    model = assert_read(recurrent("LSTM", direction=direction, peephole=True))
    assert any("peephole_l0" in name for name in model.layers[0].arrays)


def test_activations_in_any_case():
    # ONNX Runtime takes them only as they are written in the standard.
    found, expected = (
        from_onnx(recurrent("RNN", activations=[name]).SerializeToString())
        for name in ("TANH", "Tanh")
    )
    assert layer_key(found.layers[0]) == layer_key(expected.layers[0])


def test_coupled_gates_with_peepholes():
    assert_read(recurrent("LSTM", peephole=True, input_forget=1))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", GATES)
def test_constant_initial_states_are_learned_starts(kind, direction):
    model = assert_read(recurrent(kind, direction=direction, start=2))
    assert any(state.initial.any() for state in model.states)


@pytest.mark.parametrize("kind", GATES)
def test_initial_states_from_outside_begin_at_zeros(kind):
    names = ("h0", "c0") if kind == "LSTM" else ("h0",)
    feed = {name: np.zeros((1, 2, 4), np.float32) for name in names}
    model = assert_read(recurrent(kind, given=True), feed=feed)
    assert not any(state.initial.any() for state in model.states)


@pytest.mark.parametrize("lengths", ["input", [6, 6]])
def test_full_lengths(lengths):
    feed = {"lengths": np.full(2, 6, np.int32)} if lengths == "input" else {}
    assert_read(recurrent("GRU", lengths=lengths), feed=feed)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", GATES)
def test_batch_first_layout_is_the_other_one_transposed(kind, direction):
    # ONNX Runtime refuses layout 1, so the same weights in layout 0 are the judge.
    plain = recurrent(kind, direction=direction)
    other = onnx.ModelProto()
    other.CopyFrom(plain)
    before, cell, after, _ = other.graph.node
    cell.attribute.append(onnx.helper.make_attribute("layout", 1))
    before.CopyFrom(node("Identity", ["x"], ["xt"]))
    after.CopyFrom(node("Identity", ["ys"], ["yt"]))
    model = from_onnx(other.SerializeToString())
    graphs.agrees(model, plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": 3.0}, "clips"),
        ({"activations": ["HardSigmoid", "Tanh", "Tanh"]}, "hardsigmoid"),
        ({"activations": ["Sigmoid", "Tanh"]}, "found sigmoid, tanh"),
        ({"lengths": [6, 4]}, "sequence_lens"),
        ({"layout": 2}, "layout"),
        ({"direction": "sideways"}, "direction"),
        ({"kind": "GRU", "activations": ["Tanh", "Tanh"]}, "activations"),
        ({"kind": "RNN", "activations": ["Affine"]}, "affine"),
        ({"kind": "RNN", "direction": "bidirectional", "activations": ["Tanh", "Relu"]}, "relu"),
    ],
)
def test_what_no_layer_has_is_refused_by_node_and_reason(options, message):
    options = {"kind": "LSTM", **options}
    kind = options["kind"]
    with pytest.raises(ReaderError, match=rf"^{kind} node 'cell': .*{message}"):
        from_onnx(recurrent(options.pop("kind"), **options).SerializeToString())


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("w", (1, 16), "input 1"),
        ("w", (2, 16, 3), "input 1"),
        ("w", (1, 15, 3), "W and R"),
        ("r", (1, 16, 5), "W and R"),
        ("b", (1, 16), "input 3"),
        ("p", (1, 8), "input 7"),
        ("h0", (1, 3, 4), "initial h"),
        ("c0", (2, 4), "initial c"),
    ],
)
def test_wrong_shapes_are_refused(name, shape, message):
    proto = recurrent("LSTM", start=2, peephole=True)
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(graphs.constant(name, graphs.uniform(*shape)))
    with pytest.raises(ReaderError, match=rf"LSTM node 'cell': .*{message}"):
        from_onnx(proto.SerializeToString())


def test_states_that_differ_in_a_batch_are_refused():
    proto = recurrent("GRU", start=2)
    for tensor in proto.graph.initializer:
        if tensor.name == "h0":
            tensor.CopyFrom(graphs.constant("h0", graphs.uniform(1, 2, 4)))
    with pytest.raises(ReaderError, match="differs between the sequences"):
        from_onnx(proto.SerializeToString())


def test_a_state_that_is_computed_is_refused():
    proto = recurrent("GRU", given=True)
    proto.graph.node.insert(0, node("ReduceSum", ["x", "axis"], ["h0"], "context"))
    proto.graph.initializer.append(graphs.constant("axis", np.array([1])))
    del proto.graph.input[1:]
    with pytest.raises(ReaderError, match="ReduceSum node 'context'"):
        from_onnx(proto.SerializeToString())


def split_directions(kind, turn):
    """Forward and backward as two nodes side by side, the second by its direction or by turning."""
    nodes = [node("Transpose", ["x"], ["t"], perm=[1, 0, 2])]
    constants = {"one": np.array([1])}
    if turn:
        constants |= {
            "zero": np.array([0]),
            "end": np.array([-1]),
            "far": np.array([-(2**31)]),
        }
    halves = []
    for k in range(2):
        w, r = f"w{k}", f"r{k}"
        constants[w] = graphs.uniform(1, GATES[kind] * 4, 3, seed=k)
        constants[r] = graphs.uniform(1, GATES[kind] * 4, 4, seed=k)
        back = k == 1
        source, made = "t", f"Y{k}"
        if back and turn:
            nodes += [node("Slice", ["t", "end", "far", "zero", "end"], ["turned"])]
            source, made = "turned", "Y_turned"
        direction = "reverse" if back and not turn else "forward"
        nodes += [node(kind, [source, w, r], [made], hidden_size=4, direction=direction)]
        if back and turn:
            nodes += [node("Slice", [made, "end", "far", "zero", "end"], [f"Y{k}"])]
        nodes += [node("Squeeze", [f"Y{k}", "one"], [f"h{k}"])]
        halves.append(f"h{k}")
    nodes += [
        node("Concat", halves, ["both"], axis=2),
        node("Transpose", ["both"], ["y"], perm=[1, 0, 2]),
    ]
    return graphs.graph(nodes, constants)


@pytest.mark.parametrize("turn", [False, True], ids=["by direction", "by turning"])
@pytest.mark.parametrize("kind", GATES)
def test_two_directions_as_two_nodes_are_one_layer(kind, turn):
    model = assert_read(split_directions(kind, turn))
    (layer,) = model.layers
    assert layer.kind == "Bidirectional"
    assert layer.forward.weight_ih_l0.any()
    assert layer.backward.weight_ih_l0.any()


def test_a_layer_over_the_turned_sequence_alone():
    proto = split_directions("GRU", turn=True)
    proto.graph.node[-1].input[0] = "h1"
    model = assert_read(proto)
    assert [layer.kind for layer in model.layers] == ["Bidirectional", "Dense"]


def test_a_cell_state_as_the_result_is_refused():
    proto = recurrent("LSTM")
    proto.graph.node[1].output.extend(["", "cell state"])
    proto.graph.output[0].name = "cell state"
    with pytest.raises(ReaderError, match="the state c is used as an output"):
        from_onnx(proto.SerializeToString())

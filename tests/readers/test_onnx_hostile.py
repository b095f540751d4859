"""Broken and hostile ONNX files: an error that names the reason, never a hang, a crash or a lie."""

import numpy as np
import pytest

import cases
from fastlstm import from_onnx, reference
from fastlstm.errors import ReaderError
from fastlstm.model import Model

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

import onnx_graphs as graphs  # noqa: E402  after the skip
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from onnx import helper  # noqa: E402
from onnx.helper import make_node as node  # noqa: E402

from fastlstm.export import onnx_graph  # noqa: E402

W = graphs.uniform(3, 4)
MINE = [helper.make_opsetid("mine", 1)]


def refused(source, message, **options):
    data = source if isinstance(source, bytes) else source.SerializeToString()
    with pytest.raises(ReaderError, match=message):
        from_onnx(data, **options)


def dense(weight=None):
    """X @ w, whose weight may be any TensorProto."""
    constants = {"w": W if weight is None else weight}
    return graphs.graph([node("MatMul", ["x", "w"], ["y"], "dense")], constants)


# Graphs


def test_order_and_names():
    refused(graphs.graph([]), "output 'y'")
    tanh = [node("Tanh", ["x"], ["y"], "a")]
    refused(graphs.graph(tanh, outputs=()), "with an output")
    refused(graphs.graph(tanh, outputs=("y", "y")), "its name once")
    refused(graphs.graph(tanh, outputs=("y", "z")), "output 'z'")
    refused(graphs.graph([*tanh, node("Relu", ["x"], ["y"], "b")]), "Relu node 'b': .*new name")
    refused(graphs.graph([node("Tanh", ["q"], ["y"], "a")]), "Tanh node 'a': .*'q'")
    cycle = [
        node("Add", ["x", "b"], ["a"], "p"),
        node("Tanh", ["a"], ["b"]),
        node("Relu", ["b"], ["y"]),
    ]
    refused(graphs.graph(cycle), "Add node 'p': .*cycle")
    refused(graphs.graph([node("Tanh", ["y"], ["y"], "self")]), "Tanh node 'self'")
    late = [node("Tanh", ["h"], ["y"], "early"), node("Tanh", ["x"], ["h"])]
    refused(graphs.graph(late), "Tanh node 'early': .*not in order")
    proto = dense()
    proto.graph.initializer.append(graphs.constant("w", W))
    refused(proto, "names of its own")


def test_versions_and_domains():
    refused(graphs.graph([node("Tanh", ["x"], ["y"])], opset=10_000), "operators of version")
    proto = graphs.graph([node("Tanh", ["x"], ["y"])])
    del proto.opset_import[:]
    refused(proto, "opset_import")
    for domain in ("com.microsoft", "ai.onnx.ml", "mine"):
        custom = node("DynamicQuantizeLSTM", ["x"], ["y"], "q", domain=domain)
        refused(graphs.graph([custom]), rf"DynamicQuantizeLSTM node 'q': .*'{domain}'")


def call(name, inputs, outputs):
    return node(name, inputs, outputs, domain="mine")


def function(name, *body):
    opsets = [helper.make_opsetid("", 17), *MINE]
    return helper.make_function("mine", name, ["a"], ["b"], body, opsets)


def test_functions_that_never_end():
    start = [call("F0", ["x"], ["y"])]
    once = [function("F0", call("F0", ["a"], ["b"]))]
    refused(graphs.graph(start, functions=once, imports=MINE), "F0.*calls itself")
    pair = [function(f"F{k}", call(f"F{1 - k}", ["a"], ["b"])) for k in range(2)]
    refused(graphs.graph(start, functions=pair, imports=MINE), "calls itself")
    twice = [
        function(f"F{k}", call(f"F{k + 1}", ["a"], ["c"]), call(f"F{k + 1}", ["c"], ["b"]))
        for k in range(40)
    ]
    twice.append(function("F40", node("Tanh", ["a"], ["b"])))
    refused(graphs.graph(start, functions=twice, imports=MINE), "at most 50,000 nodes")
    deep = [function(f"F{k}", call(f"F{k + 1}", ["a"], ["b"])) for k in range(3000)]
    refused(graphs.graph(start, functions=deep, imports=MINE), "deep")


def test_deep_nesting_of_subgraphs():
    def nested(depth):
        inner = node("Identity", ["x"], ["z"])
        if depth:
            inner = node("If", ["c"], ["z"], then_branch=nested(depth - 1), else_branch=nested(0))
        value = helper.make_tensor_value_info("z", 1, None)
        return helper.make_graph([inner], "g", [], [value])

    proto = graphs.graph(
        [node("If", ["c"], ["y"], "if", then_branch=nested(20), else_branch=nested(0))],
        {"c": graphs.constant("c", np.array(True), bool)},
    )
    refused(proto, "If node 'if'")


HUGE = {
    "ConstantOfShape": ([node("ConstantOfShape", ["s"], ["c"], "n")], {"s": [2**20, 2**21]}),
    "beyond 64 bits": ([node("ConstantOfShape", ["s"], ["c"], "n")], {"s": [2**62, 2**62]}),
    "negative": ([node("ConstantOfShape", ["s"], ["c"], "n")], {"s": [-1, 3]}),
    "Expand": ([node("Expand", ["o", "s"], ["c"], "n")], {"o": [1.0], "s": [2**20, 2**20, 1]}),
    "Expand of x": ([node("Expand", ["x", "s"], ["c"], "n")], {"s": [2**30, 1, 1, 1]}),
    "Tile": ([node("Tile", ["o", "s"], ["c"], "n")], {"o": [1.0], "s": [2**50]}),
    "Tile of x": ([node("Tile", ["x", "s"], ["c"], "n")], {"s": [2**30, 2**30, 1]}),
    "Range": (
        [node("Range", ["a", "b", "d"], ["c"], "n")],
        {"a": np.array(0), "b": np.array(2**60), "d": np.array(1)},
    ),
    "Range of no step": (
        [node("Range", ["a", "b", "d"], ["c"], "n")],
        {"a": np.array(0), "b": np.array(2**60), "d": np.array(0)},
    ),
    "broadcast": (
        [node("Add", ["p", "q"], ["c"], "n")],
        {"p": np.ones((10**5, 1), np.float32), "q": np.ones((1, 10**5), np.float32)},
    ),
    "product": (
        [node("MatMul", ["p", "q"], ["c"], "n")],
        {"p": np.ones((10**5, 1), np.float32), "q": np.ones((1, 10**5), np.float32)},
    ),
    "Gather": (
        [node("Gather", ["p", "i"], ["c"], "n")],
        {"p": np.ones((1, 10**4), np.float32), "i": np.zeros(10**5, np.int64)},
    ),
    "Pad": ([node("Pad", ["x", "s"], ["c"], "n")], {"s": [0, 0, 2**50, 0, 0, 0]}),
}


@pytest.mark.parametrize("name", HUGE)
def test_huge_shapes(name):
    nodes, constants = HUGE[name]
    constants = {
        k: np.array(v, np.int64 if k == "s" else np.float32) if isinstance(v, list) else v
        for k, v in constants.items()
    }
    proto = graphs.graph([*nodes, node("Add", ["x", "c"], ["y"])], constants)
    refused(proto, r"node 'n': (expected .*size|expected finite)")


def test_doubling_until_memory_ends():
    sizes = range(60)
    for start in ("x", "c"):
        nodes = [
            node("Concat", [f"v{k}" if k else start] * 2, [f"v{k + 1}"], f"n{k}", axis=-1)
            for k in sizes
        ]
        nodes += [node("Tanh", ["v60"], ["t"]), node("Add", ["t", "x"], ["y"])]
        proto = graphs.graph(nodes, {"c": np.ones(64, np.float32)}, {"x": (1, 1, 64)})
        refused(proto, "Concat node 'n[12][0-9]': .*real size")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2**40, "time", 3), "real tensor"),
        (("batch", 2**20, 3), "real size"),
        ((2**20, "time", 3), "steps"),
        (("batch", "time", 2**30), "real"),
        ((10**4, 10**4, 30), "real series"),
        ((0, "time", 3), "real tensor"),
        (("batch", -1, 3), "real tensor"),
        ((2, 3, 4, 5), "one to three axes"),
        ((), "one to three axes"),
        (("batch", "time", "values"), "number of values"),
        (("i64", "batch", "time", 3), "float32"),
    ],
)
def test_shapes_of_the_series(shape, message):
    refused(graphs.graph([node("Tanh", ["x"], ["y"])], inputs={"x": shape}), message)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2**20, 2**20, 3), "real size"),
        (("i32", "batch", 3), "lengths"),
        (("i64", 7), "lengths"),
    ],
)
def test_shapes_of_other_inputs(shape, message):
    inputs = {**graphs.X, "other": shape}
    refused(graphs.graph([node("Tanh", ["x"], ["y"])], inputs=inputs), f"'other': .*{message}")


@pytest.mark.parametrize(
    "made",
    [
        node("Transpose", ["x"], ["y"], "n", perm="abc"),
        node("Transpose", ["x"], ["y"], "n", perm=[0, 0, 1]),
        node("Transpose", ["x"], ["y"], "n", perm=[7, 8, 9]),
        node("Softmax", ["x"], ["y"], "n", axis=1.5),
        node("Softmax", ["x"], ["y"], "n", axis=9),
        node("LSTM", ["x", "w", "w"], ["y"], "n", hidden_size="three"),
        node("LSTM", ["x", "w", "w"], ["y"], "n"),
        node("LSTM", ["x"], ["y"], "n"),
        node("GRU", [], ["y"], "n"),
        node("Gemm", ["x", "w"], ["y"], "n"),
        node("MatMul", ["x"], ["y"], "n"),
        node("Add", ["x"], ["y"], "n"),
        node("Concat", ["x", "w"], ["y"], "n", axis=0),
        node("Reshape", ["x", "w"], ["y"], "n"),
        node("Reshape", ["x", "s"], ["y"], "n"),
        node("Gather", ["x", "s"], ["y"], "n", axis=1),
        node("Gather", ["x", "x"], ["y"], "n"),
        node("Slice", ["x", "s", "s", "s", "s"], ["y"], "n"),
        node("Split", ["x", "s"], ["y"], "n"),
        node("Squeeze", ["x", "s"], ["y"], "n"),
        node("Where", ["x", "x", "x"], ["y"], "n"),
        node("LayerNormalization", ["x", "w"], ["y"], "n"),
        node("BatchNormalization", ["x", "w", "w", "w", "w"], ["y"], "n"),
        node("Cast", ["x"], ["y"], "n"),
        node("Constant", [], ["y"], "n"),
        node("ReduceMean", ["x"], ["y"], "n"),
        node("Pow", ["x", "s"], ["y"], "n"),
        node("Div", ["w", "x"], ["y"], "n"),
        node("Dropout", ["x"], ["q", "y"], "n"),
    ],
)
def test_malformed_nodes(made):
    constants = {"w": graphs.uniform(3, 4), "s": np.array([99])}
    used = {k: v for k, v in constants.items() if k in made.input}
    refused(graphs.graph([made], used), rf"{made.op_type} node 'n'")


# Any damage at all

GOOD = [
    onnx_graph.build(
        Model((cases.recurrent("LSTM", 2, 3, peephole=True, initial=True), cases.dense(3, 1)))
    ).SerializeToString(),
    onnx_graph.build(
        Model((cases.difference(2), cases.bidirectional("GRU", 2, 3), cases.layer_norm(6))),
        lengths=True,
    ).SerializeToString(),
    onnx_graph.build(
        Model((cases.recurrent("LSTM", 2, 3, projection=2), cases.dense(2, 2, "softmax"))),
        half=True,
    ).SerializeToString(),
]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_any_damage_gives_an_error_or_a_model(data):
    damaged = bytearray(data.draw(st.sampled_from(GOOD)))
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        match data.draw(st.sampled_from(["flip", "set", "cut", "drop", "put"])):
            case "flip":
                damaged[place] ^= 1 << data.draw(st.integers(0, 7))
            case "set":
                damaged[place] = data.draw(st.integers(0, 255))
            case "cut":
                del damaged[max(place, 1) :]
            case "drop":
                del damaged[max(place, 1) : place + data.draw(st.integers(1, 9))]
            case "put":
                damaged[place:place] = data.draw(st.binary(max_size=6))
    try:
        model = from_onnx(bytes(damaged))
    except ReaderError:
        return
    x = reference.check_input(model, 3)
    assert reference.run(model, x).shape == (3, model.output_size)
    # The graph and the Model agreed on random input; read once more, it is the same.
    again = from_onnx(bytes(damaged))
    assert np.array_equal(reference.run(again, x), reference.run(model, x), equal_nan=True)

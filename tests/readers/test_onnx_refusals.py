"""What no layer of a Model computes is refused by the node's name and the reason."""

import numpy as np
import pytest

from fastlstm import from_onnx
from fastlstm.errors import ReaderError

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

import onnx_graphs as graphs  # noqa: E402  after the skip
from onnx import TensorProto, helper  # noqa: E402
from onnx.helper import make_node as node  # noqa: E402

W, B = graphs.uniform(3, 4), graphs.uniform(4)

REFUSED = {
    "a fixed step": (
        [node("Gather", ["x", "two"], ["y"], axis=1)], {"two": np.array(2)}, "dynamic size",
    ),
    "a step in the middle": (
        [node("Gather", ["x", "one"], ["y"], axis=1)], {"one": np.array(1)}, "at the last step",
    ),
    "steps backward": (
        [node("Slice", ["x", "end", "far", "one", "end"], ["y"])],
        {"end": np.array([-1]), "far": np.array([-(2**31)]), "one": np.array([1])},
        "every step in order",
    ),
    "a mean over time": ([node("ReduceMean", ["x"], ["y"], "pool", axes=[1])], {}, "pool.*axes"),
    "two steps in one vector": (
        [node("Reshape", ["x", "s"], ["r"]), node("MatMul", ["r", "w"], ["y"], "dense")],
        {"s": np.array([0, -1]), "w": graphs.uniform(9, 2)}, "dense|network",
    ),
    "a product of values": ([node("Mul", ["x", "x"], ["y"], "square")], {}, "square"),
    "an unknown activation": ([node("Gelu", ["x"], ["y"], "gelu")], {}, "gelu.*computes Gelu"),
    "float16 inside": (
        [node("Cast", ["x"], ["y"], "half", to=TensorProto.FLOAT16)], {}, "half.*rounds",
    ),
    "attention": (
        [node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), node("MatMul", ["x", "t"], ["y"], "qk")],
        {}, "qk.*two values",
    ),
    "only constants": ([node("Identity", ["c"], ["y"])], {"c": B}, "depend on the input"),
    "weights of one step": (
        [node("Add", ["x", "c"], ["y"], "per step")],
        {"c": graphs.uniform(1, 3, 3)}, "per step|cannot|dynamic",
    ),
    "dropout in training": (
        [node("Dropout", ["x", "r", "t"], ["y"], "drop")],
        {"r": np.float32(0.5), "t": graphs.constant("t", np.array(True), bool)}, "drop.*training",
    ),
    "a factor that rounds": (
        [node("Reshape", ["x", "s"], ["r"]), node("Gemm", ["r", "w"], ["y"], "gemm", alpha=0.1)],
        {"w": W, "s": np.array([-1, 3])}, "gemm.*rounding",
    ),
    "a quantised layer": (
        [node("QuantizeLinear", ["x", "s"], ["y"], "quantise")], {"s": np.float32(0.1)}, "quantise",
    ),
    "a convolution": (
        [node("Conv", ["x", "k"], ["y"], "conv")], {"k": graphs.uniform(2, 2, 1)}, "conv.*Conv",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_node_and_reason(name):
    nodes, constants, message = REFUSED[name]
    opset = 20 if "activation" in name else 17
    proto = graphs.graph(nodes, constants, opset=opset)
    with pytest.raises(ReaderError, match=message):
        from_onnx(proto.SerializeToString())


@pytest.mark.parametrize("kind", ["If", "Loop"])
def test_graphs_within_graphs_are_refused(kind):
    value = helper.make_tensor_value_info("z", 1, None)
    body = helper.make_graph([node("Identity", ["x"], ["z"])], "body", [], [value])
    names = {"If": ["then_branch", "else_branch"], "Loop": ["body"]}[kind]
    inputs = ["yes"] if kind == "If" else ["", "yes", "x"]
    made = node(kind, inputs, ["y"], "inner", **dict.fromkeys(names, body))
    constants = {"yes": graphs.constant("yes", np.array(True), bool)}
    with pytest.raises(ReaderError, match=f"{kind} node 'inner': .*graph of its own"):
        from_onnx(graphs.graph([made], constants).SerializeToString())


def scan(steps, states=0, **attributes):
    """A Scan over x, time first, whose body takes and gives `states` and one row."""
    names = [f"s{k}" for k in range(states)]
    values = [
        [helper.make_tensor_value_info(name, 1, None) for name in (*end, row)]
        for end, row in ((names, "row"), ([f"{name}_new" for name in names], "made"))
    ]
    inner = helper.make_graph(steps, "body", *values)
    attributes = {"num_scan_inputs": 1, "body": inner, **attributes}
    outputs = [f"{name}_end" for name in names]
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        node("Scan", [*names, "t"], [*outputs, "Y"], "scan", **attributes),
        node("Transpose", ["Y"], ["y"], perm=[1, 0, 2]),
    ]
    constants = {name: np.zeros((2, 3), np.float32) for name in names}
    inputs = {"x": (2, "time", 3)}
    return graphs.graph(nodes, constants, inputs).SerializeToString()


def test_a_scan_without_a_state_is_its_body():
    model = from_onnx(scan([node("Tanh", ["row"], ["made"])]))
    assert [layer.activation for layer in model.layers] == ["tanh"]


@pytest.mark.parametrize(
    ("body", "options", "message"),
    [
        # A running sum is no cell that a Model has.
        (
            [node("Add", ["s0", "row"], ["s0_new"], "sum"), node("Identity", ["s0_new"], ["made"])],
            {"states": 1}, "node",
        ),
        ([node("Tanh", ["row"], ["other"])], {}, "scan.*no node makes"),
        ([node("Tanh", ["nowhere"], ["made"], "inner")], {}, "inner.*'nowhere'.*body of the Scan"),
        ([node("Erf", ["row"], ["made"], "inner")], {}, "Erf node 'inner'"),
        ([node("Tanh", ["row"], ["made"])], {"scan_input_directions": [1]}, "scan.*directions"),
        ([node("Tanh", ["row"], ["made"])], {"num_scan_inputs": 7}, "scan.*inputs to go through"),
        ([node("Tanh", ["row"], ["made"])], {"body": 3}, "scan.*expected a body"),
    ],
)  # fmt: skip
def test_a_scan_that_is_none_or_no_cell(body, options, message):
    with pytest.raises(ReaderError, match=message):
        from_onnx(scan(body, **options))

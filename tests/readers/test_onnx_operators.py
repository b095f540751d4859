"""Graphs as other converters write them, by hand, held to ONNX Runtime; and what is refused."""

import numpy as np
import pytest

from fastlstm import from_onnx, reference
from fastlstm.errors import ReaderError
from fastlstm.model import Affine, Dense, LayerNorm

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import onnx_graphs as graphs  # noqa: E402  after the skip
from onnx import helper  # noqa: E402
from onnx.helper import make_node as node  # noqa: E402

W, B = graphs.uniform(3, 4), graphs.uniform(4)


def read(nodes, constants=None, inputs=None, **options):
    proto = graphs.graph(nodes, constants, inputs, **options)
    return from_onnx(proto.SerializeToString()), proto


def kinds(model):
    return [layer.kind for layer in model.layers]


# Keras converters


def keras(last, *, sequences=("batch", "time")):
    """A GRU and a head as Keras converters write them: time first by Transpose, Y by Squeeze."""
    cell = {"hidden_size": 5, "linear_before_reset": 1, "direction": "forward"}
    nodes = [
        node("Transpose", ["x"], ["t"], "transpose", perm=[1, 0, 2]),
        node("GRU", ["t", "w", "r", "b", "", "zeros"], ["Y", "Y_h"], "gru", **cell),
    ]
    constants = {
        "w": graphs.uniform(1, 15, 3),
        "r": graphs.uniform(1, 15, 5),
        "b": graphs.uniform(1, 30),
        "kernel": graphs.uniform(5, 2),
        "bias": graphs.uniform(2),
        "zeros": np.zeros((1, 1, 5), np.float32),
        "one": np.array([1]),
        "zero": np.array([0]),
        "end": np.array([-1]),
        "far": np.array([np.iinfo(np.int64).max]),
        "index": np.array(-1),
    }
    nodes += {
        "every": [
            node("Squeeze", ["Y", "one"], ["s"]),
            node("Transpose", ["s"], ["h"], perm=[1, 0, 2]),
        ],
        "Y_h": [node("Squeeze", ["Y_h", "zero"], ["h"])],
        "gather": [
            node("Squeeze", ["Y", "one"], ["s"]),
            node("Gather", ["s", "index"], ["h"], axis=0),
        ],
        "slice": [
            node("Squeeze", ["Y", "one"], ["s"]),
            node("Transpose", ["s"], ["by_batch"], perm=[1, 0, 2]),
            node("Slice", ["by_batch", "end", "far", "one"], ["step"]),
            node("Squeeze", ["step", "one"], ["h"]),
        ],
    }[last]  # fmt: skip
    if last in ("every", "slice"):
        nodes += [node("MatMul", ["h", "kernel"], ["m"]), node("Add", ["m", "bias"], ["y"])]
    else:
        nodes += [node("Gemm", ["h", "kernel", "bias"], ["y"])]
    used = {name for n in nodes for name in n.input}
    constants = {name: array for name, array in constants.items() if name in used}
    return nodes, constants, {"x": (*sequences, 3)}


@pytest.mark.parametrize("last", ["every", "Y_h", "gather", "slice"])
def test_keras_style_gru(last):
    nodes, constants, inputs = keras(last, sequences=(1, "time"))
    model, proto = read(nodes, constants, inputs)
    assert kinds(model) == ["GRU", "Dense"]
    assert np.array_equal(model.layers[1].weight, constants["kernel"].T)
    assert np.array_equal(model.layers[1].bias, constants["bias"])
    graphs.agrees(model, proto, batch=1, last=last != "every")


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 21])
def test_zeros_by_shape_over_the_versions_of_operators(opset):
    axes = {"axes": [0]} if opset < 13 else {}
    squeeze = {"axes": [1]} if opset < 13 else {}
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "one"], ["count"], axis=0),
        node("Unsqueeze", ["count"] + ["zero_"] * (opset >= 13), ["counts"], **axes),
        node("Concat", ["dirs", "counts", "size"], ["sizes"], axis=0),
        node("ConstantOfShape", ["sizes"], ["h0"]),
        node("LSTM", ["x", "w", "r", "", "", "h0", "h0"], ["Y"], hidden_size=4),
        node("Squeeze", ["Y"] + ["one_"] * (opset >= 13), ["h"], **squeeze),
        node("Dropout", ["h"], ["d"]),
        node("MatMul", ["d", "kernel"], ["m"]),
        node("Softmax", ["m"], ["y"], axis=2),
    ]
    constants = {
        "w": graphs.uniform(1, 16, 3),
        "r": graphs.uniform(1, 16, 4),
        "kernel": graphs.uniform(4, 3),
        "one": np.array(1),
        "dirs": np.array([1]),
        "size": np.array([4]),
    }
    if opset >= 13:
        constants |= {"zero_": np.array([0]), "one_": np.array([1])}
    model, proto = read(nodes, constants, {"x": ("time", "batch", 3)}, opset=opset)
    assert kinds(model) == ["LSTM", "Dense"]
    assert model.layers[1].activation == "softmax"
    graphs.agrees(model, proto, order="time first")


# Layers without gates


@pytest.mark.parametrize("activation", ["Relu", "Tanh", "Sigmoid", "Softmax"])
@pytest.mark.parametrize("form", ["gemm", "gemm transposed", "matmul", "left"])
def test_a_dense_layer_in_every_form(form, activation):
    flat = form.startswith("gemm")
    nodes = {
        "gemm": [node("Gemm", ["x", "w", "b"], ["m"])],
        "gemm transposed": [node("Gemm", ["x", "wt", "b"], ["m"], transB=1, alpha=1.0, beta=1.0)],
        "matmul": [node("MatMul", ["x", "w"], ["p"]), node("Add", ["b", "p"], ["m"])],
        "left": [
            node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
            node("MatMul", ["wt", "t"], ["p"]),
            node("Transpose", ["p"], ["q"], perm=[0, 2, 1]),
            node("Add", ["q", "b"], ["m"]),
        ],
    }[form] + [node(activation, ["m"], ["y"])]
    used = {name for n in nodes for name in n.input}
    constants = {k: v for k, v in {"w": W, "wt": W.T.copy(), "b": B}.items() if k in used}
    model, proto = read(nodes, constants, {"x": ("batch", 3)} if flat else None)
    (layer,) = model.layers
    assert layer.activation == activation.lower()
    assert np.array_equal(layer.weight, W.T)
    assert np.array_equal(layer.bias, B)
    if not flat:
        graphs.agrees(model, proto)
    else:
        x = graphs.uniform(2, 3, seed=9)
        found = graphs.run(proto, {"x": x})[0]
        expected = np.stack([reference.run(model, row[None])[0] for row in x])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def written_norm(form, eps=1e-5):
    """A layer norm as its formula, the way exporters write it before operator version 17."""
    nodes = [
        node("ReduceMean", ["x"], ["mean"], axes=[-1]),
        node("Sub", ["x", "mean"], ["d"]),
        node("Pow", ["d", "two"], ["s"]) if "pow" in form else node("Mul", ["d", "d"], ["s"]),
        node("ReduceMean", ["s"], ["v"], axes=[-1]),
        node("Add", ["v", "eps"], ["e"]),
        node("Sqrt", ["e"], ["r"]),
    ]
    if "reciprocal" in form:
        nodes += [node("Reciprocal", ["r"], ["i"]), node("Mul", ["d", "i"], ["n"])]
    else:
        nodes += [node("Div", ["d", "r"], ["n"])]
    nodes += [node("Mul", ["n", "w"], ["m"]), node("Add", ["m", "b"], ["y"])]
    constants = {"eps": np.float32(eps), "w": graphs.uniform(3), "b": graphs.uniform(3, seed=1)}
    if "pow" in form:
        constants["two"] = np.float32(2)
    return nodes, constants


@pytest.mark.parametrize("form", ["pow", "mul", "pow reciprocal", "mul reciprocal"])
def test_a_layer_norm_written_out(form):
    nodes, constants = written_norm(form)
    model, proto = read(nodes, constants)
    (layer,) = model.layers
    assert isinstance(layer, LayerNorm)
    assert layer.eps == 1e-5
    assert np.array_equal(layer.weight, constants["w"])
    assert np.array_equal(layer.bias, constants["b"])
    graphs.agrees(model, proto)


@pytest.mark.parametrize("after", ["Add", "Concat", "MatMul", None])
def test_a_mean_over_the_values_of_a_step(after):
    """As a plain value, no part of a norm; a third is no float32, so it is equal but for that."""
    mean = node("ReduceMean", ["x"], ["mean" if after else "y"], axes=[-1])
    following = {
        "Add": [node("Add", ["mean", "x"], ["y"])],
        "Concat": [node("Concat", ["mean", "x"], ["y"], axis=-1)],
        "MatMul": [node("MatMul", ["mean", "w"], ["y"])],
    }
    model, proto = read([mean, *following.get(after, [])], {"w": graphs.uniform(1, 2)})
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    middle = x.astype(float).mean(1, keepdims=True)
    expected = {
        "Add": middle + x,
        "Concat": np.concatenate([middle, x], 1),
        "MatMul": middle @ graphs.uniform(1, 2),
    }.get(after, middle)
    np.testing.assert_allclose(reference.run(model, x), expected, rtol=0, atol=1e-7)
    graphs.agrees(model, proto)


def test_a_layer_norm_node():
    constants = {"w": graphs.uniform(3), "b": graphs.uniform(3, seed=1)}
    cell = node("LayerNormalization", ["x", "w", "b"], ["y"], axis=2, epsilon=1e-3)
    model, proto = read([cell], constants)
    assert model.layers[0].eps == 1e-3
    graphs.agrees(model, proto)


def test_a_layer_norm_of_small_values():
    """Beside a variance of eps, the float32 that the file has for eps shows in float64."""
    small = graphs.uniform(3, 3) * np.float32(3e-3)
    constants = {"small": small, "w": graphs.uniform(3), "b": graphs.uniform(3, seed=1)}
    scaled = node("MatMul", ["x", "small"], ["z"])
    norm = node("LayerNormalization", ["z", "w", "b"], ["y"], axis=-1, epsilon=1e-5)
    model, proto = read([scaled, norm], constants)
    assert kinds(model) == ["Dense", "LayerNorm"]
    assert model.layers[1].eps == 1e-5
    graphs.agrees(model, proto)


def test_batch_normalization_on_values_and_on_channels():
    arrays = {
        "s": graphs.uniform(3),
        "b": graphs.uniform(3, seed=1),
        "m": graphs.uniform(3, seed=2),
        "v": graphs.uniform(3, seed=3) + 1,
    }
    names = list(arrays)
    scale = arrays["s"] / np.sqrt(arrays["v"].astype(np.float64) + 1e-5)
    around = [
        node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        node("BatchNormalization", ["t", *names], ["n"]),
        node("Transpose", ["n"], ["y"], perm=[0, 2, 1]),
    ]
    model, proto = read(around, arrays)
    (layer,) = model.layers
    assert isinstance(layer, Affine)
    np.testing.assert_allclose(layer.scale, scale, rtol=1e-7)
    graphs.agrees(model, proto)
    flat, _ = read([node("BatchNormalization", ["x", *names], ["y"])], arrays, {"x": ("n", 3)})
    assert np.array_equal(flat.layers[0].scale, layer.scale)
    assert np.array_equal(flat.layers[0].shift, layer.shift)


@pytest.mark.parametrize(
    ("nodes", "scale", "shift"),
    [
        ([node("Mul", ["x", "c"], ["y"])], "c", 0),
        ([node("Div", ["x", "c"], ["y"])], "1/c", 0),
        ([node("Sub", ["x", "c"], ["y"])], 1, "-c"),
        ([node("Sub", ["c", "x"], ["y"])], -1, "c"),
        ([node("Neg", ["x"], ["y"])], -1, 0),
        ([node("Sub", ["x", "c"], ["a"]), node("Neg", ["a"], ["y"])], None, None),
        ([node("Mul", ["x", "c"], ["a"]), node("Add", ["c", "a"], ["y"])], "c", "c"),
        ([node("Sum", ["x", "c", "c"], ["y"])], None, None),
        ([node("Add", ["x", "x"], ["y"])], 2, 0),
    ],
)
def test_arithmetic_with_constants(nodes, scale, shift):
    c = np.array([0.5, -3, 7], np.float32)
    constants = {"c": c} if any("c" in n.input for n in nodes) else {"unused": c}
    model, proto = read(nodes, constants)
    graphs.agrees(model, proto)
    if scale is not None:
        known = {"c": c, "1/c": (1 / c.astype(np.float64)).astype(np.float32), "-c": -c}
        (layer,) = model.layers
        assert np.array_equal(layer.scale, np.broadcast_to(known.get(scale, scale), 3))
        assert np.array_equal(layer.shift, np.broadcast_to(known.get(shift, shift), 3))


def test_skip_connections_and_values_side_by_side():
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Tanh", ["a"], ["t"]),
        node("MatMul", ["t", "w2"], ["b"]),
        node("Add", ["b", "x"], ["s"]),
        node("Concat", ["s", "x"], ["y"], axis=-1),
    ]
    model, proto = read(nodes, {"w": W, "w2": graphs.uniform(4, 3, seed=5)})
    assert "Residual" in kinds(model)
    graphs.agrees(model, proto)


def test_a_difference_of_steps():
    nodes = [
        node("Slice", ["x", "zero", "last", "one"], ["p"]),
        node("Slice", ["x", "zero", "one", "one"], ["f"]),
        node("Sub", ["f", "f"], ["unused"]),
        node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        node("Unsqueeze", ["before", "zero"], ["b"]),
        node("Concat", ["b", "t"], ["all"], axis=0),
        node("Slice", ["all", "zero", "last", "zero"], ["old"]),
        node("Sub", ["t", "old"], ["d"]),
        node("Transpose", ["d"], ["y"], perm=[1, 0, 2]),
    ]
    constants = {"zero": np.array([0]), "one": np.array([1]), "last": np.array([-1])}
    inputs = {**graphs.X, "before": ("batch", 3)}
    model, proto = read(nodes, constants, inputs)
    assert kinds(model) == ["Difference"]
    graphs.agrees(model, proto, feed={"before": np.zeros((2, 3), np.float32)})


def test_a_function_of_the_file_with_an_attribute():
    body = [node("MatMul", ["a", "w"], ["m"]), node("Softmax", ["m"], ["o"])]
    body[1].attribute.append(onnx.AttributeProto(name="axis", type=2, ref_attr_name="along"))
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("mine", "Head", ["a", "w"], ["o"], body, opsets, ["along"])
    model, proto = read(
        [node("Head", ["x", "w"], ["y"], domain="mine", along=-1)],
        {"w": W},
        functions=[function],
        imports=[helper.make_opsetid("mine", 1)],
    )
    assert model.layers[0].activation == "softmax"
    graphs.agrees(model, proto)


def test_constants_from_everywhere():
    nodes = [
        node("Constant", [], ["five"], value_float=5.0),
        node("Constant", [], ["list"], value_floats=[1.0, 2.0, 3.0]),
        node("Constant", [], ["sizes"], value_ints=[3]),
        node("ConstantOfShape", ["sizes"], ["twos"], value=helper.make_tensor("t", 1, [1], [2.0])),
        node("Mul", ["list", "twos"], ["scale"]),
        node("Mul", ["x", "scale"], ["m"]),
        node("Add", ["m", "five"], ["y"]),
    ]
    model, proto = read(nodes)
    assert model.layers[0].scale.tolist() == [2, 4, 6]
    assert model.layers[0].shift.tolist() == [5, 5, 5]
    graphs.agrees(model, proto)


# Layouts and outputs


@pytest.mark.parametrize("axes", [("time", 3), (3,), (1, "time", 3), (1, 1, 3), (4, 6, 3)])
def test_layouts_of_the_series(axes):
    model, proto = read([node("MatMul", ["x", "w"], ["y"])], {"w": W}, {"x": axes})
    assert isinstance(model.layers[0], Dense)
    shape = [6 if isinstance(size, str) else size for size in axes]
    x = graphs.uniform(*shape, seed=3)
    found = graphs.run(proto, {"x": x})[0]
    expected = reference.run(model, x.reshape(-1, 3))
    np.testing.assert_allclose(found.reshape(-1, 4), expected, rtol=0, atol=1e-6)


def test_the_number_of_values_where_the_input_does_not_say():
    model, _ = read([node("MatMul", ["x", "w"], ["y"])], {"w": W}, {"x": ("b", "t", "f")})
    assert model.input_size == 3


def test_which_of_several_outputs():
    nodes = [
        node("MatMul", ["x", "w"], ["h"], "hidden"),
        node("Relu", ["h"], ["y"]),
        node("MatMul", ["h", "v"], ["z"], "other head"),
        node("Erf", ["h"], ["e"], "erf"),
    ]
    constants = {"w": W, "v": graphs.uniform(4, 2)}
    proto = graphs.graph(nodes, constants, outputs=("y", "h"))
    assert kinds(from_onnx(proto.SerializeToString())) == ["Dense"]
    data = graphs.graph(nodes, constants, outputs=("y", "z")).SerializeToString()
    with pytest.raises(ReaderError, match=r"output 'z': .*MatMul node 'other head'.*output="):
        from_onnx(data)
    assert from_onnx(data, output="y").output_size == 4
    assert kinds(from_onnx(data, output="z")) == ["Dense", "Dense"]
    with pytest.raises(ReaderError, match="expected output to be one of y, z, found 'q'"):
        from_onnx(data, output="q")
    data = graphs.graph(nodes, constants, outputs=("y", "e")).SerializeToString()
    with pytest.raises(ReaderError, match="Erf node 'erf'"):
        from_onnx(data)
    assert from_onnx(data, output="y").layers[0].activation == "relu"

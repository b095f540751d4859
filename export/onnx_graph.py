"""A Model as an ONNX graph: one LSTM, GRU or RNN node per layer, never unrolled, states in and out.

Written node by node from the arrays; torch has no part in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ExportError, MissingExtraError, UnsupportedError
from fastlstm.model import (
    GRU,
    LSTM,
    RNN,
    Affine,
    Bidirectional,
    Dense,
    Difference,
    LayerNorm,
    Residual,
)

from .card import KEY, state_names, to_json
from .replay import Exported, check_place, put, replay

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from fastlstm.model import Layer, Model

# Opset 17 and IR 8 are of 2022: ONNX Runtime 1.13 and later read them, and nothing newer is used.
OPSET, IR_VERSION = 17, 8
# Blocks of H rows in ONNX's gate order, as positions in PyTorch's: i o f c from i f g o; z r h
# from r z n. Peepholes: i o f from i f o.
GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
PEEPHOLES = (0, 2, 1)
ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "softmax": "Softmax"}

SNIPPET = """\
import json, numpy, onnxruntime
session = onnxruntime.InferenceSession({path!r}, providers=["CPUExecutionProvider"])
about = json.loads(session.get_modelmeta().custom_metadata_map["fastlstm"])
state = {{s["input"]: numpy.array([s["initial"]], numpy.float32) for s in about["states"]}}
y, *state = session.run(None, {{"x": numpy.zeros((1, 10, {inputs}), numpy.float32), **state}})
"""


def write(model: Model, path: str | Path) -> Exported:
    """Build, check with onnx.checker, replay in ONNX Runtime, then write to `path`."""
    from .onnx_sessions import OnnxSession

    path = check_place(path)
    data = build(model).SerializeToString()
    done = replay(model, OnnxSession(model, data), "ONNX Runtime")
    put(path, data)
    snippet = SNIPPET.format(path=str(path), inputs=model.input_size)
    return Exported(path, "onnx", done.steps, done.max_abs_error, done.bound, snippet)


def initial_states(model: Model, batch: int = 1) -> dict[str, NDArray[np.float32]]:
    """What to feed at the start of a stream: by input name, each (batch, H)."""
    return {
        state_names(state)[0]: np.repeat(state.initial[None], batch, axis=0)
        for state in model.states
    }


def build(model: Model, *, bare: bool = False) -> onnx.ModelProto:
    """The graph, checked by onnx.checker with full shape inference.

    Inputs: `x` (batch, time, input_size), and for every state vector `h0_l{k}` or `c0_l{k}`
    (batch, H), where k is the layer's position in Model.layers, or `x0_l{k}` of a Difference.
    Outputs: `y` (batch, time, output_size), and `hN_l{k}`, `cN_l{k}`, `xN_l{k}` (batch, H), to be
    fed back. Batch and time are dynamic.
    The backward half of a Bidirectional has `h0_l{k}_reverse` and so on, which belong to the end of
    x: there x is a whole sequence, and nothing is to be fed back.
    `bare` leaves out all that is not arithmetic: x (time, batch, input_size), states
    (1, batch, H), y (time, batch, output_size) where the last layer allows, with 1 as a further
    axis before batch where a recurrent layer is under it.

    Raises UnsupportedError for a projection, and ExportError if ONNX's own checker refuses the
    graph.
    """
    for k, layer in enumerate(model.layers):
        if any(name.startswith("weight_hr") for name in layer.arrays):
            raise UnsupportedError(
                f"ONNX: layer {k} ({layer.kind}): ONNX's LSTM node has no projection "
                "(weight_hr_l0, PyTorch's proj_size); train without one, or export to TorchScript, "
                "which has it"
            )
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx", "onnx", "exporting to ONNX") from None
    proto = _Graph(model, bare).proto()
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"onnx.checker refuses the graph: {error}") from None
    return proto


class _Graph:
    """The nodes, constants, inputs and outputs of one graph as they are laid down."""

    def __init__(self, model: Model, bare: bool) -> None:
        self.model, self.bare = model, bare
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def proto(self) -> onnx.ModelProto:
        from onnx import TensorProto, helper

        model = self.model

        def value(name: str, *shape: str | int) -> Any:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        x = "x" if self.bare else self.node("Transpose", ["x"], "x_by_time", perm=[1, 0, 2])
        # Whether the value at hand still has ONNX's axis of directions: (time, 1, batch, H).
        wide = False
        inputs: list[tuple[str, bool]] = []  # of each layer, for the residual connections
        for k, layer in enumerate(model.layers):
            inputs.append((x, wide))
            if isinstance(layer, LSTM | GRU | RNN | Bidirectional):
                x = self.narrow(x, wide, f"l{k}_x")
                x, wide = self.recurrent(k, layer, x), not isinstance(layer, Bidirectional)
                if wide and not self.bare:
                    x, wide = self.narrow(x, wide, f"l{k}_h"), False
            elif isinstance(layer, Difference):
                x, wide = self.difference(k, self.narrow(x, wide, f"l{k}_x")), False
            elif isinstance(layer, Residual):
                source, source_wide = inputs[k - layer.back]
                if source_wide != wide:
                    x = self.narrow(x, wide, f"l{k}_x")
                    source = self.narrow(source, source_wide, f"l{k}_from")
                    wide = False
                size = model.layers[k - layer.back].input_size
                x = self.residual(k, layer, x, source, size)
            else:
                x = self.pointwise(k, layer, x)
        if self.bare:
            self.nodes[-1].output[0] = "y"
        else:
            self.node("Transpose", [x], "y", perm=[1, 0, 2])
        first = ("time", "batch") if self.bare else ("batch", "time")
        last = ("time", *((1,) if wide else ()), "batch") if self.bare else first
        before, after = (
            [
                value(state_names(state)[end], *((1,) if self.bare else ()), "batch", state.size)
                for state in model.states
            ]
            for end in (0, 1)
        )
        graph = helper.make_graph(
            self.nodes,
            "fastlstm",
            [value("x", *first, model.input_size), *before],
            [value("y", *last, model.output_size), *after],
            self.constants,
        )
        proto = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="fastlstm",
        )
        helper.set_model_props(proto, {KEY: to_json(model)})
        return proto

    def node(self, kind: str, inputs: list[str], output: str | list[str], **attributes: Any) -> str:
        """Add a node; return the name of its first output."""
        from onnx import helper

        outputs = [output] if isinstance(output, str) else output
        self.nodes.append(helper.make_node(kind, inputs, outputs, outputs[0], **attributes))
        return outputs[0]

    def constant(self, name: str, array: Any) -> str:
        from onnx import numpy_helper

        if all(constant.name != name for constant in self.constants):
            self.constants.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def narrow(self, x: str, wide: bool, output: str) -> str:
        """The value without ONNX's axis of directions, where it has one."""
        if not wide:
            return x
        return self.node("Squeeze", [x, self.constant("axis1", [1])], output)

    def recurrent(self, k: int, layer: LSTM | GRU | RNN | Bidirectional, x: str) -> str:
        """One node; its output is (time, 1, batch, H), of a Bidirectional (time, batch, 2 H)."""
        both = isinstance(layer, Bidirectional)
        halves = (layer.forward, layer.backward) if isinstance(layer, Bidirectional) else (layer,)
        first = halves[0]
        attributes: dict[str, Any] = {"hidden_size": first.hidden_size}
        if both:
            attributes["direction"] = "bidirectional"
        if isinstance(first, GRU):
            attributes["linear_before_reset"] = int(first.reset == "after")
        if isinstance(first, RNN) and first.nonlinearity == "relu":
            attributes["activations"] = ["Relu"] * len(halves)
        count = len(first.state_names)
        names = [state_names(state) for state in self.model.states if state.layer == k]
        before = [self.joined([n[0] for n in names[j::count]]) for j in range(count)]
        after = [[n[1] for n in names[j::count]] for j in range(count)]
        inputs = [x, *self.weights(k, halves), "", *before, self.peepholes(k, halves)]
        outputs = [f"l{k}_y", *map(self.joined_name, after)]
        while not inputs[-1]:
            inputs.pop()
        y = self.node(first.kind, inputs, outputs, **attributes)
        for vectors in after:
            self.parted(vectors)
        if not both:
            return y
        y = self.node("Transpose", [y], f"l{k}_pairs", perm=[0, 2, 1, 3])
        shape = self.constant(f"l{k}_shape", np.array([0, 0, layer.output_size], np.int64))
        return self.node("Reshape", [y, shape], f"l{k}_h")

    def weights(self, k: int, halves: tuple[LSTM | GRU | RNN, ...]) -> list[str]:
        """W, R and B of a node; a half that has no bias gets zeros where the other has one."""

        def gates(layer: LSTM | GRU | RNN, array: Any) -> Any:
            if array is None:
                return np.zeros((1, layer.weight_ih_l0.shape[0]), np.float32)
            blocks = np.split(array, layer.gates)
            return np.concatenate([blocks[gate] for gate in GATES[layer.kind]])[None]

        names = [
            self.constant(f"l{k}_W", np.concatenate([gates(h, h.weight_ih_l0) for h in halves])),
            self.constant(f"l{k}_R", np.concatenate([gates(h, h.weight_hh_l0) for h in halves])),
        ]
        if all(half.bias_ih_l0 is None for half in halves):
            return [*names, ""]
        biases = [
            np.concatenate([gates(h, h.bias_ih_l0), gates(h, h.bias_hh_l0)], axis=1) for h in halves
        ]
        return [*names, self.constant(f"l{k}_B", np.concatenate(biases))]

    def peepholes(self, k: int, halves: tuple[LSTM | GRU | RNN, ...]) -> str:
        """P of an LSTM node, or nothing; a half that has none gets zeros where the other has."""
        found = [half.arrays.get("peephole_l0") for half in halves]
        if all(array is None for array in found):
            return ""
        zeros = np.zeros(3 * halves[0].hidden_size, np.float32)
        split = (np.split(zeros if array is None else array, 3) for array in found)
        rows = [np.concatenate([blocks[gate] for gate in PEEPHOLES]) for blocks in split]
        return self.constant(f"l{k}_P", np.stack(rows))

    def joined_name(self, names: list[str]) -> str:
        """The node's own output for these state vectors: (directions, batch, H)."""
        if len(names) == 1:
            return names[0] if self.bare else f"{names[0]}_wide"
        return f"{names[0]}_both"

    def joined(self, names: list[str]) -> str:
        """State vectors of the graph's inputs, one for each direction, as the node takes them."""
        if not self.bare:
            axis = self.constant("axis0", [0])
            names = [self.node("Unsqueeze", [name, axis], f"{name}_wide") for name in names]
        if len(names) == 1:
            return names[0]
        return self.node("Concat", names, f"{names[0]}_both", axis=0)

    def parted(self, names: list[str]) -> None:
        """The node's output of `joined_name` into the graph's outputs, one for each direction."""
        wide = names if self.bare else [f"{name}_wide" for name in names]
        if len(names) > 1:
            self.node("Split", [self.joined_name(names)], wide, axis=0)
        if not self.bare:
            for name in names:
                self.node("Squeeze", [f"{name}_wide", self.constant("axis0", [0])], name)

    def difference(self, k: int, x: str) -> str:
        """What changed in x (time, batch, size) since the step before; its end is the new state."""
        before, after = next(state_names(s) for s in self.model.states if s.layer == k)
        values = {"first": 0, "last": -1, "end": np.iinfo(np.int64).max, "axis0": 0}
        first, last, end, axis = (
            self.constant(name, np.array([value], np.int64)) for name, value in values.items()
        )
        # The state goes in front, so that a run of no steps hands it on.
        x_after = self.node("Concat", [self.joined([before]), x], f"l{k}_after", axis=0)
        self.node("Slice", [x_after, last, end, axis], self.joined_name([after]))
        self.parted([after])
        x_before = self.node("Slice", [x_after, first, last, axis], f"l{k}_before")
        return self.node("Sub", [x, x_before], f"l{k}_difference")

    def residual(self, k: int, layer: Residual, x: str, source: str, size: int) -> str:
        """X plus the columns of source, which has `size` of them."""
        columns = list(layer.columns)
        if len(set(columns)) == 1:
            columns = columns[:1]  # broadcast to all values of x
        if columns != list(range(size)):
            indices = self.constant(f"l{k}_columns", np.array(columns, np.int64))
            source = self.node("Gather", [source, indices], f"l{k}_source", axis=-1)
        return self.node("Add", [x, source], f"l{k}_add")

    def layer_norm(self, k: int, layer: LayerNorm, x: str) -> str:
        inputs = [x, self.constant(f"l{k}_weight", layer.weight)]
        if layer.bias is not None:
            inputs.append(self.constant(f"l{k}_bias", layer.bias))
        return self.node("LayerNormalization", inputs, f"l{k}_norm", axis=-1, epsilon=layer.eps)

    def pointwise(self, k: int, layer: Layer, x: str) -> str:
        if isinstance(layer, LayerNorm):
            return self.layer_norm(k, layer, x)
        if isinstance(layer, Affine):
            x = self.node("Mul", [x, self.constant(f"l{k}_scale", layer.scale)], f"l{k}_mul")
            return self.node("Add", [x, self.constant(f"l{k}_shift", layer.shift)], f"l{k}_add")
        assert isinstance(layer, Dense)
        weight = self.constant(f"l{k}_weight", layer.weight.T)
        x = self.node("MatMul", [x, weight], f"l{k}_matmul")
        if layer.bias is not None:
            x = self.node("Add", [x, self.constant(f"l{k}_bias", layer.bias)], f"l{k}_add")
        if layer.activation == "linear":
            return x
        axis = {"axis": -1} if layer.activation == "softmax" else {}
        return self.node(ACTIVATIONS[layer.activation], [x], f"l{k}_{layer.activation}", **axis)

"""Laying down an ONNX graph: nodes, constants, weights as float32 or float16, and the plain layers.

The recurrent layers are in onnx_recurrent.py; the graph around both in onnx_graph.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.model import Affine, Dense, LayerNorm

if TYPE_CHECKING:
    from fastlstm.model import Layer, Model, Residual

ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "softmax": "Softmax"}
LENGTHS = "lengths"


class Nodes:
    """The nodes and constants of one graph as they are laid down, in the order they run in.

    `bare` leaves out what is not arithmetic, `lengths` heeds the input of that name, and `half`
    stores weights as float16 (see onnx_graph.build).
    """

    def __init__(self, model: Model, *, bare: bool, lengths: bool, half: bool) -> None:
        self.model, self.bare, self.lengths, self.half = model, bare, lengths, half
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        # The series with time as its first axis.
        self.by_time = "x" if bare else "x_by_time"

    def node(self, kind: str, inputs: list[str], output: str | list[str], **attributes: Any) -> str:
        """Add a node; return the name of its first output."""
        from onnx import helper

        outputs = [output] if isinstance(output, str) else output
        self.nodes.append(helper.make_node(kind, inputs, outputs, outputs[0], **attributes))
        return outputs[0]

    def constant(self, name: str, array: Any) -> str:
        """An initializer as it is; one of the same name is not added again."""
        from onnx import numpy_helper

        if all(constant.name != name for constant in self.constants):
            self.constants.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def integers(self, name: str, *values: int) -> str:
        """A list of int64, as axes, sizes and pads are."""
        return self.constant(name, np.array(values, np.int64))

    def weight(self, name: str, array: Any) -> str:
        """An array of the network: float32, or float16 and a Cast that runtimes fold at load."""
        from onnx import TensorProto

        stored = self.stored(name, array)
        return self.node("Cast", [stored], name, to=TensorProto.FLOAT) if self.half else stored

    def stored(self, name: str, array: Any) -> str:
        """An array of the network as the file holds it, without a Cast."""
        if self.half:
            return self.constant(f"{name}_half", array.astype(np.float16))
        return self.constant(name, array)

    def rename(self, old: str, new: str) -> None:
        """Call a value `new` that no node takes yet, instead of adding a node that copies it."""
        for node in self.nodes:
            for place, name in enumerate(node.output):
                if name == old:
                    node.output[place] = new

    def narrow(self, x: str, wide: bool, output: str) -> str:
        """The value without ONNX's axis of directions, where it has one."""
        if not wide:
            return x
        return self.node("Squeeze", [x, self.integers("axis1", 1)], output)

    def joined(self, names: list[str]) -> str:
        """State vectors of the graph's inputs, one for each direction, as the node takes them."""
        if not self.bare:
            axis = self.integers("axis0", 0)
            names = [self.node("Unsqueeze", [name, axis], f"{name}_wide") for name in names]
        if len(names) == 1:
            return names[0]
        return self.node("Concat", names, f"{names[0]}_both", axis=0)

    def parted(self, found: str, names: list[str]) -> None:
        """What a node put out, (directions, batch, H), into the graph's outputs of these names."""
        wide = names if self.bare else [f"{name}_wide" for name in names]
        if len(names) > 1:
            self.node("Split", [found], wide, axis=0)
        else:
            self.rename(found, wide[0])
        if not self.bare:
            for name, vector in zip(names, wide, strict=True):
                self.node("Squeeze", [vector, self.integers("axis0", 0)], name)

    def residual(self, k: int, layer: Residual, x: str, source: str, size: int) -> str:
        """X plus the columns of source, which has `size` of them."""
        columns = list(layer.columns)
        if len(set(columns)) == 1:
            columns = columns[:1]  # broadcast to all values of x
        if columns != list(range(size)):
            indices = self.integers(f"l{k}_columns", *columns)
            source = self.node("Gather", [source, indices], f"l{k}_source", axis=-1)
        return self.node("Add", [x, source], f"l{k}_add")

    def layer_norm(self, k: int, layer: LayerNorm, x: str) -> str:
        inputs = [x, self.weight(f"l{k}_weight", layer.weight)]
        if layer.bias is not None:
            inputs.append(self.weight(f"l{k}_bias", layer.bias))
        return self.node("LayerNormalization", inputs, f"l{k}_norm", axis=-1, epsilon=layer.eps)

    def pointwise(self, k: int, layer: Layer, x: str) -> str:
        if isinstance(layer, LayerNorm):
            return self.layer_norm(k, layer, x)
        if isinstance(layer, Affine):
            x = self.node("Mul", [x, self.constant(f"l{k}_scale", layer.scale)], f"l{k}_mul")
            return self.node("Add", [x, self.constant(f"l{k}_shift", layer.shift)], f"l{k}_add")
        assert isinstance(layer, Dense)
        weight = self.weight(f"l{k}_weight", layer.weight.T)
        x = self.node("MatMul", [x, weight], f"l{k}_matmul")
        if layer.bias is not None:
            x = self.node("Add", [x, self.weight(f"l{k}_bias", layer.bias)], f"l{k}_add")
        if layer.activation == "linear":
            return x
        axis = {"axis": -1} if layer.activation == "softmax" else {}
        return self.node(ACTIVATIONS[layer.activation], [x], f"l{k}_{layer.activation}", **axis)

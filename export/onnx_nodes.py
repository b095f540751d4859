"""Laying down an ONNX graph: nodes, constants, weights as float32 or float16, and the plain layers.

The recurrent layers are in onnx_recurrent.py; the graph around both in onnx_graph.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.model import Affine, Dense, LayerNorm

from .card import state_names

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

        if not self.half:
            return self.constant(name, array)
        stored = self.constant(f"{name}_half", array.astype(np.float16))
        return self.node("Cast", [stored], name, to=TensorProto.FLOAT)

    def rename(self, old: str, new: str) -> None:
        """Call a value `new` that no node takes yet, instead of adding a node that copies it."""
        for node in self.nodes:
            for place, name in enumerate(node.output):
                if name == old:
                    node.output[place] = new

    def once(self, name: str) -> bool:
        """Whether no node puts out this value yet."""
        return all(name not in node.output for node in self.nodes)

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

    def kept(self, found: str, given: str, output: str) -> str:
        """The state found, or the one given in rows whose sequence has no step, if lengths say so.

        ONNX does not say what a recurrent node's final state is there; ONNX Runtime makes it 0.
        """
        if not self.lengths:
            return found
        if self.once("has_steps"):
            zero = self.constant("no_steps", np.int32(0))
            some = self.node("Greater", [LENGTHS, zero], "is_longer")
            self.node("Unsqueeze", [some, self.integers("axis1", 1)], "has_steps")
        return self.node("Where", ["has_steps", found, given], output)

    def counted(self) -> str:
        """The input `lengths` as int64, which indices are."""
        from onnx import TensorProto

        if self.once("counts"):
            self.node("Cast", [LENGTHS], "counts", to=TensorProto.INT64)
        return "counts"

    def silenced(self, y: str, x: str, wide: bool) -> str:
        """Y, by time, with 0 after the end of each sequence; x is by time too."""
        scalars = {"zero": 0, "one": 1}
        zero, one = (self.constant(name, np.int64(value)) for name, value in scalars.items())
        shape = self.node("Shape", [x], "x_shape")
        steps = self.node("Gather", [shape, zero], "steps", axis=0)
        step = self.node("Range", [zero, steps, one], "step")
        step = self.node("Unsqueeze", [step, self.integers("axis1", 1)], "step_of_each")
        within = self.node("Less", [step, self.counted()], "is_within")
        axes = self.integers("axes_around", *((1, 3) if wide else (2,)))
        within = self.node("Unsqueeze", [within, axes], "within")
        return self.node("Where", [within, y, self.constant("nothing", np.float32(0))], "y_within")

    def difference(self, k: int, x: str) -> str:
        """What changed in x (time, batch, size) since the step before; its end is the new state."""
        before, after = next(state_names(s) for s in self.model.states if s.layer == k)
        first, last, axis = (
            self.integers(name, value)
            for name, value in {"first": 0, "last": -1, "axis0": 0}.items()
        )
        # The state goes in front, so that a run of no steps hands it on.
        x_after = self.node("Concat", [self.joined([before]), x], f"l{k}_after", axis=0)
        if self.lengths:
            # ... and what comes after `lengths` steps stands at that very place.
            rows = self.node("Transpose", [x_after], f"l{k}_rows", perm=[1, 0, 2])
            if self.once("place"):
                self.node("Unsqueeze", [self.counted(), self.integers("axis1", 1)], "place")
            end = f"{after}_narrow" if self.bare else after
            self.node("GatherND", [rows, "place"], end, batch_dims=1)
            if self.bare:
                self.node("Unsqueeze", [end, axis], after)
        else:
            end = self.integers("end", np.iinfo(np.int64).max)
            self.parted(self.node("Slice", [x_after, last, end, axis], f"{after}_last"), [after])
        x_before = self.node("Slice", [x_after, first, last, axis], f"l{k}_before")
        return self.node("Sub", [x, x_before], f"l{k}_difference")

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

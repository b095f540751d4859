"""An LSTM with peepholes as a Scan: ONNX's loop over time, whose body is one step in plain ops.

The LSTM node has an input for peepholes, P, and two runtimes of six compute it wrong without a
word: OpenVINO (2026.4) passes over it, and OpenCV (5.0) reads it in another order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .onnx_lengths import LengthNodes

if TYPE_CHECKING:
    from fastlstm.model import LSTM

    # Of each state of one direction: its input and its output in the graph.
    Names: TypeAlias = list[tuple[str, str]]

# The gates in the order of a layer's rows, and those of peephole_l0, which see the cell state.
GATES, PEEPHOLES = "ifgo", "ifo"


class ScanNodes(LengthNodes):
    """Recurrent layers step by step; the graph is as long for a thousand steps as for one."""

    def scanned(self, name: str, half: LSTM, x: str, states: Names) -> str:
        """One direction of an LSTM over x (time, batch, I): (time, batch, O).

        What the input adds to the gates is one product for all steps, before the loop. The backward
        half runs from the last step; with lengths, both keep their state over steps that are none.
        """
        backward, within = name.endswith("_reverse"), self.within if self.lengths else ""
        if backward:
            # Not by the Scan's own directions, which onnx's evaluator lacks.
            x = self.turned(x, f"{name}_turned")
            within = within and self.turned(within, f"{name}_within")
        z = self.node("MatMul", [x, self.weight(f"{name}_W", half.weight_ih_l0.T)], f"{name}_x")
        for key in ("bias_ih_l0", "bias_hh_l0"):
            if (bias := getattr(half, key)) is not None:
                bias = self.weight(f"{name}_{key.removesuffix('_l0')}", bias)
                z = self.node("Add", [z, bias], f"{bias}_added")
        over_time = [z, within] if within else [z]
        given, after = zip(*states, strict=True)
        self.node(
            "Scan",
            [*given, *over_time],
            [*after, f"{name}_steps"],
            body=_Step(self, name, half).graph(),
            num_scan_inputs=len(over_time),
        )
        return self.turned(f"{name}_steps", f"{name}_h") if backward else f"{name}_steps"

    def turned(self, x: str, output: str) -> str:
        """The values from the last step to the first."""
        ends = {"last": -1, "before_first": np.iinfo(np.int64).min, "axis0": 0, "back": -1}
        places = [self.integers(name, value) for name, value in ends.items()]
        return self.node("Slice", [x, *places], output)


class _Step:
    """The body: h, c, what the input adds to the gates, and whether there is such a step."""

    def __init__(self, outer: ScanNodes, name: str, half: LSTM) -> None:
        self.outer, self.name, self.half = outer, name, half
        self.nodes: list[Any] = []

    def node(self, kind: str, inputs: list[str], output: str | list[str], **attributes: Any) -> str:
        """Add a node; names that are not the outer graph's are given by their end."""
        from onnx import helper

        outputs = [self.own(end) for end in ([output] if isinstance(output, str) else output)]
        self.nodes.append(helper.make_node(kind, inputs, outputs, outputs[0], **attributes))
        return outputs[0]

    def own(self, end: str) -> str:
        """A name in the body; no name of the outer graph may stand there again."""
        return f"{self.name}_step_{end}"

    def weight(self, end: str, array: Any) -> str:
        """A weight, which the outer graph holds; its Cast stands in the body.

        OpenVINO takes from the outer graph what is stored there, but nothing that a node makes.
        """
        from onnx import TensorProto

        stored = self.outer.stored(f"{self.name}_{end}", array)
        if not self.outer.half:
            return stored
        return self.node("Cast", [stored], end, to=TensorProto.FLOAT)

    def graph(self) -> Any:
        from onnx import TensorProto, helper

        half, own = self.half, self.own
        h, c = self.equations(own("h_before"), own("c_before"), own("z"))
        if self.outer.lengths:
            h, c = (
                self.node("Where", [own("within"), found, own(f"{end}_before")], f"{end}_kept")
                for end, found in (("h", h), ("c", c))
            )
        # An output of the body has one name and one meaning: h is handed on, and put out.
        self.node("Identity", [h], "y")

        def value(name: str, size: int, kind: int = TensorProto.FLOAT) -> Any:
            return helper.make_tensor_value_info(name, kind, ("batch", size))

        sizes = {"h": half.output_size, "c": half.hidden_size}
        inputs = [value(own(f"{end}_before"), size) for end, size in sizes.items()]
        inputs.append(value(own("z"), 4 * half.hidden_size))
        if self.outer.lengths:
            inputs.append(value(own("within"), 1, TensorProto.BOOL))
        outputs = [value(h, sizes["h"]), value(c, sizes["c"]), value(own("y"), sizes["h"])]
        return helper.make_graph(self.nodes, f"{self.name}_step", inputs, outputs)

    def equations(self, h: str, c: str, z: str) -> tuple[str, str]:
        """One step: the new h and c."""
        half, node = self.half, self.node
        recurrent = node("MatMul", [h, self.weight("R", half.weight_hh_l0.T)], "r")
        gates = node("Add", [z, recurrent], "gates")
        node("Split", [gates], [f"{gate}_sum" for gate in GATES], axis=1)
        i = node("Sigmoid", [self.peeping("i", c)], "i")
        f = node("Sigmoid", [self.peeping("f", c)], "f")
        g = node("Tanh", [self.own("g_sum")], "g")
        held, taken = node("Mul", [f, c], "held"), node("Mul", [i, g], "taken")
        c = node("Add", [held, taken], "c")
        o = node("Sigmoid", [self.peeping("o", c)], "o")
        h = node("Mul", [o, node("Tanh", [c], "c_tanh")], "h")
        if half.weight_hr_l0 is not None:
            h = node("MatMul", [h, self.weight("hr", half.weight_hr_l0.T)], "h_projected")
        return h, c

    def peeping(self, gate: str, c: str) -> str:
        """The sum of a gate with what it sees of c, before the step for i and f, after it for o."""
        own = self.own(f"{gate}_sum")
        if self.half.peephole_l0 is None:
            return own
        weight = np.split(self.half.peephole_l0, 3)[PEEPHOLES.index(gate)]
        seen = self.node("Mul", [c, self.weight(f"peephole_{gate}", weight)], f"{gate}_seen")
        return self.node("Add", [own, seen], f"{gate}_all")

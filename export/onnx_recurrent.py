"""LSTM, GRU and RNN layers as one ONNX node each, in one direction or both, never unrolled.

A projection, which ONNX's LSTM lacks, is folded into the weights of a plain LSTM node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastlstm.model import GRU, LSTM, RNN, Bidirectional

from .card import state_names
from .onnx_nodes import LENGTHS, Nodes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Halves: TypeAlias = tuple[LSTM | GRU | RNN, ...]

# Blocks of H rows in ONNX's gate order, as positions in PyTorch's: i o f c from i f g o; z r h
# from r z n. Peepholes: i o f from i f o.
GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
PEEPHOLES = (0, 2, 1)


class RecurrentNodes(Nodes):
    """Nodes, and what makes one of a recurrent layer.

    How a projection to P values is folded. With m = o * tanh(c) of size H, h is W_hr m, so the
    gates see W_hh h = (W_hh W_hr) m: a plain LSTM whose hidden state is m, and whose outputs W_hr
    takes to h behind it. What enters as h0 need not be W_hr of anything, so the node gets P units
    more, with no weights of their own and a cell state of 0: they hold h0 before the first step
    and o * tanh(0) = 0 after it, and the gates see them through W_hh itself. With several lengths
    and both directions the node puts them where each sequence begins.
    """

    def recurrent(self, k: int, layer: LSTM | GRU | RNN | Bidirectional, x: str) -> str:
        """One node; its output is (time, 1, batch, O), of a Bidirectional (time, batch, 2 O)."""
        both = isinstance(layer, Bidirectional)
        halves = (layer.forward, layer.backward) if isinstance(layer, Bidirectional) else (layer,)
        first, extra = halves[0], extra_units(halves)
        attributes: dict[str, Any] = {"hidden_size": first.hidden_size + extra}
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
        start = self.widened(k, halves, before) if extra else before
        lengths = LENGTHS if self.lengths else ""
        inputs = [x, *self.weights(k, halves), lengths, *start, self.peepholes(k, halves)]
        while not inputs[-1]:
            inputs.pop()
        ends = [f"{group[0]}_{'both' if both else 'found'}" for group in after]
        y = self.node(first.kind, inputs, [f"l{k}_y", *ends], **attributes)
        if extra:
            y, ends = self.projected(k, halves, y, ends)
        for found, given, group in zip(ends, before, after, strict=True):
            self.parted(self.kept(found, given, f"{group[0]}_kept"), group)
        if not both:
            return y
        y = self.node("Transpose", [y], f"l{k}_pairs", perm=[0, 2, 1, 3])
        shape = self.integers(f"l{k}_shape", 0, 0, layer.output_size)
        return self.node("Reshape", [y, shape], f"l{k}_h")

    def weights(self, k: int, halves: Halves) -> list[str]:
        """W, R and B of a node; a half that has no bias gets zeros where the other has one."""
        extra = extra_units(halves)

        def gates(array: Any) -> Floats:
            return _gates(halves[0].kind, array, extra)[None]

        w = np.concatenate([gates(half.weight_ih_l0) for half in halves])
        names = [self.weight(f"l{k}_W", w), self.hidden_weights(k, halves)]
        if all(half.bias_ih_l0 is None for half in halves):
            return [*names, ""]
        zeros = np.zeros(len(halves[0].weight_ih_l0), np.float32)
        biases = [
            [gates(zeros if bias is None else bias) for bias in (half.bias_ih_l0, half.bias_hh_l0)]
            for half in halves
        ]
        rows = np.concatenate([np.concatenate(pair, axis=1) for pair in biases])
        return [*names, self.weight(f"l{k}_B", rows)]

    def hidden_weights(self, k: int, halves: Halves) -> str:
        """R of a node."""
        extra, kind = extra_units(halves), halves[0].kind
        if not extra:
            return self.weight(f"l{k}_R", np.stack([_gates(kind, h.weight_hh_l0) for h in halves]))
        if not self.half:
            rows = [
                _gates(kind, np.concatenate([_folded(half), half.weight_hh_l0], axis=1), extra)
                for half in halves
            ]
            return self.constant(f"l{k}_R", np.stack(rows))
        # The product of two rounded factors is no float16 itself, so the runtime makes it, once,
        # when it folds its constants; the file holds the factors only.
        hidden, shape = halves[0].hidden_size, (len(halves), len(GATES[kind]), -1, extra)
        rows = [_gates(kind, half.weight_hh_l0) for half in halves]
        w_hh = self.weight(f"l{k}_R_h", np.stack(rows).reshape(shape))
        w_hr = self.weight(f"l{k}_hr", np.stack([_projection(half)[None] for half in halves]))
        folded = self.node("MatMul", [w_hh, w_hr], f"l{k}_R_m")
        r = self.node("Concat", [folded, w_hh], f"l{k}_R_units", axis=3)
        pads = self.integers(f"l{k}_R_pads", 0, 0, 0, 0, 0, 0, extra, 0)
        r = self.node("Pad", [r, pads], f"l{k}_R_all")
        units = hidden + extra
        shape_of_r = self.integers(f"l{k}_R_shape", shape[0], shape[1] * units, units)
        return self.node("Reshape", [r, shape_of_r], f"l{k}_R")

    def peepholes(self, k: int, halves: Halves) -> str:
        """P of an LSTM node, or nothing; a half that has none gets zeros where the other has."""
        found = [half.arrays.get("peephole_l0") for half in halves]
        if all(array is None for array in found):
            return ""
        extra, zeros = extra_units(halves), np.zeros(3 * halves[0].hidden_size, np.float32)
        rows = [
            _blocks(zeros if array is None else array, PEEPHOLES, len(PEEPHOLES), extra)
            for array in found
        ]
        return self.weight(f"l{k}_P", np.stack(rows))

    def widened(self, k: int, halves: Halves, before: list[str]) -> list[str]:
        """The states h (directions, batch, P) and c (.., H) for the H + P units of the node."""
        hidden, extra = halves[0].hidden_size, extra_units(halves)
        pads = {"h": (0, 0, hidden, 0, 0, 0), "c": (0, 0, 0, 0, 0, extra)}
        return [
            self.node("Pad", [state, self.integers(f"l{k}_{name}_pads", *places)], f"l{k}_{name}0")
            for state, (name, places) in zip(before, pads.items(), strict=True)
        ]

    def projected(self, k: int, halves: Halves, y: str, ends: list[str]) -> tuple[str, list[str]]:
        """The node's Y, Y_h and Y_c over H + P units as outputs, h (.., P) and c (.., H)."""
        h, c = ends
        eye = np.eye(extra_units(halves), dtype=np.float32)
        arrays = [np.concatenate([_projection(half).T, eye]) for half in halves]
        w_hr = self.weight(f"l{k}_out", np.stack(arrays) if len(halves) > 1 else arrays[0])
        if len(halves) > 1:
            # OpenCV 5.0 multiplies by the wrong values where a constant of three axes meets four;
            # what a node puts out it takes right, and other runtimes drop this one.
            w_hr = self.node("Identity", [w_hr], f"l{k}_out_of_each")
        first, last = self.integers("first", 0), self.integers(f"l{k}_H", halves[0].hidden_size)
        h = self.node("MatMul", [h, w_hr], f"{h}_projected")
        c = self.node("Slice", [c, first, last, self.integers("axis2", 2)], f"{c}_units")
        return self.node("MatMul", [y, w_hr], f"l{k}_projected"), [h, c]


def extra_units(halves: Halves) -> int:
    """The units that a projected layer has besides its H: as many as it puts out; else none."""
    projected = any("weight_hr_l0" in half.arrays for half in halves)
    return halves[0].output_size if projected else 0


def _projection(half: Any) -> Floats:
    """weight_hr_l0, (P, H); beside a half that has one as large as H, a half may have none."""
    if half.weight_hr_l0 is None:
        return np.eye(half.hidden_size, dtype=np.float32)
    return half.weight_hr_l0  # type: ignore[no-any-return]


def _folded(half: Any) -> Floats:
    """W_hh W_hr, (4H, H), in float64 and rounded once."""
    product = half.weight_hh_l0.astype(np.float64) @ _projection(half).astype(np.float64)
    return product.astype(np.float32)  # type: ignore[no-any-return]


def _gates(kind: str, array: Floats, extra: int = 0) -> Floats:
    """An array by gates (gates * H, ..) in ONNX's order, with rows of zeros for `extra` units."""
    return _blocks(array, GATES[kind], len(GATES[kind]), extra)


def _blocks(array: Floats, order: tuple[int, ...], count: int, extra: int) -> Floats:
    blocks = np.split(array, count)
    zeros = np.zeros((extra, *array.shape[1:]), np.float32)
    return np.concatenate([part for k in order for part in (blocks[k], zeros)])

"""LSTM, GRU and RNN layers as one ONNX node each, in one direction or both, never unrolled.

A projection, which ONNX's LSTM lacks, is folded into the weights of a plain LSTM node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastlstm.model import GRU, LSTM, RNN, Bidirectional

from .card import state_names
from .onnx_lengths import HOLD
from .onnx_nodes import LENGTHS
from .onnx_scan import ScanNodes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .onnx_scan import Names

    Floats = NDArray[np.float32]
    Halves: TypeAlias = tuple[LSTM | GRU | RNN, ...]

# Blocks of H rows in ONNX's gate order, as positions in PyTorch's: i o f c from i f g o; z r h
# from r z n. Peepholes: i o f from i f o.
GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
PEEPHOLES = (0, 2, 1)


class RecurrentNodes(ScanNodes):
    """The layers that carry a state.

    How a projection to P values is folded. With m = o * tanh(c) of size H, h is W_hr m, so the
    gates see W_hh h = (W_hh W_hr) m: a plain LSTM whose hidden state is m, and whose outputs W_hr
    takes to h behind it. What enters as h0 need not be W_hr of anything, so the node gets P units
    more, with no weights of their own and a cell state of 0: they hold h0 before the first step
    and o * tanh(0) = 0 after it, and the gates see them through W_hh itself.

    How lengths are heeded where a runtime passes over sequence_lens. Each direction is a forward
    node, the backward one over sequences turned round within their lengths. Its h after n steps is
    read off Y. The c of an LSTM is held from the end on: one further input is 1 there, and its
    weights shut the input gate and open the forget gate, so that c = 1 * c + 0 * g.
    """

    def recurrent(
        self, k: int, layer: LSTM | GRU | RNN | Bidirectional, x: str
    ) -> tuple[str, bool]:
        """Lay the layer down; its output, and whether that is (time, 1, batch, O)."""
        both = isinstance(layer, Bidirectional)
        halves = (layer.forward, layer.backward) if isinstance(layer, Bidirectional) else (layer,)
        names = [state_names(state) for state in self.model.states if state.layer == k]
        count = len(halves[0].state_names)
        states = [names[:count], names[count:]][: len(halves)]
        scanned = not self.bare and any("peephole_l0" in half.arrays for half in halves)
        if not (self.lengths or scanned):
            y = self.one_node(k, halves, x, states)
            if not both:
                return y, True
            y = self.node("Transpose", [y], f"l{k}_pairs", perm=[0, 2, 1, 3])
            shape = self.integers(f"l{k}_shape", 0, 0, layer.output_size)
            return self.node("Reshape", [y, shape], f"l{k}_h"), False
        found = []
        for end, half, own in zip(("", "_reverse"), halves, states, strict=False):
            if scanned and isinstance(half, LSTM):
                found.append(self.scanned(f"l{k}{end}", half, x, own))
            else:
                found.append(self.ending(f"l{k}{end}", half, x, own))
        if both:
            return self.node("Concat", found, f"l{k}_h", axis=2), False
        return found[0], False

    def one_node(self, k: int, halves: Halves, x: str, states: list[Names]) -> str:
        """One node for all directions: (time, directions, batch, O)."""
        before, after = (
            [[half[j][side] for half in states] for j in range(len(states[0]))] for side in (0, 1)
        )
        start = [self.joined(group) for group in before]
        ends = [f"{group[0]}_{'both' if len(halves) > 1 else 'found'}" for group in after]
        y, ends = self.recurrent_node(f"l{k}", halves, x, start, ends)
        for found, group in zip(ends, after, strict=True):
            self.parted(found, group)
        return y

    def ending(self, name: str, half: LSTM | GRU | RNN, x: str, states: Names) -> str:
        """One direction that heeds lengths: (time, batch, O), anything after the ends."""
        backward = name.endswith("_reverse")
        if backward:
            x = self.mirrored(x, f"{name}_x")
        if isinstance(half, LSTM):
            x = self.node("Concat", [x, self.over], f"{name}_x_over", axis=2)
        before = [self.joined([given]) for given, _ in states]
        # Nobody takes the node's own h, but OpenCV computes nothing where it has no name.
        ends = [f"{after}_found" for _, after in states]
        y, ends = self.recurrent_node(name, (half,), x, before, ends)
        y = self.node("Squeeze", [y, self.integers("axis1", 1)], f"{name}_steps")
        after = states[0][1]
        self.ended(self.node("Concat", [before[0], y], f"{after}_all", axis=0), after)
        if isinstance(half, LSTM):
            after = states[1][1]
            self.parted(self.kept(ends[1], before[1], f"{after}_kept"), [after])
        return self.mirrored(y, f"{name}_h") if backward else y

    def recurrent_node(
        self, name: str, halves: Halves, x: str, before: list[str], ends: list[str]
    ) -> tuple[str, list[str]]:
        """Y and the final states of these names of one node, from states (directions, batch, H)."""
        first, extra = halves[0], extra_units(halves)
        attributes: dict[str, Any] = {"hidden_size": first.hidden_size + extra}
        if len(halves) > 1:
            attributes["direction"] = "bidirectional"
        if isinstance(first, GRU):
            attributes["linear_before_reset"] = int(first.reset == "after")
        if isinstance(first, RNN) and first.nonlinearity == "relu":
            attributes["activations"] = ["Relu"] * len(halves)
        start = self.widened(name, halves, before) if extra else before
        lengths = LENGTHS if self.lengths else ""
        inputs = [x, *self.weights(name, halves), lengths, *start, self.peepholes(name, halves)]
        while not inputs[-1]:
            inputs.pop()
        y = self.node(first.kind, inputs, [f"{name}_y", *ends], **attributes)
        return self.projected(name, halves, y, ends) if extra else (y, ends)

    def difference(self, k: int, x: str) -> str:
        """What changed in x (time, batch, size) since the step before; its end is the new state."""
        before, after = next(state_names(s) for s in self.model.states if s.layer == k)
        first, last, axis = (
            self.integers(name, value)
            for name, value in {"first": 0, "last": -1, "axis0": 0}.items()
        )
        given = self.joined([before])
        # The state goes in front, so that a run of no steps hands it on.
        x_after = self.node("Concat", [given, x], f"l{k}_after", axis=0)
        if self.lengths:
            self.ended(x_after, after)
        else:
            end = self.integers("end", np.iinfo(np.int64).max)
            self.parted(self.node("Slice", [x_after, last, end, axis], f"{after}_last"), [after])
        x_before = self.node("Slice", [x_after, first, last, axis], f"l{k}_before")
        return self.node("Sub", [x, x_before], f"l{k}_difference")

    def weights(self, name: str, halves: Halves) -> list[str]:
        """W, R and B of a node; a half that has no bias gets zeros where the other has one."""
        extra = extra_units(halves)

        def gates(array: Any) -> Floats:
            return _gates(halves[0].kind, array, extra)[None]

        w = self.weight(f"{name}_W", np.concatenate([gates(half.weight_ih_l0) for half in halves]))
        if self.lengths and halves[0].kind == "LSTM":
            w = self.holding(name, w, gates(np.repeat(HOLD, halves[0].hidden_size))[..., None])
        names = [w, self.hidden_weights(name, halves)]
        if all(half.bias_ih_l0 is None for half in halves):
            return [*names, ""]
        zeros = np.zeros(len(halves[0].weight_ih_l0), np.float32)
        biases = [
            [gates(zeros if bias is None else bias) for bias in (half.bias_ih_l0, half.bias_hh_l0)]
            for half in halves
        ]
        rows = np.concatenate([np.concatenate(pair, axis=1) for pair in biases])
        return [*names, self.weight(f"{name}_B", rows)]

    def hidden_weights(self, name: str, halves: Halves) -> str:
        """R of a node."""
        extra, kind = extra_units(halves), halves[0].kind
        if not extra:
            return self.weight(
                f"{name}_R", np.stack([_gates(kind, h.weight_hh_l0) for h in halves])
            )
        if not self.half:
            rows = [
                _gates(kind, np.concatenate([_folded(half), half.weight_hh_l0], axis=1), extra)
                for half in halves
            ]
            return self.constant(f"{name}_R", np.stack(rows))
        # The product of two rounded factors is no float16 itself, so the runtime makes it, once,
        # when it folds its constants; the file holds the factors only.
        hidden, shape = halves[0].hidden_size, (len(halves), len(GATES[kind]), -1, extra)
        rows = [_gates(kind, half.weight_hh_l0) for half in halves]
        w_hh = self.weight(f"{name}_R_h", np.stack(rows).reshape(shape))
        w_hr = self.weight(f"{name}_hr", np.stack([_projection(half)[None] for half in halves]))
        folded = self.node("MatMul", [w_hh, w_hr], f"{name}_R_m")
        r = self.node("Concat", [folded, w_hh], f"{name}_R_units", axis=3)
        pads = self.integers(f"{name}_R_pads", 0, 0, 0, 0, 0, 0, extra, 0)
        r = self.node("Pad", [r, pads], f"{name}_R_all")
        units = hidden + extra
        shape_of_r = self.integers(f"{name}_R_shape", shape[0], shape[1] * units, units)
        return self.node("Reshape", [r, shape_of_r], f"{name}_R")

    def peepholes(self, name: str, halves: Halves) -> str:
        """P of an LSTM node, or nothing; a half that has none gets zeros where the other has."""
        found = [half.arrays.get("peephole_l0") for half in halves]
        if all(array is None for array in found):
            return ""
        extra, zeros = extra_units(halves), np.zeros(3 * halves[0].hidden_size, np.float32)
        rows = [
            _blocks(zeros if array is None else array, PEEPHOLES, len(PEEPHOLES), extra)
            for array in found
        ]
        return self.weight(f"{name}_P", np.stack(rows))

    def widened(self, name: str, halves: Halves, before: list[str]) -> list[str]:
        """The states h (directions, batch, P) and c (.., H) for the H + P units of the node."""
        hidden, extra = halves[0].hidden_size, extra_units(halves)
        pads = {"h": (0, 0, hidden, 0, 0, 0), "c": (0, 0, 0, 0, 0, extra)}
        return [
            self.node(
                "Pad", [state, self.integers(f"{name}_{vector}_pads", *places)], f"{name}_{vector}0"
            )
            for state, (vector, places) in zip(before, pads.items(), strict=True)
        ]

    def projected(
        self, name: str, halves: Halves, y: str, ends: list[str]
    ) -> tuple[str, list[str]]:
        """The node's Y, Y_h and Y_c over H + P units as outputs, h (.., P) and c (.., H)."""
        h, c = ends
        eye = np.eye(extra_units(halves), dtype=np.float32)
        arrays = [np.concatenate([_projection(half).T, eye]) for half in halves]
        w_hr = self.weight(f"{name}_out", np.stack(arrays) if len(halves) > 1 else arrays[0])
        if len(halves) > 1:
            # OpenCV 5.0 multiplies by the wrong values where a constant of three axes meets four;
            # what a node puts out it takes right, and other runtimes drop this one.
            w_hr = self.node("Identity", [w_hr], f"{name}_out_of_each")
        first, last = self.integers("first", 0), self.integers(f"{name}_H", halves[0].hidden_size)
        if not self.lengths:  # else it is read off Y
            h = self.node("MatMul", [h, w_hr], f"{h}_projected")
        c = self.node("Slice", [c, first, last, self.integers("axis2", 2)], f"{c}_units")
        return self.node("MatMul", [y, w_hr], f"{name}_projected"), [h, c]


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

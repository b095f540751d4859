"""The recurrent layers of a Model: LSTM, GRU and RNN, in one direction or both.

Gate order along the first axis of every weight: LSTM `i f g o`, GRU `r z n`.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from fastlstm.base_layer import Array, BaseLayer, StateVector, two_sizes
from fastlstm.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

NONLINEARITIES = ("tanh", "relu")
RESETS = ("after", "before")


class _Recurrent(BaseLayer):
    """What LSTM, GRU and RNN share: two weights, two biases, a hidden state."""

    gates: ClassVar[int]
    state_names: ClassVar[tuple[str, ...]] = ("h",)

    if TYPE_CHECKING:
        weight_ih_l0: Array
        weight_hh_l0: Array
        bias_ih_l0: Array | None
        bias_hh_l0: Array | None

    def __post_init__(self) -> None:
        rows, inputs = two_sizes(self.kind, "weight_ih_l0", self.weight_ih_l0)
        if rows % self.gates:
            raise ModelError(
                f"{self.kind}.weight_ih_l0: expected a number of rows divisible by the "
                f"{self.gates} gates, found shape {(rows, inputs)}"
            )
        self._adopt("weight_ih_l0", (rows, inputs))
        self._adopt_others(rows // self.gates)
        self._adopt("weight_hh_l0", (rows, self.output_size))
        if (self.bias_ih_l0 is None) != (self.bias_hh_l0 is None):
            raise ModelError(
                f"{self.kind}: expected both of bias_ih_l0 and bias_hh_l0 or neither, as in "
                "PyTorch; found one: give zeros for the other"
            )
        self._adopt("bias_ih_l0", (rows,))
        self._adopt("bias_hh_l0", (rows,))
        for name in self.state_names:
            self._adopt(f"{name}0", (self._size_of(name),))

    def _adopt_others(self, hidden: int) -> None:
        """Check the arrays that only this kind of layer has, before those that follow from them."""

    def _size_of(self, state: str) -> int:
        return self.output_size if state == "h" else self.hidden_size

    @property
    def input_size(self) -> int:
        return int(self.weight_ih_l0.shape[1])

    @property
    def hidden_size(self) -> int:
        """Units of the layer, each with its gates."""
        return int(self.weight_ih_l0.shape[0]) // self.gates

    @property
    def output_size(self) -> int:
        return self.hidden_size

    @property
    def states(self) -> tuple[StateVector, ...]:
        found = []
        for name in self.state_names:
            learned: Array | None = getattr(self, f"{name}0")
            zeros = np.zeros(self._size_of(name), np.float32)
            found.append(StateVector(name, zeros if learned is None else learned))
        return tuple(found)


@dataclass(frozen=True, eq=False, repr=False)
class LSTM(_Recurrent):
    """One LSTM layer as `torch.nn.LSTM` defines it, with H = hidden_size and I = input_size.

    weight_ih_l0: (4H, I), weight_hh_l0: (4H, H), bias_ih_l0 and bias_hh_l0: (4H,) or both None,
    rows in gate order i f g o. h0 and c0: (H,), the learned initial state, zeros if None.

    weight_hr_l0: (P, H), a projection as PyTorch's proj_size has it: the output and h are
    weight_hr_l0 @ (o * tanh(c)), so weight_hh_l0 is (4H, P) and h0 (P,); c stays (H,).
    peephole_l0: (3H,) in the order i f o, as ONNX's P has it (there i o f): i and f see the old
    cell state through it, o the new one.
    """

    gates: ClassVar[int] = 4
    state_names: ClassVar[tuple[str, ...]] = ("h", "c")

    weight_ih_l0: Array
    weight_hh_l0: Array
    bias_ih_l0: Array | None = None
    bias_hh_l0: Array | None = None
    h0: Array | None = None
    c0: Array | None = None
    weight_hr_l0: Array | None = None
    peephole_l0: Array | None = None

    def _adopt_others(self, hidden: int) -> None:
        if self.weight_hr_l0 is not None:
            projected, _ = two_sizes(self.kind, "weight_hr_l0", self.weight_hr_l0)
            self._adopt("weight_hr_l0", (projected, hidden))
        self._adopt("peephole_l0", (3 * hidden,))

    @property
    def output_size(self) -> int:
        """The projection's size where there is one, else hidden_size."""
        if self.weight_hr_l0 is None:
            return self.hidden_size
        return int(self.weight_hr_l0.shape[0])


@dataclass(frozen=True, eq=False, repr=False)
class GRU(_Recurrent):
    """One GRU layer with H = hidden_size and I = input_size.

    weight_ih_l0: (3H, I), weight_hh_l0: (3H, H), bias_ih_l0 and bias_hh_l0: (3H,) or both None,
    rows in gate order r z n. h0: (H,), the learned initial state, zeros if None.

    reset: where the reset gate acts. "after" the matrix product, as in `torch.nn.GRU`:
    n = tanh(W_in x + b_in + r * (W_hn h + b_hn)). "before" it, as in the paper that introduced the
    GRU (Cho et al. 2014): n = tanh(W_in x + b_in + W_hn (r * h) + b_hn).
    """

    gates: ClassVar[int] = 3

    weight_ih_l0: Array
    weight_hh_l0: Array
    bias_ih_l0: Array | None = None
    bias_hh_l0: Array | None = None
    h0: Array | None = None
    reset: str = "after"

    def __post_init__(self) -> None:
        self._check_choice("reset", RESETS)
        super().__post_init__()


@dataclass(frozen=True, eq=False, repr=False)
class RNN(_Recurrent):
    """One Elman layer as `torch.nn.RNN` defines it, with nonlinearity "tanh" or "relu".

    weight_ih_l0: (H, I), weight_hh_l0: (H, H), bias_ih_l0 and bias_hh_l0: (H,) or both None.
    h0: (H,), the learned initial state, zeros if None.
    """

    gates: ClassVar[int] = 1

    weight_ih_l0: Array
    weight_hh_l0: Array
    bias_ih_l0: Array | None = None
    bias_hh_l0: Array | None = None
    h0: Array | None = None
    nonlinearity: str = "tanh"

    def __post_init__(self) -> None:
        self._check_choice("nonlinearity", NONLINEARITIES)
        super().__post_init__()


REVERSE = "_reverse"


@dataclass(frozen=True, eq=False, repr=False)
class Bidirectional(BaseLayer):
    """Two recurrent layers over the same sequence, the second from its end to its beginning.

    At each step the output is forward's followed by backward's, as PyTorch's `bidirectional=True`
    has it. Both are of one kind, one input size, one hidden size and the same settings; the arrays
    of `backward` have `_reverse` after their names. Needs the whole sequence: no live stream.
    """

    forward: LSTM | GRU | RNN
    backward: LSTM | GRU | RNN

    def __post_init__(self) -> None:
        for name, layer in (("forward", self.forward), ("backward", self.backward)):
            if type(layer) not in (LSTM, GRU, RNN):
                raise ModelError(
                    f"Bidirectional.{name}: expected an LSTM, GRU or RNN layer, "
                    f"found {type(layer).__name__}"
                )
        forward, backward = (
            (repr(layer), f"hidden_size {layer.hidden_size}")
            for layer in (self.forward, self.backward)
        )
        if forward != backward:
            raise ModelError(
                f"Bidirectional.backward: expected a layer like forward, {', '.join(forward)}, "
                f"found {', '.join(backward)}"
            )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], cell: str, **options: Any) -> Bidirectional:
        """The layer whose `arrays` and `options` these are; raises TypeError for unknown names."""
        if not isinstance(cell, str) or cell not in CELLS:
            raise ModelError(
                f"Bidirectional.cell: expected one of {', '.join(CELLS)}, found {cell!r}"
            )
        halves: tuple[dict[str, Any], dict[str, Any]] = {}, {}
        for name, array in arrays.items():
            halves[name.endswith(REVERSE)][name.removesuffix(REVERSE)] = array
        make: Any = CELLS[cell]
        return cls(*(make(**half, **options) for half in halves))

    @property
    def cell(self) -> str:
        """The kind of both layers: LSTM, GRU or RNN."""
        return self.forward.kind

    @property
    def input_size(self) -> int:
        return self.forward.input_size

    @property
    def hidden_size(self) -> int:
        """Units of each of the two layers."""
        return self.forward.hidden_size

    @property
    def output_size(self) -> int:
        return 2 * self.forward.output_size

    @property
    def arrays(self) -> dict[str, Array]:
        reverse = {name + REVERSE: array for name, array in self.backward.arrays.items()}
        return {**self.forward.arrays, **reverse}

    @property
    def states(self) -> tuple[StateVector, ...]:
        reverse = (StateVector(s.name + REVERSE, s.initial) for s in self.backward.states)
        return (*self.forward.states, *reverse)

    @property
    def options(self) -> dict[str, Any]:
        return {"cell": self.cell, **self.forward.options}


Recurrent: TypeAlias = LSTM | GRU | RNN
CELLS: Mapping[str, type[Recurrent]] = MappingProxyType({"LSTM": LSTM, "GRU": GRU, "RNN": RNN})

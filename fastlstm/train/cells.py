"""The recurrent layers of the twin: torch's own where it has them, else loops in plain operations.

All hold one layer, in one direction or both, under the names of torch's parameters, and carry
their state as flat (batch, size) tensors in the order of Model.states.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from fastlstm.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

States: TypeAlias = tuple[Tensor, ...]
REVERSE = "_reverse"


class Recurrent(nn.Module):
    """What all recurrent layers share: how large their state is, and where it begins."""

    kind: str
    vectors: tuple[str, ...] = ("h",)

    if TYPE_CHECKING:
        input_size: int
        hidden_size: int
        proj_size: int
        bias: bool
        bidirectional: bool

    @property
    def directions(self) -> tuple[str, ...]:
        """What follows the parameter names of each direction."""
        return ("", REVERSE) if self.bidirectional else ("",)

    @property
    def state_count(self) -> int:
        """How many state vectors there are, those of both directions."""
        return 2 * len(self.vectors) if self.bidirectional else len(self.vectors)

    @property
    def output_size(self) -> int:
        """Values that come out at each step."""
        return len(self.directions) * (self.proj_size or self.hidden_size)

    def state_sizes(self) -> Iterator[tuple[str, int]]:
        """The name of each state vector's learned beginning, such as "h0_reverse", and its size."""
        for direction in self.directions:
            for name in self.vectors:
                size = self.proj_size if name == "h" else 0
                yield f"{name}0{direction}", size or self.hidden_size

    def learn_initial_state(self) -> None:
        """Make the initial state a parameter: h0 (and c0), zeros to begin with."""
        for name, size in self.state_sizes():
            self.register_parameter(name, nn.Parameter(torch.zeros(size)))

    def initial(self, x: Tensor, rows: int) -> States:
        """The state before the first step of so many sequences, on the device of x."""
        states = []
        for name, size in self.state_sizes():
            learned: Tensor | None = getattr(self, name, None)
            if learned is None:
                learned = x.new_zeros(())
            states.append(learned.expand(rows, size))
        return tuple(states)


class _Library(Recurrent, nn.RNNBase):
    """A layer that torch has, and that a GPU runs on cuDNN."""

    def weights(self) -> list[Tensor]:
        """The layer's weights in the one order that torch.lstm and its kin take."""
        return [weight for weight in self._flat_weights if weight is not None]

    def settings(self) -> tuple[bool, int, float, bool, bool, bool]:
        """The trailing arguments that torch.lstm, torch.gru and torch.rnn_* share."""
        return self.bias, 1, 0.0, self.training, self.bidirectional, True

    def stacked(self, state: States) -> list[Tensor]:
        """For each kind of vector (directions, batch, size), as torch takes it."""
        if not self.bidirectional:
            return [vector.unsqueeze(0).contiguous() for vector in state]
        count = len(self.vectors)
        return [torch.stack(state[k::count]) for k in range(count)]

    def flat(self, *states: Tensor) -> States:
        """The state as torch returns it -> (batch, size) tensors, forward's before backward's."""
        if not self.bidirectional:
            # A list is quicker to make than a generator, and a live stream does this every step.
            return tuple([vector.squeeze(0) for vector in states])
        return tuple(vector[k] for k in range(2) for vector in states)


class LSTM(_Library, nn.LSTM):
    """nn.LSTM; with proj_size too, which must be below hidden_size here."""

    kind, vectors = "LSTM", ("h", "c")

    def __init__(self, *sizes: int, **options: Any) -> None:
        """As nn.LSTM."""
        super().__init__(*sizes, **options)
        if self.proj_size:
            _let_torch_warn()

    def forward(self, x: Tensor, state: States) -> tuple[Tensor, States]:  # type: ignore[override]
        """Over x (batch, time, I), from h (batch, P or H) and c (batch, H): y, new h and c."""
        y, h, c = torch.lstm(x, self.stacked(state), self.weights(), *self.settings())
        return y, self.flat(h, c)

    def packed(self, x: Tensor, state: States, sizes: Tensor) -> tuple[Tensor, States]:
        """Over x (values, I), packed sequences: y (values, P or H), new h and c."""
        hx, weights = self.stacked(state), self.weights()
        y, h, c = torch.lstm(x, sizes, hx, weights, *self.settings()[:-1])
        return y, self.flat(h, c)


class GRU(_Library, nn.GRU):
    """nn.GRU, whose reset gate acts after the matrix product."""

    kind, reset = "GRU", "after"

    def forward(self, x: Tensor, state: States) -> tuple[Tensor, States]:  # type: ignore[override]
        """Over x (batch, time, I), from h (batch, H): y (batch, time, H), new h."""
        y, h = torch.gru(x, self.stacked(state)[0], self.weights(), *self.settings())
        return y, self.flat(h)

    def packed(self, x: Tensor, state: States, sizes: Tensor) -> tuple[Tensor, States]:
        """Over x (values, I), packed sequences: y (values, H), new h."""
        hx, weights = self.stacked(state)[0], self.weights()
        y, h = torch.gru(x, sizes, hx, weights, *self.settings()[:-1])
        return y, self.flat(h)


class RNN(_Library, nn.RNN):
    """nn.RNN."""

    kind = "RNN"

    def forward(self, x: Tensor, state: States) -> tuple[Tensor, States]:  # type: ignore[override]
        """Over x (batch, time, I), from h (batch, H): y (batch, time, H), new h."""
        run = torch.rnn_relu if self.nonlinearity == "relu" else torch.rnn_tanh
        y, h = run(x, self.stacked(state)[0], self.weights(), *self.settings())
        return y, self.flat(h)

    def packed(self, x: Tensor, state: States, sizes: Tensor) -> tuple[Tensor, States]:
        """Over x (values, I), packed sequences: y (values, H), new h."""
        run = torch.rnn_relu if self.nonlinearity == "relu" else torch.rnn_tanh
        y, h = run(x, sizes, self.stacked(state)[0], self.weights(), *self.settings()[:-1])
        return y, self.flat(h)


class Looped(Recurrent, ABC):
    """A layer that torch lacks: a loop over time in plain operations, so slower than the library's.

    With its gradient, on one CPU thread at hidden sizes 16 and 64: 1.2 to 1.3 times nn.GRU's time,
    and 4 to 14 times that of nn.LSTM, which has oneDNN there.
    """

    gates: int

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        proj_size: int = 0,
        bidirectional: bool = False,
    ) -> None:
        """Random weights as nn.LSTM and nn.GRU draw them: uniform within 1 / sqrt(hidden_size)."""
        super().__init__()
        self.input_size, self.hidden_size, self.proj_size = input_size, hidden_size, proj_size
        self.bias, self.bidirectional = bias, bidirectional
        limit = hidden_size**-0.5
        for direction in self.directions:
            for name, shape in self.shapes().items():
                weight = torch.empty(shape).uniform_(-limit, limit)
                self.register_parameter(name + direction, nn.Parameter(weight))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The parameters of one direction."""
        rows, outputs = self.gates * self.hidden_size, self.proj_size or self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih_l0": (rows, self.input_size),
            "weight_hh_l0": (rows, outputs),
        }
        if self.bias:
            shapes |= {"bias_ih_l0": (rows,), "bias_hh_l0": (rows,)}
        return shapes

    def from_inputs(self, x: Tensor, direction: str) -> Tensor:
        """What the inputs give to the gates at all steps at once, with both biases."""
        bias = None
        if self.bias:
            bias = getattr(self, f"bias_ih_l0{direction}") + getattr(self, f"bias_hh_l0{direction}")
        return nn.functional.linear(x, getattr(self, f"weight_ih_l0{direction}"), bias)

    def forward(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        """Over x (batch, time, I), from state (batch, size): y (batch, time, O), new state.

        A state for the backward direction starts it at the end of x.
        """
        count = len(self.vectors)
        y, after = self.one_way(x, state[:count], "")
        if not self.bidirectional:
            return y, after
        reverse, last = self.one_way(x.flip(1), state[count:], REVERSE)
        return torch.cat([y, reverse.flip(1)], 2), (*after, *last)

    def packed(self, x: Tensor, state: States, sizes: Tensor) -> tuple[Tensor, States]:
        """Over x (values, I), packed sequences, from state (batch, size): y (values, O).

        The state comes back as it is after each sequence's own last step.
        """
        if self.bidirectional:
            raise ModelError(
                f"{self.kind}: expected one direction for packed sequences, found both: nothing "
                "trains such a layer on sequences of several lengths; pad them to one length"
            )
        ended: list[States] = []
        outputs: list[Tensor] = []
        counts = sizes.tolist()
        for step, z in zip(counts, x.split(counts), strict=True):
            ended.append(tuple(vector[step:] for vector in state))
            y, state = self.one_way(z.unsqueeze(1), tuple(v[:step] for v in state), "")
            outputs.append(y[:, 0])
        ended.append(state)
        # The shortest sequences, which end first, are the last of the batch.
        after = tuple(torch.cat(vectors) for vectors in zip(*reversed(ended), strict=True))
        return torch.cat(outputs), after

    @abstractmethod
    def one_way(self, x: Tensor, state: States, direction: str) -> tuple[Tensor, States]:
        """One direction, over x in its own order of time."""


class LoopedLSTM(Looped):
    """An LSTM with peepholes, or with a projection that is not below hidden_size."""

    kind, vectors, gates = "LSTM", ("h", "c"), 4

    def __init__(
        self, input_size: int, hidden_size: int, *, peephole: bool = False, **options: Any
    ) -> None:
        """As Looped, and `peephole`."""
        self.peephole = peephole
        super().__init__(input_size, hidden_size, **options)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The parameters of one direction."""
        shapes = super().shapes()
        if self.proj_size:
            shapes["weight_hr_l0"] = (self.proj_size, self.hidden_size)
        if self.peephole:
            shapes["peephole_l0"] = (3 * self.hidden_size,)
        return shapes

    def one_way(self, x: Tensor, state: States, direction: str) -> tuple[Tensor, States]:
        """One direction, over x in its own order of time."""
        h, c = state
        y, h, c = _lstm_loop(
            self.from_inputs(x, direction),
            h,
            c,
            getattr(self, f"weight_hh_l0{direction}"),
            getattr(self, f"weight_hr_l0{direction}", None),
            getattr(self, f"peephole_l0{direction}", None),
        )
        return y, (h, c)


class LoopedGRU(Looped):
    """A GRU whose reset gate acts before the matrix product."""

    kind, gates, reset = "GRU", 3, "before"

    def one_way(self, x: Tensor, state: States, direction: str) -> tuple[Tensor, States]:
        """One direction, over x in its own order of time."""
        w_hh = getattr(self, f"weight_hh_l0{direction}")
        y, h = _gru_loop(self.from_inputs(x, direction), state[0], w_hh)
        return y, (h,)


@cache
def _let_torch_warn() -> None:
    """Hear out, unseen, what torch warns of once in a process: oneDNN knows no projections.

    Its own implementation steps in, so there is nothing that a user could do about it.
    """
    x, h, c = (torch.zeros(1, 1, n, dtype=torch.float32, device="cpu") for n in (1, 1, 2))
    weights = [torch.zeros(s, dtype=torch.float32, device="cpu") for s in ((8, 1), (8, 1), (1, 2))]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", "LSTM with projections", UserWarning)
        torch.lstm(x, [h, c], weights, False, 1, 0.0, False, False, True)


# A trace would write the loop out for the length of its example; compiled, it takes any.
@torch.jit.script_if_tracing  # type: ignore[untyped-decorator]
def _lstm_loop(
    z_x: Tensor, h: Tensor, c: Tensor, w_hh: Tensor, w_hr: Tensor | None, peephole: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Over z_x (batch, time, 4H), what the inputs give to the gates: y, the last h and c."""
    outputs: list[Tensor] = []
    for z in z_x.unbind(1):
        i, f, g, o = (z + torch.matmul(h, w_hh.t())).chunk(4, 1)
        if peephole is not None:
            p_i, p_f, p_o = peephole.chunk(3)
            c = torch.sigmoid(f + p_f * c) * c + torch.sigmoid(i + p_i * c) * torch.tanh(g)
            o = o + p_o * c
        else:
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        if w_hr is not None:
            h = torch.matmul(h, w_hr.t())
        outputs.append(h)
    return torch.stack(outputs, 1), h, c


@torch.jit.script_if_tracing  # type: ignore[untyped-decorator]
def _gru_loop(z_x: Tensor, h: Tensor, w_hh: Tensor) -> tuple[Tensor, Tensor]:
    """Over z_x (batch, time, 3H), what the inputs give to the gates: y and the last h."""
    hidden = h.size(1)
    w_rz, w_n = w_hh[: 2 * hidden], w_hh[2 * hidden :]
    outputs: list[Tensor] = []
    for z in z_x.unbind(1):
        r, s = torch.sigmoid(z[:, : 2 * hidden] + torch.matmul(h, w_rz.t())).chunk(2, 1)
        n = torch.tanh(z[:, 2 * hidden :] + torch.matmul(r * h, w_n.t()))
        h = (1 - s) * n + s * h
        outputs.append(h)
    return torch.stack(outputs, 1), h

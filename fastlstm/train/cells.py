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
from fastlstm.train.plain_recurrences import gru_loop, lstm_loop
from fastlstm.train.recurrences import GRULoop, LSTMLoop

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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

        def packed(self, x: Tensor, state: States, sizes: Tensor) -> tuple[Tensor, States]:
            """Over x (values, I), packed, from state (batch, size): y (values, O), new state."""

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
    """A layer that torch lacks: a loop over time, so slower than the library's LSTM.

    With its gradient, on one CPU thread at hidden sizes 32 and 64: 0.5 to 0.6 times nn.GRU's time,
    and 3 times that of nn.LSTM, which has oneDNN there.
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
        weight = getattr(self, f"weight_ih_l0{direction}")
        return nn.functional.linear(x, weight, self.both_biases(direction))

    def both_biases(self, direction: str) -> Tensor | None:
        """The sum of the biases, whose gradients are one."""
        if not self.bias:
            return None
        b_ih: Tensor = getattr(self, f"bias_ih_l0{direction}")
        b_hh: Tensor = getattr(self, f"bias_hh_l0{direction}")
        return b_ih + b_hh

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
        return self.run(x, state, sizes.tolist(), "")

    def one_way(self, x: Tensor, state: States, direction: str) -> tuple[Tensor, States]:
        """One direction, over x in its own order of time."""
        if torch.jit.is_tracing() or torch.compiler.is_compiling():  # type: ignore[no-untyped-call,attr-defined]
            return self.plain(x, state, direction)
        batch, time, inputs = x.shape
        if time == 1:  # a live stream: 30 us a step, 70 with all that whole sequences gain by
            return self.plain(x, state, direction)
        flat = x.transpose(0, 1).reshape(time * batch, inputs)
        y, after = self.run(flat, state, (batch,) * time, direction)
        return y.view(time, batch, y.size(1)).transpose(0, 1), after

    def run(
        self, x: Tensor, state: States, sizes: Sequence[int], direction: str
    ) -> tuple[Tensor, States]:
        """One direction over packed sequences, of which `sizes` run at each step."""
        w_ih = getattr(self, f"weight_ih_l0{direction}")
        bias, w_hh = self.both_biases(direction), getattr(self, f"weight_hh_l0{direction}")
        if not torch.is_autocast_enabled(x.device.type):
            return self.loop(x, state, (w_ih, bias, w_hh), sizes, direction)
        # Written by hand, the loop has no casts of its own: it runs in the weights' precision.
        with torch.autocast(x.device.type, enabled=False):
            x, *vectors = (value.to(w_hh.dtype) for value in (x, *state))
            return self.loop(x, tuple(vectors), (w_ih, bias, w_hh), sizes, direction)

    @abstractmethod
    def loop(
        self,
        x: Tensor,
        state: States,
        weights: tuple[Tensor | None, ...],
        sizes: Sequence[int],
        direction: str,
    ) -> tuple[Tensor, States]:
        """As `run`, with w_ih, the sum of the biases, and w_hh."""

    @abstractmethod
    def plain(self, x: Tensor, state: States, direction: str) -> tuple[Tensor, States]:
        """As `one_way`, in operations that a trace or a compiler can follow."""


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

    def loop(
        self,
        x: Tensor,
        state: States,
        weights: tuple[Tensor | None, ...],
        sizes: Sequence[int],
        direction: str,
    ) -> tuple[Tensor, States]:
        """As `run`, with w_ih, the sum of the biases, and w_hh."""
        y, h, c = LSTMLoop.apply(x, *state, *weights, *self.others(direction), sizes)  # type: ignore[no-untyped-call]
        return y, (h, c)

    def plain(self, x: Tensor, state: States, direction: str) -> tuple[Tensor, States]:
        """As `one_way`, in operations that a trace or a compiler can follow."""
        z, w_hh = self.from_inputs(x, direction), getattr(self, f"weight_hh_l0{direction}")
        y, h, c = lstm_loop(z, *state, w_hh, *self.others(direction))
        return y, (h, c)

    def others(self, direction: str) -> tuple[Tensor | None, Tensor | None]:
        """The projection and the peepholes, None where there are none."""
        w_hr: Tensor | None = getattr(self, f"weight_hr_l0{direction}", None)
        peephole: Tensor | None = getattr(self, f"peephole_l0{direction}", None)
        return w_hr, peephole


class LoopedGRU(Looped):
    """A GRU whose reset gate acts before the matrix product."""

    kind, gates, reset = "GRU", 3, "before"

    def loop(
        self,
        x: Tensor,
        state: States,
        weights: tuple[Tensor | None, ...],
        sizes: Sequence[int],
        direction: str,
    ) -> tuple[Tensor, States]:
        """As `run`, with w_ih, the sum of the biases, and w_hh."""
        y, h = GRULoop.apply(x, *state, *weights, sizes)  # type: ignore[no-untyped-call]
        return y, (h,)

    def plain(self, x: Tensor, state: States, direction: str) -> tuple[Tensor, States]:
        """As `one_way`, in operations that a trace or a compiler can follow."""
        w_hh = getattr(self, f"weight_hh_l0{direction}")
        y, h = gru_loop(self.from_inputs(x, direction), state[0], w_hh)
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

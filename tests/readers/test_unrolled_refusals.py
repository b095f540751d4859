"""What is nearly a cell is refused with the reason, never read as one."""

import pytest

from fastlstm.errors import ReaderError
from fastlstm.readers.unrolled import rolled

torch = pytest.importorskip("torch", reason="torch is not installed")

import cells_by_hand as by_hand  # noqa: E402  after the skip
from exported import traced  # noqa: E402

nn = torch.nn


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    torch.manual_seed(0)


def read(module, keep):
    return rolled(traced(module, by_hand.INPUTS, time=by_hand.STEPS, keep=keep)[0], "the output")


def refusal(module, *, keep=False):
    with pytest.raises(ReaderError) as caught:
        read(module, keep)
    return str(caught.value)


class Lstm(by_hand.TwoLinears):
    """An LSTM with one thing about it otherwise; `fault` is a method of this class."""

    def __init__(self, fault):
        super().__init__()
        self.fault = getattr(type(self), fault)
        self.other, self.head = nn.Linear(by_hand.INPUTS, 16), nn.Linear(by_hand.HIDDEN, 3)
        self.another, self.norm = nn.Linear(by_hand.HIDDEN, 16), nn.LayerNorm(by_hand.HIDDEN)
        self.shift = nn.Parameter(torch.randn(16))

    def step(self, x, h, c):
        return self.fault(self, x, h, c)

    def gates(self, gates, c, sigmoid=torch.sigmoid, sign=1, tanh=torch.tanh):
        i, f, g, o = gates.chunk(4, -1)
        c = torch.sigmoid(f) * c + sign * (sigmoid(i) * torch.tanh(g))
        return torch.sigmoid(o) * tanh(c), c

    def cell(self, x, h, c, **options):
        return self.gates(self.w(x) + self.u(h), c, **options)

    def other_weights_in_one_step(self, x, h, c):
        return self.gates((self.other if self.t == 1 else self.w)(x) + self.u(h), c)

    def other_weights_in_the_last_step(self, x, h, c):
        last = self.t == by_hand.STEPS - 1
        return self.gates((self.other if last else self.w)(x) + self.u(h), c)

    def other_weights_in_the_first_step(self, x, h, c):
        return self.gates((self.w if self.t else self.other)(x) + self.u(h), c)

    def other_recurrent_weights_in_one_step(self, x, h, c):
        return self.gates(self.w(x) + (self.another if self.t == 1 else self.u)(h), c)

    def another_bias_in_one_step(self, x, h, c):
        u = self.u.bias if self.t != 1 else self.shift
        return self.gates(self.w(x) + (h @ self.u.weight.T + u), c)

    def another_bias_in_the_first_step(self, x, h, c):
        u = self.u.bias if self.t else self.shift
        return self.gates(self.w(x) + (h @ self.u.weight.T + u), c)

    def three_biases(self, x, h, c):
        return self.gates(self.w(x) + self.u(h) + self.shift, c)

    def inputs_in_another_order_in_one_step(self, x, h, c):
        return self.cell(x.flip(-1) if self.t == 1 else x, h, c)

    def h_in_another_order(self, x, h, c):
        return self.cell(x, h.flip(-1) if self.t == 1 else h, c)

    def h_scaled(self, x, h, c):
        return self.cell(x, 0.9 * h, c)

    def h_scaled_once(self, x, h, c):
        return self.cell(x, h if self.t != 2 else 0.9 * h, c)

    def c_scaled(self, x, h, c):
        return self.cell(x, h, 0.9 * c)

    def h_normalised(self, x, h, c):
        return self.cell(x, self.norm(h), c)

    def c_not_handed_on(self, x, h, c):
        return self.cell(x, h, torch.zeros_like(c))

    def h_and_c_exchanged(self, x, h, c):
        return self.cell(x, c, h)

    def relu_gate(self, x, h, c):
        return self.cell(x, h, c, sigmoid=torch.relu)

    def no_tanh(self, x, h, c):
        return self.cell(x, h, c, tanh=lambda c: c)

    def swapped_sign(self, x, h, c):
        return self.cell(x, h, c, sign=-1)

    def doubled(self, x, h, c):
        return self.cell(x, h, c, sign=2)

    def fed_back(self, x, h, c):
        return self.cell(self.head(h) if self.t else x, h, c)

    def state_from_x(self, x, h, c):
        return self.cell(x, h if self.t != 1 else torch.tanh(self.other(x)[:, :4]), c)


NOT_ITS_H = "gates do not take the h that belongs to the c before"
NO_C = "its c is not f * c + i * g"
FAULTS = {
    "other_weights_in_one_step": "gate i has other input weights in one step than in the last",
    "other_weights_in_the_last_step": "gate i has other input weights",
    "other_weights_in_the_first_step": "gate i has other input weights",
    "other_recurrent_weights_in_one_step": "gate i has other recurrent weights",
    "another_bias_in_one_step": "gate i has another bias in one step than in the last",
    "another_bias_in_the_first_step": "gate i has other constants in the first step",
    "three_biases": "gate i adds 2 constants, more than the two biases of a layer",
    "inputs_in_another_order_in_one_step": "it treats some steps otherwise than others",
    "h_in_another_order": NOT_ITS_H,
    "h_scaled": NOT_ITS_H,
    "h_scaled_once": NOT_ITS_H,
    "c_scaled": NOT_ITS_H,
    "h_normalised": NOT_ITS_H,
    "c_not_handed_on": "an LSTM without gate f",
    "h_and_c_exchanged": NOT_ITS_H,
    "relu_gate": NO_C,
    "no_tanh": "is none of the cells that a Model has",
    "swapped_sign": NO_C,
    "doubled": NO_C,
    "fed_back": "own output is fed back to it as input",
    "state_from_x": NOT_ITS_H,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_lstm_with_a_fault(fault):
    for keep in (False, True):
        assert FAULTS[fault] in refusal(Lstm(fault), keep=keep)


class Gru(by_hand.Gru):
    """A GRU with another blend of r, z, n and h."""

    def __init__(self, blend):
        super().__init__()
        self.blend = blend

    def step(self, x, h):
        return [self.blend(*self.gates(x, h), h)]


@pytest.mark.parametrize(
    "blend",
    [
        lambda r, z, n, h: (1 - z) * n + r * h,
        lambda r, z, n, h: (h + n) * z + n,
        lambda r, z, n, h: (n - h) * z + n,
        lambda r, z, n, h: z * n + z * h,
        lambda r, z, n, h: (1 - z) * n + z * h + n,
        lambda r, z, n, h: (1 - z) * torch.relu(n) + z * h,
        lambda r, z, n, h: (0.5 - z) * n + z * h,
        lambda r, z, n, h: (1 - z) * n + (1 - z) * h,
    ],
)
def test_a_gru_that_blends_otherwise(blend):
    for keep in (False, True):
        assert "is none of the cells that a Model has" in refusal(Gru(blend), keep=keep)


class Minimal(by_hand.Gru):
    """A GRU without a reset gate."""

    def step(self, x, h):
        (_, z, n), (_, z_h, n_h) = self.w(x).chunk(3, -1), self.u(h).chunk(3, -1)
        z = torch.sigmoid(z + z_h)
        return [(1 - z) * torch.tanh(n + n_h) + z * h]


class Elman(by_hand.Elman):
    """An RNN with one thing about it otherwise."""

    def __init__(self, fault):
        super().__init__()
        self.fault, self.other = fault, nn.Parameter(torch.randn(by_hand.HIDDEN, by_hand.HIDDEN))

    def step(self, x, h):
        first = self.t == 0
        u = self.other if self.fault == "weights" and self.t == 2 else self.u
        b = self.other[0] if self.fault == "bias" and first else self.b
        w = self.other[:, :3] if self.fault == "inputs" and first else self.w
        total = x @ w.T + h @ u.T + b
        if self.fault == "sigmoid":
            return [torch.sigmoid(total)]
        if self.fault == "relu":
            return [torch.relu(total) if first else torch.tanh(total)]
        return [h + torch.tanh(total) if self.fault == "sum" else torch.tanh(total)]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("weights", "gate h has other recurrent weights in one step"),
        ("bias", "gate h has other constants in the first step"),
        ("inputs", "gate h has other input weights"),
        ("relu", "one of its steps takes another number of inputs"),
        ("sigmoid", "is none of the cells that a Model has"),
        ("sum", "is none of the cells that a Model has"),
    ],
)
def test_an_elman_cell_with_a_fault(fault, reason):
    assert reason in refusal(Elman(fault))


def test_a_gru_without_a_reset():
    assert "a GRU without gate r" in refusal(Minimal())


class Over(nn.Module):
    """A loop over other steps than all of them in their order."""

    def __init__(self, steps, cell=by_hand.TwoLinears):
        super().__init__()
        self.steps, self.inner = steps, cell()

    def forward(self, x):
        return self.inner(torch.stack([x[:, k] for k in self.steps], 1))


def test_loops_over_other_steps():
    assert "over the steps 0, 2 of 3" in refusal(Over([0, 2]))
    assert "over the steps 1, 0, 2 of 3" in refusal(Over([1, 0, 2]))
    assert "over the steps 1, 2 of 3" in refusal(Over([1, 2], by_hand.Elman))


def test_a_backward_loop_alone():
    reason = refusal(Over([2, 1, 0]))
    assert "from the last step to the first" in reason
    assert "without one of the same kind" in reason
    both = by_hand.BothWays(by_hand.TwoLinears(), by_hand.Elman())
    assert "without one of the same kind" in refusal(both)


def test_states_that_were_folded_away():
    for cell in (by_hand.TwoLinears, by_hand.Elman):
        module = cell(start=by_hand.starts(cell.count))
        assert "an initial state that was folded away" in refusal(module)


def test_a_single_step():
    assert "like a first step alone" in refusal(Over([0]))

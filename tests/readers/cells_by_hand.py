"""Recurrent cells as users write them in torch, formula by formula, in a loop over the steps."""

import torch
from torch import nn

INPUTS, HIDDEN, STEPS = 3, 4, 3


def starts(count):
    """Learned initial states."""
    return nn.ParameterList(nn.Parameter(torch.randn(HIDDEN)) for _ in range(count))


class Loop(nn.Module):
    """Calls step(x, *states) -> the new states, h first, for each step of (batch, time, inputs)."""

    count = 1

    def __init__(self, start=None, last=False):
        super().__init__()
        self.start, self.last = start, last

    def forward(self, x):
        states = [
            x.new_zeros(len(x), HIDDEN) if self.start is None else self.start[k].expand(len(x), -1)
            for k in range(self.count)
        ]
        outputs = []
        for t in range(x.shape[1]):
            self.t = t
            states = self.step(x[:, t], *states)
            outputs.append(states[0])
        return outputs[-1] if self.last else torch.stack(outputs, 1)


class TwoLinears(Loop):
    """An LSTM of one Linear for the input and one for h, gates in torch's order."""

    count = 2

    def __init__(self, inputs=INPUTS, bias=True, **options):
        super().__init__(**options)
        self.w, self.u = nn.Linear(inputs, 16, bias=bias), nn.Linear(HIDDEN, 16, bias=bias)

    def step(self, x, h, c):
        i, f, g, o = (self.w(x) + self.u(h)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class OneLinear(Loop):
    """An LSTM of one Linear for input and h side by side, gates in the order o g f i."""

    count = 2

    def __init__(self, **options):
        super().__init__(**options)
        self.w = nn.Linear(INPUTS + HIDDEN, 16)

    def step(self, x, h, c):
        o, g, f, i = self.w(torch.cat([x, h], -1)).split(HIDDEN, -1)
        c = g.tanh() * i.sigmoid() + c * f.sigmoid()
        return c.tanh() * o.sigmoid(), c


class EightLinears(Loop):
    """An LSTM of two Linears for each gate, i f g o."""

    count = 2

    def __init__(self, **options):
        super().__init__(**options)
        self.w = nn.ModuleList(nn.Linear(INPUTS, HIDDEN) for _ in range(4))
        self.u = nn.ModuleList(nn.Linear(HIDDEN, HIDDEN, bias=False) for _ in range(4))

    def step(self, x, h, c):
        i, f, g, o = [w(x) + u(h) for w, u in zip(self.w, self.u, strict=True)]
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class Coupled(TwoLinears):
    """An LSTM whose i is 1 - f: the weights of f, negated."""

    def step(self, x, h, c):
        _, f, g, o = (self.w(x) + self.u(h)).chunk(4, -1)
        f = f.sigmoid()
        c = f * c + (1 - f) * g.tanh()
        return o.sigmoid() * c.tanh(), c


class Peepholes(TwoLinears):
    """An LSTM whose gates see c: i and f the old one, o the new one."""

    def __init__(self, **options):
        super().__init__(**options)
        self.p = nn.Parameter(torch.randn(3, HIDDEN))

    def step(self, x, h, c):
        i, f, g, o = (self.w(x) + self.u(h)).chunk(4, -1)
        i, f = torch.sigmoid(i + self.p[0] * c), torch.sigmoid(f + self.p[1] * c)
        c = f * c + i * g.tanh()
        return torch.sigmoid(o + self.p[2] * c) * c.tanh(), c


class Projected(nn.Module):
    """An LSTM with a projection from 4 units to 2."""

    def __init__(self):
        super().__init__()
        self.w, self.u = nn.Linear(INPUTS, 16), nn.Linear(2, 16)
        self.r = nn.Linear(HIDDEN, 2, bias=False)

    def forward(self, x):
        h, c = x.new_zeros(len(x), 2), x.new_zeros(len(x), HIDDEN)
        outputs = []
        for t in range(x.shape[1]):
            i, f, g, o = (self.w(x[:, t]) + self.u(h)).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = self.r(o.sigmoid() * c.tanh())
            outputs.append(h)
        return torch.stack(outputs, 1)


class Gru(Loop):
    """A GRU with the reset after the product; `form` says how z blends n and h."""

    def __init__(self, form="torch", bias=True, **options):
        super().__init__(**options)
        self.form = form
        self.w, self.u = nn.Linear(INPUTS, 12, bias=bias), nn.Linear(HIDDEN, 12, bias=bias)

    def gates(self, x, h):
        """The gates r, z and n."""
        (r, z, n), (r_h, z_h, n_h) = self.w(x).chunk(3, -1), self.u(h).chunk(3, -1)
        r, z = torch.sigmoid(r + r_h), torch.sigmoid(z + z_h)
        return r, z, torch.tanh(n + r * n_h)

    def step(self, x, h):
        _, z, n = self.gates(x, h)
        if self.form == "torch":
            return [(h - n) * z + n]
        if self.form == "keras":
            return [z * h + (1 - z) * n]
        # z changes sides: it is what comes in.
        return [(1 - z) * h + z * n if self.form == "other" else h + z * (n - h)]


class GruBefore(Loop):
    """A GRU with the reset before the product, of three Linears for input and h side by side."""

    def __init__(self, **options):
        super().__init__(**options)
        self.r, self.z, self.n = (nn.Linear(INPUTS + HIDDEN, HIDDEN) for _ in range(3))

    def step(self, x, h):
        both = torch.cat([x, h], -1)
        r, z = torch.sigmoid(self.r(both)), torch.sigmoid(self.z(both))
        n = torch.tanh(self.n(torch.cat([x, r * h], -1)))
        return [(1 - z) * n + z * h]


class Elman(Loop):
    """tanh(x W + h U + b), or relu."""

    def __init__(self, inputs=INPUTS, kind="tanh", **options):
        super().__init__(**options)
        self.w = nn.Parameter(torch.randn(HIDDEN, inputs))
        self.u = nn.Parameter(torch.randn(HIDDEN, HIDDEN))
        self.b = nn.Parameter(torch.randn(HIDDEN))
        self.kind = getattr(torch, kind)

    def step(self, x, h):
        return [self.kind(x @ self.w.T + h @ self.u.T + self.b)]


class ElmanCat(Loop):
    """relu of one Linear for h and the input side by side."""

    def __init__(self, **options):
        super().__init__(**options)
        self.w = nn.Linear(HIDDEN + INPUTS, HIDDEN)

    def step(self, x, h):
        return [torch.relu(self.w(torch.cat([h, x], -1)))]


class Stacked(nn.Module):
    """Two cells in one loop, the second fed by the first, a head and a shortcut at each step."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second, self.head = first, second, nn.Linear(HIDDEN, 2)

    def forward(self, x):
        zeros = x.new_zeros(len(x), HIDDEN)
        one, other = [zeros] * self.first.count, [zeros] * self.second.count
        outputs = []
        for t in range(x.shape[1]):
            one = self.first.step(x[:, t], *one)
            other = self.second.step(one[0], *other)
            outputs.append(self.head(other[0]) + x[:, t, :2])
        return torch.stack(outputs, 1)


class BothWays(nn.Module):
    """Two loops, one over the steps as they come, one backward, and a head."""

    def __init__(self, forward, backward):
        super().__init__()
        self.one, self.other, self.head = forward, backward, nn.Linear(2 * HIDDEN, 2)

    def forward(self, x):
        backward = self.other(x.flip(1)).flip(1)
        return self.head(torch.cat([self.one(x), backward], -1))


class HeadsApart(nn.Module):
    """Two loops, one over the steps as they come, one backward, with a head of its own in each."""

    def __init__(self, forward, backward):
        super().__init__()
        self.cells = nn.ModuleList([forward, backward])
        self.heads = nn.ModuleList(nn.Linear(HIDDEN, 2) for _ in range(2))

    def run(self, x, k):
        """One direction, head and all."""
        states, outputs = [x.new_zeros(len(x), HIDDEN)] * self.cells[k].count, []
        for t in range(x.shape[1]):
            states = self.cells[k].step(x[:, t], *states)
            outputs.append(self.heads[k](states[0]))
        return torch.stack(outputs, 1)

    def forward(self, x):
        return torch.cat([self.run(x, 0), self.run(x.flip(1), 1).flip(1)], -1)

"""Networks as people write them: cells in loops, cells of their own, states kept or handed on."""

import torch
from torch import nn


class TutorialForecaster(nn.Module):
    """Its state kept as attributes, the head on the last step."""

    def __init__(self):
        super().__init__()
        self.num_layers, self.hidden = 2, 5
        self.fc_1 = nn.Linear(5, 8)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(8, 1)
        self.lstm = nn.LSTM(3, 5, num_layers=2, batch_first=True, dropout=0.2)

    def forward(self, x):
        h_0 = torch.zeros(self.num_layers, x.size(0), self.hidden)
        c_0 = torch.zeros(self.num_layers, x.size(0), self.hidden)
        _, (hn, _cn) = self.lstm(x, (h_0, c_0))
        hn = hn.view(self.num_layers, -1, self.hidden)[-1]
        out = self.relu(hn)
        out = self.relu(self.fc_1(out))
        return self.fc(out)


class OneSeriesOfScalars(nn.Module):
    """One sequence without a batch, (1, 1, H) kept from the last call, the last prediction out."""

    def __init__(self):
        super().__init__()
        self.lstm, self.linear = nn.LSTM(1, 5), nn.Linear(5, 1)
        self.hidden_cell = (torch.zeros(1, 1, 5), torch.zeros(1, 1, 5))

    def forward(self, input_seq):
        out, self.hidden_cell = self.lstm(input_seq.view(len(input_seq), 1, -1), self.hidden_cell)
        return self.linear(out.view(len(input_seq), -1))[-1]


class StackedCells(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.LSTMCell(3, 6), nn.LSTMCell(6, 5)
        self.project = nn.Linear(5, 2)

    def forward(self, x):
        h1 = c1 = x.new_zeros(x.size(0), 6)
        h2 = c2 = torch.zeros(x.size(0), 5, dtype=x.dtype, device=x.device)
        outputs = []
        for t in range(x.size(1)):
            h1, c1 = self.first(x[:, t, :], (h1, c1))
            h2, c2 = self.second(h1, (h2, c2))
            outputs += [self.project(h2)]
        return torch.stack(outputs, dim=1)


class UnboundGRUCell(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru_cell = nn.GRUCell(3, 4)
        self.h0 = nn.Parameter(torch.randn(4))

    def forward(self, x):  # time first
        h = self.h0.expand(x.shape[1], -1)
        states = []
        for step in x.unbind(0):
            h = self.gru_cell(step, h)
            states.append(h.unsqueeze(0))
        return torch.cat(states)


class Preallocated(nn.Module):
    def __init__(self, nonlinearity="relu"):
        super().__init__()
        self.cell = nn.RNNCell(3, 4, nonlinearity=nonlinearity)

    def forward(self, x):
        batch, steps, _ = x.shape
        out = torch.empty(batch, steps, 4)
        self.h = None
        for t in range(steps):
            self.h = self.cell(x[:, t], self.h)
            out[:, t] = self.h
        return out


class StepWithState(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.LSTMCell(3, 5), nn.Linear(5, 2)

    def forward(self, sample, h, c):
        h, c = self.cell(sample, (h, c))
        return self.out(h), h, c


class StepWithItsOwnState(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out, self.h = nn.GRUCell(3, 5), nn.Linear(5, 2), None

    def forward(self, sample):
        self.h = self.cell(sample, self.h)
        return torch.tanh(self.out(self.h))


class EncoderDecoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = (nn.LSTM(3, 4, batch_first=True) for _ in range(2))
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        _, state = self.encoder(x)
        return self.fc(self.decoder(x, state)[0])


class Feedback(nn.Module):
    """Each output is the next input."""

    def __init__(self):
        super().__init__()
        self.cell, self.fc = nn.GRUCell(3, 4), nn.Linear(4, 3)

    def forward(self, x):
        y, h, out = x[:, 0], None, []
        for _ in range(x.size(1)):
            h = self.cell(y, h)
            y = self.fc(h)
            out.append(y)
        return torch.stack(out, 1)


class OwnLSTM(nn.Module):
    """The cell's formulas, as in a lecture."""

    def __init__(self, inputs=3, hidden=4):
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Linear(inputs + hidden, 4 * hidden)

    def forward(self, x):
        h = torch.zeros(x.size(0), self.hidden)
        c = torch.zeros(x.size(0), self.hidden)
        out = []
        for t in range(x.size(1)):
            i, f, g, o = self.gates(torch.cat([x[:, t], h], 1)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            out.append(h)
        return torch.stack(out, 1)


class OwnGRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.x2h, self.h2h = nn.Linear(3, 12), nn.Linear(4, 12)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        h, out = torch.zeros(x.size(0), 4), []
        for t in range(x.size(1)):
            gx, gh = self.x2h(x[:, t]), self.h2h(h)
            rx, zx, nx = gx.chunk(3, 1)
            rh, zh, nh = gh.chunk(3, 1)
            r, z = torch.sigmoid(rx + rh), torch.sigmoid(zx + zh)
            n = torch.tanh(nx + r * nh)
            h = (1 - z) * n + z * h
            out.append(self.fc(h))
        return torch.stack(out, 1)


class OwnRNN(nn.Module):
    """The RNN of the name classification tutorial: step by step, its state handed back."""

    def __init__(self):
        super().__init__()
        self.i2h, self.h2o = nn.Linear(3 + 4, 4), nn.Linear(4, 2)

    def forward(self, sample, hidden=None):
        if hidden is None:
            hidden = torch.zeros(sample.size(0), 4)
        hidden = torch.tanh(self.i2h(torch.cat((sample, hidden), 1)))
        return self.h2o(hidden), hidden


class Peephole(OwnLSTM):
    """An output gate that sees the old cell state is no cell of a Model."""

    def forward(self, x):
        h = torch.zeros(x.size(0), self.hidden)
        c = torch.zeros(x.size(0), self.hidden)
        out = []
        for t in range(x.size(1)):
            i, f, g, o = self.gates(torch.cat([x[:, t], h], 1)).chunk(4, 1)
            o = torch.sigmoid(o + c)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = o * torch.tanh(c)
            out.append(h)
        return torch.stack(out, 1)


class CharacterRNN(nn.Module):
    """One character at a time, (1, 1, inputs), its hidden state given and handed back."""

    def __init__(self):
        super().__init__()
        self.gru, self.out, self.softmax = nn.GRU(3, 4, 2), nn.Linear(4, 5), nn.Softmax(dim=1)

    def forward(self, character, hidden):
        y, hidden = self.gru(character.view(1, 1, -1), hidden)
        return self.softmax(self.out(y[0])), hidden


class GoesOn(nn.Module):
    """Its state goes on from one part of a sequence to the next."""

    def __init__(self):
        super().__init__()
        self.lstm, self.fc, self.state = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2), None

    def forward(self, x):
        y, self.state = self.lstm(x, self.state)
        return self.fc(y)


class StateInABuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.RNNCell(3, 4)
        self.register_buffer("h", torch.full((1, 4), 0.5))

    def forward(self, sample):
        self.h.copy_(self.cell(sample, self.h))
        return self.h.clone()


class Smoothed(nn.Module):
    """A moving average from call to call, whatever a call is given."""

    def __init__(self):
        super().__init__()
        self.fc, self.mean = nn.Linear(3, 2), None

    def forward(self, x):
        self.mean = x if self.mean is None else 0.5 * self.mean + 0.5 * x
        return self.fc(self.mean)


class Autoregressive(nn.Module):
    """Each step sees the output of the one before."""

    def __init__(self):
        super().__init__()
        self.cell, self.fc = nn.GRUCell(5, 4), nn.Linear(4, 2)

    def forward(self, x):
        h, y, out = torch.zeros(x.size(0), 4), torch.zeros(x.size(0), 2), []
        for t in range(x.size(1)):
            h = self.cell(torch.cat([x[:, t], y], 1), h)
            y = self.fc(h)
            out.append(y)
        return torch.stack(out, 1)


class Zoneout(nn.Module):
    """A state that is mixed with the one before between two calls of the cell."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(3, 4)

    def forward(self, x):
        h, out = torch.zeros(x.size(0), 4), []
        for t in range(x.size(1)):
            h = 0.25 * h + 0.75 * self.cell(x[:, t], h)
            out.append(h)
        return torch.stack(out, 1)


class Backwards(nn.Module):
    """A cell that begins at the end of the sequence."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(3, 4)

    def forward(self, x):
        h, out = torch.zeros(x.size(0), 4), []
        for t in reversed(range(x.size(1))):
            h = self.cell(x[:, t], h)
            out.insert(0, h)
        return torch.stack(out, 1)

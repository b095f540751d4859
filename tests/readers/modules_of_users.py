"""Networks as people write them, for the torch reader: each in its own style, none of them ours."""

import torch
import torch.nn.functional as F
from torch import nn


class HeadOnEveryStep(nn.Module):
    def __init__(self, kind="LSTM", batch_first=True, **options):
        super().__init__()
        self.rnn = getattr(nn, kind)(3, 6, batch_first=batch_first, **options)
        self.fc = nn.Linear(12 if options.get("bidirectional") else 6, 2)

    def forward(self, x):
        out, _ = self.rnn(x)
        return self.fc(out)


class ResidualStack(nn.Module):
    """Blocks of norm, recurrence and projection, each added to what went into it."""

    def __init__(self, depth=3, size=6):
        super().__init__()
        self.inp = nn.Linear(3, size)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {"norm": nn.LayerNorm(size), "rnn": nn.LSTM(size, size, batch_first=True)}
            )
            for _ in range(depth)
        )
        self.out = nn.Linear(size, 2)

    def forward(self, x):
        x = self.inp(x)
        for block in self.blocks:
            x = x + block["rnn"](block["norm"](x))[0]
        return self.out(F.relu(x))


class Dense(nn.Module):
    """Each layer sees the outputs of all before it."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.GRU(3, 4, batch_first=True), nn.GRU(7, 5, batch_first=True)
        self.head = nn.Linear(12, 2)

    def forward(self, x):
        x = torch.cat((x, self.a(x)[0]), dim=-1)
        x = torch.cat((x, self.b(x)[0]), dim=-1)
        return self.head(x)


class ProjectedShortcut(nn.Module):
    def __init__(self):
        super().__init__()
        self.main, self.shortcut = nn.LSTM(3, 5, batch_first=True), nn.Linear(3, 5)

    def forward(self, x):
        return self.main(x)[0] + self.shortcut(x)


class RelativeForecast(nn.Module):
    """What is added to the last value of the series, for several steps ahead."""

    def __init__(self, scale=0.25):
        super().__init__()
        self.rnn, self.head, self.scale = nn.RNN(3, 6, batch_first=True), nn.Linear(6, 4), scale

    def forward(self, x):
        return x[:, -1, :1] + self.scale * self.head(self.rnn(x)[0][:, -1])


class Highway(nn.Module):
    """A gate that depends on the input, which no layer of a Model multiplies by."""

    def __init__(self):
        super().__init__()
        self.rnn, self.gate = nn.GRU(4, 4, batch_first=True), nn.Linear(4, 4)

    def forward(self, x):
        t = torch.sigmoid(self.gate(x))
        return t * self.rnn(x)[0] + (1 - t) * x


class WeightNormed(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(3, 5, batch_first=True)
        self.fc = nn.utils.parametrizations.weight_norm(nn.Linear(5, 2))
        with torch.no_grad():
            # Lengths that are exact, so that the folded weight is.
            self.fc.parametrizations.weight.original1.copy_(torch.tensor([[0, 3, 0, 4, 0.0]] * 2))
            self.fc.parametrizations.weight.original0.copy_(torch.tensor([[10.0], [2.5]]))

    def forward(self, x):
        return self.fc(self.rnn(x)[0])


def with_statistics(norm):
    """A BatchNorm whose folding is exact in float32: variances and eps that are powers of two."""
    with torch.no_grad():
        norm.eps = 0.25
        norm.running_var.fill_(3.75)
        norm.running_mean.copy_(torch.arange(norm.num_features) / 4)
        norm.weight.copy_(torch.arange(norm.num_features) / 2 + 1)
        norm.bias.fill_(-0.5)
    return norm


class BatchNormAround(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.after = (with_statistics(nn.BatchNorm1d(n)) for n in (3, 5))
        self.lstm, self.fc = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        x = self.before(x.permute(0, 2, 1)).permute(0, 2, 1).contiguous()
        y, _ = self.lstm(x)
        b, t, f = y.shape
        y = self.after(y.reshape(b * t, f)).reshape(b, t, f)
        return self.fc(y)


class Functional(nn.Module):
    """Weights of its own, functions, in-place operators."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.randn(5))
        self.rnn = nn.LSTM(5, 4, batch_first=True)
        self.register_buffer("scale", torch.tensor([0.5, 2.0, 1.0, 4.0]))

    def forward(self, x):
        y = F.dropout(F.linear(x, self.weight, self.bias), 0.3, self.training)
        y = F.relu(y, inplace=True)
        y = self.rnn(y)[0].clone()
        y *= self.scale
        y += 1
        y.sub_(0.5).tanh_()
        return F.layer_norm(y, (4,))


class Einsum(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.rnn = nn.Parameter(torch.randn(5, 3)), nn.GRU(5, 4, batch_first=True)
        self.v = nn.Parameter(torch.randn(4, 2))

    def forward(self, x):
        return self.rnn(torch.einsum("bti,oi->bto", x, self.w))[0] @ self.v


class SumOfHalves(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(3, 4, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.fc(y[:, :, :4] + y[:, :, 4:])


class MeanOfHalves(SumOfHalves):
    def forward(self, x):
        y, _ = self.rnn(x)
        return self.fc(y.view(*y.shape[:2], 2, 4).mean(2))


class BothEnds(nn.Module):
    """Last state forward beside last state backward, which is that of the first step."""

    def __init__(self):
        super().__init__()
        self.rnn, self.fc = nn.LSTM(3, 4, bidirectional=True, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        _, (h, _) = self.rnn(x)
        return self.fc(torch.cat((h[-2], h[-1]), dim=1))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.score = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x):
        y, _ = self.rnn(x)
        weight = torch.softmax(self.score(y).squeeze(-1), dim=1)
        return torch.bmm(weight.unsqueeze(1), y).squeeze(1)


class Pooled(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.rnn, self.fc, self.pool = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2), pool

    def forward(self, x):
        return self.fc(self.pool(self.rnn(x)[0]))


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.rnn = nn.Embedding(10, 3), nn.LSTM(3, 4, batch_first=True)

    def forward(self, tokens):
        return self.rnn(self.embed(tokens))[0]


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.calm, self.wild = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        return self.wild(x) if x.abs().max() > 3 else self.calm(x)


class LongOnes(nn.Module):
    """Sequences of six and more steps go another way, which no trace of a short one sees."""

    def __init__(self):
        super().__init__()
        self.rnn, self.fc = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 4)

    def forward(self, x):
        y = self.rnn(x)[0]
        return self.fc(y) if x.size(1) > 5 else y


class MixedBatch(nn.Module):
    """The sequences of a batch are centred on each other."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(3, 4, batch_first=True)

    def forward(self, x):
        return self.rnn(x - x.mean(0, keepdim=True))[0]


class Differenced(nn.Module):
    """What changed since the step before goes into the network."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x):
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
        return self.rnn(x - before)[0]


class ChannelsLast(nn.Module):
    """Outputs as (batch, features, time), as convolutions have it."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(3, 4, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0].transpose(1, 2)


class Horizons(nn.Module):
    """A forecast of 4 steps of 2 values from the last step."""

    def __init__(self):
        super().__init__()
        self.rnn, self.fc = nn.GRU(3, 5, 2, batch_first=True), nn.Linear(5, 8)

    def forward(self, x):
        return self.fc(self.rnn(x)[1][-1]).view(-1, 4, 2)


class Nested(nn.Module):
    """Modules within modules, a loss among them, an Identity and a Sequential."""

    def __init__(self):
        super().__init__()
        self.criterion = nn.MSELoss()
        self.backbone = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Dropout(0.1), ResidualStack(1))
        self.backbone[3].inp = nn.Identity()
        self.head = nn.Sequential(nn.LayerNorm(2), nn.Identity(), nn.Linear(2, 3), nn.Softmax(-1))

    def forward(self, x):
        return self.head(self.backbone(x))


class PaddedInput(nn.Module):
    """Constants beside the input's own values."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(5, 4, batch_first=True)

    def forward(self, x):
        return self.rnn(F.pad(x, (1, 1), value=0.5))[0]


class NoisyInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x):
        return self.rnn(F.dropout(x, 0.5))[0]


class Positions(nn.Module):
    """A value for each position is added, which a stream has no count for."""

    def __init__(self):
        super().__init__()
        self.rnn, self.position = nn.LSTM(3, 4, batch_first=True), nn.Parameter(torch.randn(50, 3))

    def forward(self, x):
        return self.rnn(x + self.position[: x.size(1)])[0]


class Convolved(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.rnn = nn.Conv1d(3, 4, 3, padding=1), nn.LSTM(4, 4, batch_first=True)

    def forward(self, x):
        return self.rnn(self.conv(x.transpose(1, 2)).transpose(1, 2))[0]


class MeanAndDeviation(nn.Module):
    """Two outputs, of which a Model could have only one."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(3, 4, batch_first=True)
        self.mean, self.deviation = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.mean(y), self.deviation(y)


class AloneIsDifferent(nn.Module):
    """A batch of more than one is scaled."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(3, 4, batch_first=True)

    def forward(self, x):
        y, _ = self.rnn(x)
        return y * 2 if x.size(0) > 1 else y

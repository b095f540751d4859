"""More than 30 networks of people's own: each equal to what is read, or refused with its reason."""

import copy

import numpy as np
import pytest

from fastlstm import reference
from fastlstm.errors import ReaderError
from fastlstm.readers.torch_module import read

torch = pytest.importorskip("torch", reason="torch is not installed")

import modules_of_users as user  # noqa: E402  they need torch
import modules_with_loops as loops  # noqa: E402

TOLERANCE = 1e-9


def batch_first(module, x):
    return module(x)


def time_first(module, x):
    return module(x.transpose(0, 1)).transpose(0, 1)


def last(module, x):
    """Many to one: the outputs of every length, as a Model gives them step by step."""
    outputs = [module(x[:, : t + 1]) for t in range(x.shape[1])]
    return torch.stack([y.reshape(len(x), -1) for y in outputs], 1)


def alone(module, x):
    """One series of scalars at a time, and every length of it."""
    first = copy.deepcopy(module)
    rows = []
    for row in x:
        outputs = [copy.deepcopy(first)(row[: t + 1, 0]) for t in range(len(row))]
        rows.append(torch.stack(outputs))
    return torch.stack(rows)


def stepped(*state):
    """Called with (x, *state), its new state handed back to it."""

    def run(module, x):
        given = [torch.zeros(len(x), size) for size in state]
        outputs = []
        for t in range(x.shape[1]):
            y = module(x[:, t], *given)
            if state:
                y, *given = y
            outputs.append(y)
        return torch.stack(outputs, 1)

    return run


def one_by_one(module, x):
    """Single samples, each sequence with a module of its own."""
    rows = []
    for row in x:
        own = copy.deepcopy(module)
        rows.append(torch.cat([own(sample[None]) for sample in row]))
    return torch.stack(rows)


def characters(module, x):
    rows = []
    for row in x:
        hidden, outputs = torch.zeros(2, 1, 4), []
        for sample in row:
            y, hidden = module(sample[None, None], hidden)
            outputs.append(y[0])
        rows.append(torch.stack(outputs))
    return torch.stack(rows)


def channels(module, x):
    return module(x).transpose(1, 2)


# Each network, and how it is called.
EQUAL = {
    "LSTM, batch first": (user.HeadOnEveryStep, batch_first),
    "LSTM, time first": (lambda: user.HeadOnEveryStep(batch_first=False), time_first),
    "GRU, 2 layers": (lambda: user.HeadOnEveryStep("GRU", num_layers=2), batch_first),
    "RNN relu": (lambda: user.HeadOnEveryStep("RNN", nonlinearity="relu"), batch_first),
    "LSTM, both ways": (lambda: user.HeadOnEveryStep(bidirectional=True), batch_first),
    "tutorial, h_n[-1]": (loops.TutorialForecaster, last),
    "one series of scalars": (loops.OneSeriesOfScalars, alone),
    "stacked LSTMCells": (loops.StackedCells, batch_first),
    "GRUCell over unbind": (loops.UnboundGRUCell, time_first),
    "RNNCell into a tensor": (loops.Preallocated, batch_first),
    "a step with h and c": (loops.StepWithState, stepped(5, 5)),
    "a step with its own state": (loops.StepWithItsOwnState, stepped()),
    "residual stack": (user.ResidualStack, batch_first),
    "dense connections": (user.Dense, batch_first),
    "projected shortcut": (user.ProjectedShortcut, batch_first),
    "relative forecast": (user.RelativeForecast, last),
    "weight norm": (user.WeightNormed, batch_first),
    "batch norm around": (user.BatchNormAround, batch_first),
    "functions in place": (user.Functional, batch_first),
    "einsum": (user.Einsum, batch_first),
    "sum of halves": (user.SumOfHalves, batch_first),
    "mean of halves": (user.MeanOfHalves, batch_first),
    "own LSTM": (loops.OwnLSTM, batch_first),
    "own GRU": (loops.OwnGRU, batch_first),
    "own RNN step": (loops.OwnRNN, stepped(4)),
    "differences": (user.Differenced, batch_first),
    "channels before time": (user.ChannelsLast, channels),
    "horizons": (user.Horizons, last),
    "nested": (user.Nested, batch_first),
    "its state goes on": (loops.GoesOn, batch_first),
    "a state in a buffer": (loops.StateInABuffer, one_by_one),
    "one character at a time": (loops.CharacterRNN, characters),
    "constants beside the input": (user.PaddedInput, batch_first),
}

REFUSED = {
    "highway": (user.Highway, "formula"),
    "both ends": (user.BothEnds, "values of several steps or sequences in one vector"),
    "encoder-decoder": (
        loops.EncoderDecoder,
        r"decoder \(LSTM\): its initial state comes from encoder \(LSTM\)",
    ),
    "feedback": (loops.Feedback, r"cell \(GRUCell\): its initial state comes from cell"),
    "attention": (user.Attention, "softmax in Attention.forward: expected the values of one step"),
    "mean over time": (lambda: user.Pooled(lambda y: y.mean(1)), "sum or mean over several steps"),
    "greatest over time": (
        lambda: user.Pooled(lambda y: y.max(1).values),
        "max in Pooled.forward: no layer of a Model computes this",
    ),
    "first step": (lambda: user.Pooled(lambda y: y[:, 0]), "with values of step 0, counted from 0"),
    "every other step": (lambda: user.Pooled(lambda y: y[:, ::2]), "values of step 0, 2"),
    "embedding": (user.Tagger, r"embed \(Embedding\): .* looks indices up in a table"),
    "branch on values": (user.Branching, "without decisions that depend on values"),
    "branch on the length": (
        user.LongOnes,
        "over [0-9]+ steps of [13] sequences is no chain",
    ),
    "batch centred on itself": (user.MixedBatch, "mean over several sequences of the batch"),
    "own LSTM with an odd gate": (loops.Peephole, "looks like an LSTM whose gate o adds values"),
    "moving average": (
        loops.Smoothed,
        "expected a state that goes on from call to call as that of a stream",
    ),
    "autoregressive": (
        loops.Autoregressive,
        r"cell \(GRUCell\): its initial state comes from cell",
    ),
    "zoneout": (loops.Zoneout, r"cell \(GRUCell\): expected the state of the same cell after"),
    "backwards": (loops.Backwards, r"cell \(GRUCell\): expected the state of the same cell after"),
    "rounded to half": (
        lambda: user.Pooled(lambda y: y.half().float()),
        "to in Pooled.forward: it rounds to half precision",
    ),
    "two outputs": (user.MeanAndDeviation, "found several outputs; a Model has one"),
    "another thing alone": (user.AloneIsDifferent, "over 5 steps of 1 sequences is no chain"),
    "random in eval mode": (user.NoisyInput, "dropout in NoisyInput.forward: it draws at random"),
    "positions": (user.Positions, "not the same float32 values at every step"),
    "convolution": (user.Convolved, r"conv \(Conv1d\): no layer of a Model computes this"),
}


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def test_there_are_more_than_thirty():
    assert len(EQUAL) >= 30
    assert len(REFUSED) >= 15


@pytest.mark.parametrize("name", EQUAL)
def test_equal_to_the_module(name):
    make, call = EQUAL[name]
    module = make()
    model = read(module)
    double = copy.deepcopy(module).double().eval()
    for part in double.modules():
        for key, value in list(vars(part).items()):
            if isinstance(value, tuple) and value and isinstance(value[0], torch.Tensor):
                setattr(part, key, tuple(tensor.double() for tensor in value))
    for steps, seed in ((4, 1), (9, 2)):
        x = 2 * np.random.default_rng(seed).standard_normal((3, steps, model.input_size))
        torch.set_default_dtype(torch.float64)
        try:
            with torch.no_grad():
                y = call(copy.deepcopy(double), torch.from_numpy(x)).numpy()
        finally:
            torch.set_default_dtype(torch.float32)
        expected = np.stack([reference.run(model, row) for row in x])
        np.testing.assert_allclose(y, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_its_reason(name):
    make, reason = REFUSED[name]
    with pytest.raises(ReaderError, match=reason):
        read(make())

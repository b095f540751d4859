"""What a Model cannot express is refused by name, and never approximated."""

import numpy as np
import pytest

from fastlstm import reference
from fastlstm.errors import ReaderError
from fastlstm.readers.torch_module import read

torch = pytest.importorskip("torch", reason="torch is not installed")
nn = torch.nn


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    torch.set_num_threads(1)
    torch.manual_seed(0)


class Wrapped(nn.Module):
    """`forward` given as a function of the module's parts."""

    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


def lstm_and_head(forward, hidden=4):
    lstm = nn.LSTM(2, hidden, batch_first=True)
    return Wrapped(forward, lstm=lstm, head=nn.Linear(hidden, hidden), other=nn.Linear(hidden, 4))


def diverged():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    with torch.no_grad():
        module[1].weight[0, 2] = float("nan")
    return module


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            # The backward half's last state belongs to the first sample, not to the last.
            lambda: Wrapped(
                lambda m, x: torch.cat([*m.lstm(x)[1][0]], 1),
                lstm=nn.LSTM(2, 4, batch_first=True, bidirectional=True),
            ),
            "the output of Wrapped: expected values of every step at its own.*of step 0, [1-9]",
        ),
        (
            lambda: nn.Sequential(nn.Linear(2, 3), nn.RMSNorm(3)),
            r"1 \(RMSNorm\): no layer of a Model computes this",
        ),
        (
            lambda: nn.Sequential(nn.Linear(2, 3), nn.LayerNorm((7, 3))),
            r"1 \(LayerNorm\): expected a norm over the last axis alone.*normalized_shape \(7, 3\)",
        ),
        (
            lambda: nn.LayerNorm((7, 3), elementwise_affine=False),
            r"LayerNorm: expected a norm over the last axis alone.*over 2 axes its mean takes in",
        ),
        (
            lambda: nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3, eps=0.0)),
            r"1 \(LayerNorm\): LayerNorm\.eps: expected a float of at least 1e-12, found 0\.0",
        ),
        (
            # Over as many steps as there are values.
            lambda: Wrapped(
                lambda m, x: m.norm(m.lstm(x)[0].transpose(1, 2)).transpose(1, 2),
                lstm=nn.LSTM(2, 7, batch_first=True),
                norm=nn.LayerNorm(7),
            ),
            r"could not be run on an input of shape \(\d, \d, 2\): RuntimeError: Given normalized",
        ),
        (
            lambda: nn.Sequential(nn.Linear(2, 3), nn.GELU()),
            r"1 \(GELU\): no layer of a Model computes this",
        ),
        (
            lambda: nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3, track_running_stats=False)),
            r"1 \(BatchNorm1d\): expected running statistics, found none",
        ),
        (
            lambda: nn.Sequential(nn.Linear(2, 3)).double(),
            r"0 \(Linear\)\.weight: expected float32.*found float64; say module\.float\(\)",
        ),
        (diverged, r"1 \(Linear\)\.weight: expected finite values, found nan at index \(0, 2\)"),
        (
            lambda: nn.Sequential(nn.Linear(2, 3), nn.LazyLinear(2)),
            "expected trained weights, found lazy ones",
        ),
        *(
            (lambda limit=limit: lstm_and_head(lambda m, x: m.lstm(limit(x))[0]), message)
            for limit, message in (
                (
                    lambda x: torch.max(x, torch.tensor(-1e6)),
                    "max in Wrapped.forward: no layer of a Model computes this",
                ),
                (
                    lambda x: torch.fmin(x, torch.tensor(1e6)),
                    "fmin in Wrapped.forward: no layer of a Model computes this",
                ),
                (
                    lambda x: x * (x < 1e6),
                    "lt in Wrapped.forward: no layer of a Model computes this",
                ),
            )
        ),
        (
            lambda: lstm_and_head(lambda m, x: m.lstm(x)[0].clamp(-1, 1)),
            "clamp in Wrapped.forward: no layer of a Model computes this",
        ),
        (
            lambda: Wrapped(lambda m, x: x * x),
            "expected at least one weight, found none, .*; say input_size",
        ),
        (
            lambda: Wrapped(lambda m, x: {"y": m.head(x)}, head=nn.Linear(3, 3)),
            "as its result, found no tensor",
        ),
        (
            lambda: Wrapped(lambda m, x: m.missing(x), head=nn.Linear(3, 3)),
            r"could not be run on an input of shape \(\d, \d, 3\): AttributeError",
        ),
        (
            lambda: lstm_and_head(lambda m, x: m.lstm(x)[0].flip(1)),
            "expected values of every step at its own place",
        ),
        (
            lambda: lstm_and_head(lambda m, x: m.head(m.lstm(x)[0]).cumsum(1)),
            "cumsum in Wrapped.forward: no layer of a Model computes this",
        ),
        (
            lambda: lstm_and_head(lambda m, x: torch.softmax(m.lstm(x)[0], 1)),
            "softmax in Wrapped.forward: expected the values of one step along the last axis",
        ),
        (
            lambda: lstm_and_head(lambda m, x: m.lstm(x)[0][:, 0]),
            "expected values of every step.* with values of step 0, counted from 0",
        ),
    ],
)
def test_refusals_name_the_part_and_the_reason(module, message):
    with pytest.raises(ReaderError, match=message):
        read(module())


def test_torchscript_is_refused():
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        scripted = torch.jit.script(nn.Linear(2, 2))
    with pytest.raises(ReaderError, match="found TorchScript, whose forward cannot be traced"):
        read(scripted)


def test_a_layer_that_is_never_called_is_no_reason_to_refuse():
    module = nn.Sequential(nn.Linear(2, 3))
    module[0].spare = nn.LSTM(2, 2).double()
    assert read(module).output_size == 3


def test_an_unfitting_to_model_is_refused():
    class Odd:
        def to_model(self):
            return "no model"

    with pytest.raises(ReaderError, match=r"Odd\.to_model\(\): expected a fastlstm Model"):
        read(Odd())


def test_a_size_that_the_weights_do_not_say_is_asked_for():
    module = Wrapped(lambda m, x: m.head(x[..., 1:3]), head=nn.Linear(2, 2))
    with pytest.raises(ReaderError, match=r"how many values a sample has, found .*say input_size"):
        read(module)
    model = read(module, input_size=5)
    assert model.input_size == 5
    x = torch.randn(4, 5, dtype=torch.float64)
    with torch.no_grad():
        expected = module.double()(x).numpy()
    np.testing.assert_allclose(reference.run(model, x.numpy()), expected, rtol=0, atol=1e-12)

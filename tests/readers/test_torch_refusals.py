"""What a Model cannot express is refused by name, and never approximated."""

import pytest

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
            "is no chain of known layers: its submodules ran in the order Bidirectional, and",
        ),
        (
            lambda: Wrapped(
                lambda m, x: m.lstm(x)[0].unflatten(2, (2, 4)).sum(2),
                lstm=nn.LSTM(2, 4, batch_first=True, bidirectional=True),
            ),
            r"expected the output of lstm \(LSTM\) as its result, found other values",
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
            r"could not be run on an input of shape \(1, 1, 2\): RuntimeError: Given normalized",
        ),
        (
            # A skip connection in somebody's own module is not seen as one.
            lambda: Wrapped(
                lambda m, x: m.norm(x + m.lstm(x)[0]),
                lstm=nn.LSTM(3, 3, batch_first=True),
                norm=nn.LayerNorm(3),
            ),
            r"norm \(LayerNorm\): expected the output of lstm \(LSTM\) as its input, found other",
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
        (
            lambda: lstm_and_head(lambda m, x: m.lstm(x)[0] + m.head(m.lstm(x)[0])),
            r"lstm \(LSTM\): expected the output of head \(Linear\)|expected the output of lstm",
        ),
        (
            lambda: lstm_and_head(lambda m, x: m.head(2 * m.lstm(x)[0])),
            r"head \(Linear\): expected the output of lstm \(LSTM\) as its input, found other",
        ),
        (
            lambda: lstm_and_head(lambda m, x: m.head(m.lstm(x)[0]) + 1),
            r"expected the output of head \(Linear\) as its result, found other values",
        ),
        *(
            (lambda limit=limit: lstm_and_head(lambda m, x: m.lstm(limit(x))[0]), message)
            for limit, message in (
                (lambda x: torch.max(x, torch.tensor(-1e6)), "its forward calls max"),
                (lambda x: torch.fmin(x, torch.tensor(1e6)), "its forward calls fmin"),
                (lambda x: x * (x < 1e6), "its forward calls lt"),
            )
        ),
        (
            lambda: lstm_and_head(lambda m, x: m.lstm(x)[0].clamp(-1, 1)),
            "its forward calls clamp",
        ),
        (
            lambda: Wrapped(lambda m, x: x @ m.w, w=nn.Parameter(torch.ones(3, 3))),
            "expected at least one of nn.LSTM, .* their Cells, Linear or LayerNorm, found none",
        ),
        (
            lambda: Wrapped(lambda m, x: x @ m.head.weight.T, head=nn.Linear(3, 3)),
            "its own formulas are beyond a Model",
        ),
        (
            lambda: Wrapped(lambda m, x: {"y": m.head(x)}, head=nn.Linear(3, 3)),
            "as its result, found no tensor",
        ),
        (
            lambda: Wrapped(lambda m, x: m.missing(x), head=nn.Linear(3, 3)),
            r"could not be run on an input of shape \(1, 1, 3\): AttributeError",
        ),
        (
            lambda: lstm_and_head(lambda m, x: m.lstm(x)[0].flip(1)),
            "computes something that is no chain of known layers.*greatest difference.*[0-9]",
        ),
        (
            lambda: lstm_and_head(lambda m, x: m.head(m.lstm(x)[0]).cumsum(1)),
            "is no chain of known layers: its submodules ran in the order LSTM, Dense",
        ),
        (
            lambda: lstm_and_head(lambda m, x: torch.softmax(m.lstm(x)[0], 1)),
            "expected the output|is no chain of known layers",
        ),
        (
            lambda: lstm_and_head(lambda m, x: m.lstm(x)[0][:, 0]),
            "is no chain of known layers",
        ),
        (lambda: nn.Linear(2, 2).state_dict(), "expected a torch.nn.Module, found OrderedDict"),
    ],
)
def test_refusals_name_the_part_and_the_reason(module, message):
    with pytest.raises(ReaderError, match=message):
        read(module())


def test_torchscript_is_refused():
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        scripted = torch.jit.script(nn.Linear(2, 2))
    with pytest.raises(ReaderError, match="found TorchScript, whose forward cannot be watched"):
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

"""What is read from a torch module computes what the module computes, in float64 to 1e-12."""

import copy
import sys

import numpy as np
import pytest

from fastlstm import reference
from fastlstm.errors import MissingExtraError
from fastlstm.model import GRU, LSTM, RNN, Affine, Bidirectional, Dense, Model
from fastlstm.readers.torch_module import read

torch = pytest.importorskip("torch", reason="torch is not installed")
nn = torch.nn

RECURRENT = {
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "RNN": nn.RNN,
    "RNN-relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
}
CELLS = {
    "LSTM": nn.LSTMCell,
    "GRU": nn.GRUCell,
    "RNN": nn.RNNCell,
    "RNN-relu": lambda *a, **k: nn.RNNCell(*a, nonlinearity="relu", **k),
}


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def series(size, steps=40):
    return np.random.default_rng(5).standard_normal((steps, size))


def in_float64(module, x):
    """The module's own outputs over x, in float64 and eval mode."""
    torch.set_default_dtype(torch.float64)  # for what forward makes itself
    try:
        with torch.no_grad():
            out = copy.deepcopy(module).double().eval()(torch.from_numpy(x))
    finally:
        torch.set_default_dtype(torch.float32)
    while isinstance(out, tuple):
        out = out[0]
    return out.numpy()


def assert_reads_as(module, model, *, batch_first=True):
    x = series(model.input_size)
    laid_out = x[None] if batch_first else x[:, None]
    expected = in_float64(module, laid_out).reshape(len(x), -1)
    np.testing.assert_allclose(reference.run(model, x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("hidden", [1, 3, 16, 17])
@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_modules(kind, hidden, layers):
    # Both layouts, each with biases in one half of the cases and without in the other.
    for batch_first in (True, False):
        bias = batch_first == ((hidden + layers) % 2 == 0)
        module = RECURRENT[kind](2, hidden, layers, bias=bias, batch_first=batch_first)
        model = read(module)
        assert [type(layer) for layer in model.layers] == [
            {"LSTM": LSTM, "GRU": GRU}.get(kind, RNN)
        ] * layers
        assert_reads_as(module, model, batch_first=batch_first)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", [*RECURRENT, "LSTM-projected"])
@pytest.mark.parametrize("both", [False, True], ids=["forward", "bidirectional"])
def test_both_directions_and_projections(kind, layers, both):
    make, options = RECURRENT.get(kind, nn.LSTM), {"bidirectional": both}
    if kind == "LSTM-projected":
        options["proj_size"] = 3
    module = make(2, 7, layers, bias=(layers + both) % 2 == 0, **options)
    model = read(module)
    assert [type(layer) is Bidirectional for layer in model.layers] == [both] * layers
    assert_reads_as(module, model, batch_first=False)


class BothWays(nn.Module):
    """A tagger with a learned state for each layer and direction."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 5, 2, batch_first=True, bidirectional=True, proj_size=3)
        self.head = nn.Linear(6, 4)
        self.h, self.c = (nn.Parameter(torch.randn(4, 1, size)) for size in (3, 5))

    def forward(self, x):
        batch = (-1, x.size(0), -1)
        state = (self.h.expand(batch).contiguous(), self.c.expand(batch).contiguous())
        return torch.softmax(self.head(torch.relu(self.lstm(x, state)[0])), -1)


def test_a_bidirectional_module_with_its_own_initial_state():
    module = BothWays()
    model = read(module)
    kinds = [layer.kind for layer in model.layers]
    assert kinds == ["Bidirectional", "Bidirectional", "Dense", "Dense"]
    for k, half in enumerate(
        h for layer in model.layers[:2] for h in (layer.forward, layer.backward)
    ):
        np.testing.assert_array_equal(half.h0, module.h[k, 0].detach().numpy())
        np.testing.assert_array_equal(half.c0, module.c[k, 0].detach().numpy())
    assert_reads_as(module, model)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", CELLS)
def test_cells(kind, bias):
    module = CELLS[kind](3, 5, bias=bias)
    model = read(module)
    double, state, expected = copy.deepcopy(module).double(), None, []
    x = series(3)
    with torch.no_grad():
        for row in torch.from_numpy(x):
            state = double(row[None], state)
            expected.append((state[0] if kind == "LSTM" else state).numpy()[0])
    np.testing.assert_allclose(reference.run(model, x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.Sigmoid, lambda: nn.Softmax(-1)])
def test_an_activation_joins_the_linear_before_it(activation):
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), activation(), nn.Identity())
    model = read(module)
    assert len(model.layers) == 1
    assert_reads_as(module, model)


def test_an_activation_elsewhere_stands_on_an_identity_matrix():
    module = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 4), nn.Tanh(), nn.Sigmoid())
    model = read(module)
    assert [layer.options["activation"] for layer in model.layers] == ["relu", "tanh", "sigmoid"]
    np.testing.assert_array_equal(model.layers[0].weight, np.eye(3))
    assert_reads_as(module, model)


def test_a_softmax_over_axis_1_is_one_over_values_where_there_is_no_time():
    module = nn.Sequential(nn.Linear(3, 4), nn.Softmax(dim=1))
    x = series(3)
    np.testing.assert_allclose(
        reference.run(read(module), x), in_float64(module, x), rtol=0, atol=1e-12
    )


class Forecaster(nn.Module):
    """The module of every tutorial: zero state made in forward, head on every step."""

    def __init__(self):
        super().__init__()
        # Registered in another order than they run in.
        self.head = nn.Linear(5, 2)
        self.drop = nn.Dropout(0.4)
        self.encoder = nn.LSTM(3, 7, 2, batch_first=True, dropout=0.3)
        self.decoder = nn.GRU(7, 5, batch_first=True)
        self.loss = nn.MSELoss()

    def forward(self, x):
        h = torch.zeros(2, x.size(0), 7)
        y, _ = self.encoder(x, (h, torch.zeros_like(h)))
        y, state = self.decoder(self.drop(y))
        return torch.sigmoid(self.head(nn.functional.relu(y))), state


def test_a_chain_is_read_in_the_order_in_which_it_runs():
    module = Forecaster()
    model = read(module, {"made by": "a test"})
    assert [layer.kind for layer in model.layers] == ["LSTM", "LSTM", "GRU", "Dense", "Dense"]
    assert model.metadata["made by"] == "a test"
    assert_reads_as(module, model)


class LastStep(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.lstm, self.head, self.how = nn.LSTM(1, 6, 2, batch_first=True), nn.Linear(6, 1), how

    def forward(self, x):
        y, (h, _) = self.lstm(x)
        return self.head(h[-1] if self.how == "h" else y[:, -1]).squeeze(-1)


@pytest.mark.parametrize("how", ["h", "y"])
def test_many_to_one_is_read_as_the_stream_whose_last_output_it_is(how):
    module = LastStep(how)
    x = series(1)
    expected = in_float64(module, x[None])
    np.testing.assert_allclose(reference.run(read(module), x)[-1], expected, rtol=0, atol=1e-12)


class LearnedStart(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 4, 2)
        self.h, self.c = (nn.Parameter(torch.randn(2, 1, 4)) for _ in range(2))

    def forward(self, x):
        batch = (-1, x.size(1), -1)
        return self.lstm(x, (self.h.expand(batch).contiguous(), self.c.expand(batch).contiguous()))


def test_a_learned_initial_state_is_kept():
    module = LearnedStart()
    model = read(module)
    for k, layer in enumerate(model.layers):
        np.testing.assert_array_equal(layer.h0, module.h[k, 0].detach().numpy())
        np.testing.assert_array_equal(layer.c0, module.c[k, 0].detach().numpy())
    assert_reads_as(module, model, batch_first=False)


class Unrolled(nn.Module):
    """A loop over a cell, batch of scalar series in, as in the sine tutorial."""

    def __init__(self):
        super().__init__()
        self.cell, self.top, self.head = nn.LSTMCell(1, 5), nn.GRUCell(5, 4), nn.Linear(4, 1)

    def forward(self, x):
        h = c = torch.zeros(x.size(0), 5)
        g = torch.zeros(x.size(0), 4)
        outputs = []
        for column in x.split(1, dim=1):
            h, c = self.cell(column, (h, c))
            g = self.top(h, g)
            outputs.append(self.head(g))
        return torch.cat(outputs, 1)


def test_a_loop_over_cells():
    module = Unrolled()
    x = series(1)
    expected = in_float64(module, x.T).T
    np.testing.assert_allclose(reference.run(read(module), x), expected, rtol=0, atol=1e-12)


class OneStep(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRUCell(2, 4), nn.Linear(4, 3)

    def forward(self, x, state):
        state = self.cell(x, state)
        return self.head(state), state


def test_a_module_of_one_step_that_hands_its_state_back():
    module = OneStep()
    model = read(module)
    x, state, expected = series(2), None, []
    double = copy.deepcopy(module).double()
    with torch.no_grad():
        for row in torch.from_numpy(x):
            y, state = double(row[None], state)
            expected.append(y.numpy()[0])
    np.testing.assert_allclose(reference.run(model, x), expected, rtol=0, atol=1e-12)


class Normalised(nn.Module):
    """BatchNorm over the channels of a sequence, which it wants in the middle."""

    def __init__(self, affine=True):
        super().__init__()
        self.lstm = nn.LSTM(2, 4, batch_first=True)
        self.norm = nn.BatchNorm1d(4, affine=affine)

    def forward(self, x):
        return self.norm(self.lstm(x)[0].transpose(1, 2)).transpose(1, 2)


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_folds_into_an_affine(affine):
    module = Normalised(affine)
    with torch.no_grad():
        for values in (module.norm.running_mean, module.norm.weight, module.norm.bias):
            if values is not None:
                values.uniform_(-2, 2)
        module.norm.running_var.uniform_(0.1, 3)
    model = read(module)
    assert isinstance(model.layers[1], Affine)
    x = series(2)
    # Scale and shift are rounded to float32 once, a relative 6e-8 of values around 10.
    np.testing.assert_allclose(
        reference.run(model, x), in_float64(module, x[None])[0], rtol=0, atol=2e-6
    )


@pytest.mark.parametrize(
    "options", [{}, {"eps": 1}, {"bias": False}, {"elementwise_affine": False, "eps": 1e-7}]
)
def test_layer_norm_over_the_values_of_a_step(options):
    norm = nn.LayerNorm(5, **options)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.uniform_(-2, 2)
    alone = read(norm)
    assert alone.layers[0].eps == options.get("eps", 1e-5)
    assert_reads_as(norm, alone)
    module = nn.Sequential(nn.Linear(3, 5), norm, nn.Tanh(), nn.Linear(5, 2))
    model = read(module)
    assert [layer.kind for layer in model.layers] == ["Dense", "LayerNorm", "Dense", "Dense"]
    assert_reads_as(module, model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_widens_exactly(dtype):
    module = nn.LSTM(2, 5).to(dtype)
    model = read(module)
    for name, array in model.layers[0].arrays.items():
        assert array.dtype == np.float32
        assert torch.equal(torch.from_numpy(array.copy()).to(dtype), getattr(module, name))
    assert_reads_as(module, model, batch_first=False)


def test_shared_weights_become_two_layers():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 3, batch_first=True)

        def forward(self, x):
            return self.lstm(self.lstm(x)[0])[0]

    module = Twice()
    model = read(module)
    assert len(model.layers) == 2
    assert_reads_as(module, model)


@pytest.mark.parametrize(
    ("make", "names"),
    [(lambda: nn.Linear(3, 2), ["weight"]), (lambda: nn.LSTM(3, 2), ["weight_hh_l0"])],
)
def test_weights_behind_a_parametrization(make, names):
    module = make()
    for name in names:
        nn.utils.parametrizations.weight_norm(module, name)
    x = series(3)
    before = in_float64(module, x[:, None])
    model = read(module)
    # The product of direction and length is rounded to float32 once.
    np.testing.assert_allclose(reference.run(model, x), before[:, 0], rtol=0, atol=2e-6)
    assert all(nn.utils.parametrize.is_parametrized(module, name) for name in names)
    np.testing.assert_array_equal(in_float64(module, x[:, None]), before)


def test_the_networks_own_twin():
    from fastlstm.train.network import Network

    entries = [{"kind": "LSTM", "hidden_size": 4}, {"kind": "Dense", "output_size": 2}]
    network = Network.from_sizes(3, entries, learned_initial_state=True)
    with torch.no_grad():
        network.layers[0].h0.uniform_(-1, 1)
    model = read(network, {"origin": "twin"})
    assert model.metadata["origin"] == "twin"
    assert_reads_as(network, model)


def test_the_module_is_left_as_it_is():
    module = Forecaster().train()
    before, random = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    model = read(module)
    assert module.training
    assert not module.encoder._forward_hooks
    assert not module.encoder._forward_pre_hooks
    assert torch.get_default_dtype() == torch.float32
    assert torch.equal(torch.get_rng_state(), random)
    kept = model.layers[0].weight_ih_l0.copy()
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    with torch.no_grad():
        module.encoder.weight_ih_l0.zero_()
    np.testing.assert_array_equal(model.layers[0].weight_ih_l0, kept)


def test_nothing_of_torch_is_left_in_the_model():
    model = read(nn.Sequential(nn.Linear(2, 3), nn.Tanh()))
    assert type(model) is Model
    assert type(model.layers[0]) is Dense
    assert all(type(array) is np.ndarray for array in model.layers[0].arrays.values())


def test_without_torch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"reading a torch module needs torch.*\[train\]"):
        read(object())

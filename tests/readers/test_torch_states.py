"""A state dict or a .safetensors file, without the code: equal to the module, or a question."""

import subprocess
import sys

import numpy as np
import pytest

import fastlstm
from fastlstm import reference
from fastlstm.errors import ReaderError
from fastlstm.model import GRU, LSTM, RNN, Bidirectional, Dense

torch = pytest.importorskip("torch", reason="torch is not installed")
nn = torch.nn
from safetensors.torch import save_file  # noqa: E402  it needs torch


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def assert_equal(model, forward, tolerance=1e-12):
    """`forward` in float64 on (1, time, inputs) against the reference."""
    x = 2 * np.random.default_rng(3).standard_normal((11, model.input_size))
    with torch.no_grad():
        expected = forward(torch.from_numpy(x)[None])[0].numpy()
    np.testing.assert_allclose(reference.run(model, x), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "projected"])
def test_a_recurrent_module_alone(kind, depth, both, bias):
    cell = "LSTM" if kind == "projected" else kind
    options = {"proj_size": 2} if kind == "projected" else {}
    module = getattr(nn, cell)(
        3, 6, depth, bias=bias, bidirectional=both, batch_first=True, **options
    )
    layers = [("", {"nonlinearity": "tanh"})] if kind == "RNN" else None
    model = fastlstm.from_torch(module.state_dict(), layers=layers)
    wanted = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}[cell]
    assert [type(layer) for layer in model.layers] == [Bidirectional if both else wanted] * depth
    assert_equal(model, lambda x: module.double()(x)[0])


def test_a_cell():
    cell = nn.GRUCell(3, 4)
    model = fastlstm.from_torch(cell.state_dict())
    cell.double()

    def forward(x):
        h, out = None, []
        for row in x[0]:
            h = cell(row[None], h)
            out.append(h)
        return torch.cat(out)[None]

    assert_equal(model, forward)


class Net(nn.Module):
    """Registered in another order than it runs in."""

    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2, bias=False))
        self.rnn = nn.RNN(6, 4, nonlinearity="relu", batch_first=True)
        self.norm = nn.LayerNorm(6, eps=1e-3)
        self.lstm = nn.LSTM(3, 6, 2, batch_first=True)

    def forward(self, x):
        return torch.sigmoid(self.head(torch.tanh(self.rnn(self.norm(self.lstm(x)[0]))[0])))


LAYERS = [
    "lstm",
    ("norm", {"kind": "LayerNorm", "eps": 1e-3}),
    ("rnn", {"nonlinearity": "relu"}),
    "tanh",
    "head.0",
    "relu",
    ("head.2", {"kind": "Linear"}),
    "sigmoid",
]


def test_a_whole_network_from_a_file(tmp_path):
    module = Net()
    save_file(module.state_dict(), tmp_path / "net.safetensors")
    model = fastlstm.from_torch(tmp_path / "net.safetensors", {"made by": "a test"}, layers=LAYERS)
    kinds = [layer.kind for layer in model.layers]
    assert kinds == ["LSTM", "LSTM", "LayerNorm", "RNN", "Dense", "Dense", "Dense"]
    assert model.metadata["made by"] == "a test"
    assert_equal(model, module.double().eval())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_widens_exactly(tmp_path, dtype):
    module = nn.LSTM(3, 4).to(dtype)
    save_file(module.state_dict(), tmp_path / "half.safetensors")
    for state in (module.state_dict(), str(tmp_path / "half.safetensors")):
        model = fastlstm.from_torch(state)
        for name, array in model.layers[0].arrays.items():
            assert torch.equal(torch.from_numpy(array.copy()).to(dtype), getattr(module, name))


def test_batch_norm_by_its_running_statistics():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    with torch.no_grad():
        for values in (module[1].running_mean, module[1].weight, module[1].bias):
            values.uniform_(-2, 2)
        module[1].running_var.uniform_(0.1, 3)
    model = fastlstm.from_torch(module.state_dict(), layers=["relu", "0", ("1", {"eps": 1e-5})])
    double = module.double().eval()
    # Scale and shift are rounded to float32 once, a relative 6e-8 of values around 10.
    assert_equal(model, lambda x: double(torch.relu(x[0]))[None], tolerance=4e-6)


def test_arrays_of_numpy_and_exact_float64():
    weight = np.arange(6, dtype=np.float64).reshape(2, 3) / 4
    state = {"fc.weight": weight, "fc.bias": np.zeros(2, np.float16)}
    model = fastlstm.from_torch(state, layers=["fc", "softmax"])
    assert isinstance(model.layers[0], Dense)
    np.testing.assert_array_equal(model.layers[0].weight, weight)
    assert model.layers[0].activation == "softmax"


def test_without_torch(tmp_path):
    save_file(nn.GRU(2, 3).state_dict(), tmp_path / "gru.safetensors")
    code = (
        "import sys; sys.modules['torch'] = None; import fastlstm; "
        f"print(fastlstm.from_torch({str(tmp_path / 'gru.safetensors')!r}).layers)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "(GRU(2, 3, reset='after'),)"


def state(module, *prefix):
    return {".".join((*prefix, name)): value for name, value in module.state_dict().items()}


def without(arrays, *names):
    return {name: value for name, value in arrays.items() if name not in names}


NET = {**state(nn.LSTM(3, 4), "lstm"), **state(nn.Linear(4, 2), "fc")}


@pytest.mark.parametrize(
    ("arrays", "layers", "message"),
    [
        (NET, None, r"Say layers=\['lstm', 'fc'\] in the order of forward"),
        (nn.Linear(3, 3).state_dict(), None, "expected the order in which the network runs"),
        (NET, ["lstm"], "expected every module of the state, found no 'fc'"),
        (NET, ["lstm", "head"], "expected the names of modules in the state, 'lstm', 'fc', or"),
        (NET, ["fc", "lstm"], "because layer 0 .* puts out 2 values.*order is perhaps another"),
        (NET, ["lstm", 3], "expected a name, or a pair"),
        (NET, [("lstm", {"eps": 1.0}), "fc"], "expected the options kind for LSTM, found 'eps'"),
        (NET, [("lstm", {"kind": "GRU"}), "fc"], "expected LSTM by its weights, found 'GRU'"),
        (NET, [("lstm", {"kind": "Conv"}), "fc"], "expected kind to be one of LSTM.*found 'Conv'"),
        (nn.RNN(2, 3).state_dict(), None, "expected the nonlinearity of an RNN.*torch's default"),
        (nn.LayerNorm(4).state_dict(), [""], "several norms have; say .*LayerNorm"),
        (
            nn.LayerNorm(4).state_dict(),
            [("", {"kind": "LayerNorm"})],
            "expected the eps of LayerNorm, which its weights do not say, found None",
        ),
        (nn.BatchNorm1d(4).state_dict(), [""], "expected the eps of BatchNorm1d"),
        (nn.Linear(4, 4, bias=False).state_dict(), [""], "which may be an Embedding too"),
        (nn.Conv1d(2, 3, 3).state_dict(), [""], r"expected one of LSTM.*found weight \(3, 2, 3\)"),
        (without(nn.LSTM(2, 3, 3).state_dict(), "weight_ih_l1"), None, "expected weight_ih_l1,"),
        (without(nn.LSTM(2, 3).state_dict(), "weight_hh_l0"), None, "expected weight_hh"),
        (without(nn.LSTM(2, 3).state_dict(), "bias_hh_l0"), None, "expected both of bias_ih_l0"),
        (
            without(nn.GRU(2, 3, bidirectional=True).state_dict(), "weight_ih_l0_reverse"),
            None,
            "expected weight_ih_l0_reverse, found",
        ),
        (
            {"weight_ih_l0": np.zeros((6, 2)), "weight_hh_l0": np.zeros((6, 3))},
            None,
            r"expected 4 \(LSTM\), 3 \(GRU\) or 1 \(RNN\) rows .* of 3 hidden units, found 6",
        ),
        (
            {"weight_ih_l9": np.zeros((4, 2)), "weight_hh_l0": np.zeros((4, 1))},
            None,
            "weight_ih_l0",
        ),
        ({"weight": np.array([[0.1]])}, [""], "weight: expected float32.*found float64"),
        ({"weight": np.array([[np.inf]])}, [""], r"weight: expected finite values, found inf"),
        ({"weight": np.array([[1]])}, [""], "weight: expected floating values, found int64"),
        ({"weight": [[1.0]]}, [""], "expected a tensor or a NumPy array, found list"),
        ({"state_dict": {}}, None, r"if that is the state dict, give state\['state_dict'\]"),
        ({}, None, "found an empty state"),
        (
            nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)).state_dict(),
            [""],
            "expected plain weights, found those of a parametrization",
        ),
    ],
)
def test_what_is_not_said_is_asked_for(arrays, layers, message):
    with pytest.raises(ReaderError, match=message):
        fastlstm.from_torch(arrays, layers=layers)


def test_files_that_are_refused(tmp_path):
    with pytest.raises(ReaderError, match=r"found a pickled one.*weights_only=True"):
        fastlstm.from_torch("net.pt")
    with pytest.raises(ReaderError, match=r"found \.onnx suffix"):
        fastlstm.from_torch("net.onnx")
    with pytest.raises(ReaderError, match="cannot be read: No such file"):
        fastlstm.from_torch(tmp_path / "absent.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\xff" * 64)
    with pytest.raises(ReaderError, match=r"expected a whole \.safetensors file"):
        fastlstm.from_torch(broken)
    ours = fastlstm.from_torch(nn.GRU(2, 3).state_dict()).save(tmp_path / "ours.safetensors")
    with pytest.raises(ReaderError, match=r"read it with fastlstm\.load"):
        fastlstm.from_torch(ours)
    with pytest.raises(ReaderError, match="expected none beside a module"):
        fastlstm.from_torch(nn.GRU(2, 3), layers=["gru"])
    with pytest.raises(ReaderError, match=r"or a \.safetensors file, found int"):
        fastlstm.from_torch(3)

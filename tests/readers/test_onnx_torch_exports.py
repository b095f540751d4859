"""What torch's two ONNX exporters write of nn.LSTM, nn.GRU and nn.RNN reads back: equal weights."""

import io
import logging
import subprocess
import sys
import warnings

import numpy as np
import pytest

from fastlstm import from_onnx, reference
from fastlstm.errors import ReaderError
from fastlstm.model import GRU, LSTM, RNN, Bidirectional, Dense
from fastlstm.readers.places import layer_key

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")

from torch import nn  # noqa: E402  after the skip

KINDS = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}
PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class Network(nn.Module):
    """One recurrent module and a head, on every step or on the last one."""

    def __init__(self, kind, layers, *, both=False, last=False, **options):
        super().__init__()
        self.rnn = getattr(nn, kind)(3, 4, layers, bidirectional=both, **options)
        self.head = nn.Linear(8 if both else 4, 2)
        self.last = last

    def forward(self, x):
        y, _ = self.rnn(x)
        if self.last:
            y = y[:, -1] if self.rnn.batch_first else y[-1]
        return self.head(y)


def layers_of(network):
    """What the Model must hold, from the module's own parameters."""
    rnn, found = network.rnn, []
    options = {"nonlinearity": rnn.nonlinearity} if rnn.mode.startswith("RNN") else {}
    for k in range(rnn.num_layers):
        halves = []
        for suffix in ("", "_reverse")[: 1 + rnn.bidirectional]:
            names = {f"{p}_l0": f"{p}_l{k}{suffix}" for p in PARAMETERS}
            arrays = {
                name: getattr(rnn, theirs).detach().numpy()
                for name, theirs in names.items()
                if hasattr(rnn, theirs)
            }
            halves.append(KINDS[type(rnn).__name__](**arrays, **options))
        found.append(Bidirectional(*halves) if rnn.bidirectional else halves[0])
    head = network.head
    return [*found, Dense(head.weight.detach().numpy(), head.bias.detach().numpy())]


def exported(network, *, dynamo, dynamic=False):
    """The bytes that an exporter writes; what it prints and warns of is its own affair."""
    x = torch.randn(5, 7, 3)
    file = io.BytesIO()
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if dynamo:
                program = torch.onnx.export(network, (x,), dynamo=True, verbose=False)
                return program.model_proto.SerializeToString()
            axes = {"x": {0: "b", 1: "t"}} if dynamic else None
            torch.onnx.export(
                network, (x,), file, dynamo=False, dynamic_axes=axes, input_names=["x"]
            )
    finally:
        logging.disable(level)
    return file.getvalue()


def network(*args, **options):
    torch.manual_seed(0)
    return Network(*args, **options).eval()


def assert_equal(model, module):
    assert [layer_key(a) for a in model.layers] == [layer_key(b) for b in layers_of(module)]
    x = np.random.default_rng(0).standard_normal((9, 3))
    with torch.no_grad():
        batch = (
            torch.from_numpy(x)[None] if module.rnn.batch_first else torch.from_numpy(x)[:, None]
        )
        expected = module.double()(batch).numpy().reshape(-1, 2)
    found = reference.run(model, x)[-1:] if module.last else reference.run(model, x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("first", [False, True], ids=["time-first", "batch-first"])
@pytest.mark.parametrize("both", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_torchscript_exporter(kind, layers, both, first, dynamic):
    module = network(kind, layers, both=both, batch_first=first)
    assert_equal(from_onnx(exported(module, dynamo=False, dynamic=dynamic)), module)


@pytest.mark.parametrize("first", [False, True], ids=["time-first", "batch-first"])
@pytest.mark.parametrize("both", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("kind", KINDS)
def test_torchscript_exporter_of_the_last_step_without_biases(kind, both, first):
    module = network(kind, 1, both=both, batch_first=first, last=True, bias=False)
    assert_equal(from_onnx(exported(module, dynamo=False, dynamic=True)), module)


def test_torchscript_exporter_of_relu():
    module = network("RNN", 2, nonlinearity="relu")
    assert_equal(from_onnx(exported(module, dynamo=False, dynamic=True)), module)


# One export takes a second: most of the combinations are for the slow run.
@pytest.mark.parametrize(
    ("kind", "layers", "both", "first"),
    [
        pytest.param(
            *(kind, layers, both, (layers + both + len(kind)) % 2 == 0),
            marks=[pytest.mark.slow] if (layers + both) % 2 or layers == 3 else [],
        )
        for kind in KINDS
        for layers in (1, 2, 3)
        for both in (False, True)
    ],
)
def test_dynamo_exporter(kind, layers, both, first):
    module = network(kind, layers, both=both, batch_first=first)
    assert_equal(from_onnx(exported(module, dynamo=True)), module)


@pytest.mark.parametrize("kind", KINDS)
def test_dynamo_exporter_of_the_last_step_without_biases(kind):
    module = network(kind, 2, last=True, bias=False, batch_first=True)
    assert_equal(from_onnx(exported(module, dynamo=True)), module)


def test_the_backward_half_of_a_last_step_alone_is_refused():
    # One step of it is all that the exporter leaves: its recurrent weights are not in the file.
    data = exported(network("RNN", 1, both=True, last=True, batch_first=True), dynamo=True)
    with pytest.raises(ReaderError, match="side by side"):
        from_onnx(data)


EXPORT = """
import sys, torch, logging, warnings
logging.disable(logging.ERROR)
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
import test_onnx_torch_exports as here
dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
for kind in ("LSTM", "GRU"):
    program = torch.onnx.export(
        here.network(kind, 2, batch_first=True),
        (torch.randn(5, 7, 3),),
        dynamo=True,
        verbose=False,
        dynamic_shapes=(dynamic,),
    )
    program.save(f"{sys.argv[2]}/{kind}.onnx")
"""


def test_dynamo_exporter_with_dynamic_sizes(tmp_path, request):
    # In a process of its own: torch 2.13 lets only the first export of a kind in one have them.
    folder = str(request.path.parent)
    subprocess.run(
        [sys.executable, "-c", EXPORT, folder, str(tmp_path)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    for kind in ("LSTM", "GRU"):
        module = network(kind, 2, batch_first=True)
        assert_equal(from_onnx(tmp_path / f"{kind}.onnx"), module)

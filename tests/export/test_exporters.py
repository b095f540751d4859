"""Every exporter: its check catches a wrong file, older files survive, and its snippet runs."""

import shutil
import sys
import warnings

import numpy as np
import pytest

import cases
import checks
from fastlstm import export, reference
from fastlstm.errors import ExportError, MissingExtraError
from fastlstm.export import inductor_package, onnx_graph, onnx_recurrent, torchscript_module
from fastlstm.export.replay import BATCH, BATCH_STEPS, STREAMS, WAYS, replay
from fastlstm.model import LSTM, Model

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

MODEL = Model((cases.recurrent("LSTM", 2, 5), cases.recurrent("GRU", 5, 4), cases.dense(4, 1)))
FILES = {"onnx": "m.onnx", "torchscript": "m.ts", "inductor": "m.pt2"}
QUICK = ("onnx", "torchscript")


needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler is installed"
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def run_snippet(snippet):
    """The names that the snippet leaves behind; run as a user would, where warnings only warn."""
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is ", DeprecationWarning)
        exec(snippet, names)
    return names


@pytest.mark.parametrize("target", QUICK)
@pytest.mark.parametrize("name", ["learned-start", "mixed", "scaled", "dense-only"])
def test_what_is_written_was_checked_and_its_snippet_runs(target, name, tmp_path):
    model = cases.model(name)
    done = getattr(export, target)(model, str(tmp_path / FILES[target]))
    assert done.path == tmp_path / FILES[target]
    assert done.target == target
    at_once = BATCH * BATCH_STEPS if target == "onnx" else 0
    assert done.steps == len(WAYS) * sum(steps for steps, _ in STREAMS) + at_once
    assert done.opset == (onnx_graph.OPSET if target == "onnx" else 0)
    assert 0 < done.max_abs_error <= done.bound
    assert list(tmp_path.iterdir()) == [done.path]
    assert len(done.snippet.splitlines()) == 5
    y = np.asarray(run_snippet(done.snippet)["y"])
    steps = 10 if target == "onnx" else 20
    expected = reference.run(model, np.zeros((steps, model.input_size)))[-10:]
    np.testing.assert_allclose(y[0], expected, rtol=1e-6, atol=1e-6)


def swapped_gates(monkeypatch):
    monkeypatch.setitem(onnx_recurrent.GATES, "LSTM", (0, 3, 2, 1))


def default_reset(monkeypatch):
    node = onnx_graph._Graph.node

    def as_keras(self, kind, inputs, output, **attributes):
        if kind == "GRU":
            attributes["linear_before_reset"] = 0
        return node(self, kind, inputs, output, **attributes)

    monkeypatch.setattr(onnx_graph._Graph, "node", as_keras)


def dropped_bias(monkeypatch):
    recurrent = onnx_graph._Graph.recurrent

    def without(self, k, layer, x):
        if isinstance(layer, LSTM):
            layer = LSTM(layer.weight_ih_l0, layer.weight_hh_l0)
        return recurrent(self, k, layer, x)

    monkeypatch.setattr(onnx_graph._Graph, "recurrent", without)


def forgotten_cell_state(monkeypatch):
    """The file is right over one sequence and wrong wherever its state is fed back."""
    node = onnx_graph._Graph.node

    def stale(self, kind, inputs, output, **attributes):
        if output == "cN_l0":
            inputs = ["hN_l0_wide", *inputs[1:]]
        return node(self, kind, inputs, output, **attributes)

    monkeypatch.setattr(onnx_graph._Graph, "node", stale)


@pytest.mark.parametrize(
    "fault", [swapped_gates, default_reset, dropped_bias, forgotten_cell_state]
)
def test_a_wrong_onnx_exporter_is_caught_before_anything_is_written(fault, monkeypatch, tmp_path):
    older = tmp_path / "m.onnx"
    older.write_bytes(b"an older file")
    fault(monkeypatch)
    with pytest.raises(ExportError) as caught:
        export.onnx(MODEL, older)
    assert "expected the reference's outputs within" in str(caught.value)
    assert "nothing was written" in str(caught.value)
    assert caught.value.__cause__ is None
    assert older.read_bytes() == b"an older file"
    assert list(tmp_path.iterdir()) == [older]


@pytest.mark.parametrize("array", ["bias_hh_l0", "weight_hh_l0"])
def test_a_wrong_torchscript_exporter_is_caught(array, monkeypatch, tmp_path):
    from fastlstm.train.network import Network

    built = Network.from_model

    def wrong(model):
        network = built(model)
        with torch.no_grad():
            getattr(network.layers[0], array)[3:5] = 0.5
        return network

    monkeypatch.setattr(Network, "from_model", wrong)
    (tmp_path / "m.ts").write_bytes(b"an older file")
    with pytest.raises(ExportError, match="TorchScript, as one sequence: over 16 steps expected"):
        export.torchscript(MODEL, tmp_path / "m.ts")
    assert (tmp_path / "m.ts").read_bytes() == b"an older file"


def test_a_session_that_forgets_its_state_is_caught():
    from fastlstm.export.sessions import OnnxSession

    class Forgetful(OnnxSession):
        def step(self, x):
            self.reset()
            return super().step(x)

    with pytest.raises(ExportError, match="ONNX, one step at a time: over 16 steps"):
        replay(MODEL, Forgetful(MODEL), "ONNX")


def rows_in_reverse(y, states):
    return y[::-1], states


def states_of_the_first_row(y, states):
    return y, [np.repeat(state[:1], len(state), axis=0) for state in states]


def time_before_batch(y, states):
    return y.swapaxes(0, 1), states


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (rows_in_reverse, "7 sequences at once: over 112 steps expected the reference's outputs"),
        (states_of_the_first_row, "7 sequences at once: over 112 steps expected the reference's"),
        (time_before_batch, r"at once: expected outputs \(7, 16, 1\), found \(16, 7, 1\)"),
    ],
)
def test_a_batch_whose_rows_are_not_sequences_of_their_own_is_caught(fault, message):
    from fastlstm.export.sessions import OnnxSession

    session = OnnxSession(MODEL)

    def batch(x, lengths):
        return fault(*session.batch(x, lengths))

    with pytest.raises(ExportError, match=message):
        replay(MODEL, session, "ONNX", batch=batch)


@pytest.mark.parametrize("target", FILES)
def test_a_place_that_cannot_be_written_is_said_at_once(target, tmp_path):
    exporter = getattr(export, target)
    with pytest.raises(ExportError, match=r"cannot be written: there is no folder .*absent"):
        exporter(MODEL, tmp_path / "absent" / FILES[target])
    with pytest.raises(ExportError, match="expected the name of a file, found a folder"):
        exporter(MODEL, tmp_path)


def test_a_disk_that_fails_leaves_the_older_file(monkeypatch, tmp_path):
    from fastlstm.export import replay as place

    def full(*_):
        raise OSError(28, "No space left on device")

    older = tmp_path / "m.onnx"
    older.write_bytes(b"an older file")
    monkeypatch.setattr(place.os, "fsync", full)
    with pytest.raises(ExportError, match="cannot be written: No space left on device") as caught:
        export.onnx(MODEL, older)
    assert caught.value.__cause__ is None
    assert older.read_bytes() == b"an older file"
    assert list(tmp_path.iterdir()) == [older]


@pytest.mark.parametrize(
    ("target", "library", "message"),
    [
        ("onnx", "onnx", r"exporting to ONNX needs onnx,.*\[onnx\]"),
        ("onnx", "onnxruntime", r"running ONNX needs onnxruntime,.*\[onnx\]"),
        ("torchscript", "torch", r"exporting to TorchScript needs torch,.*\[train\]"),
        ("inductor", "torch", r"exporting to Inductor needs torch,.*\[train\]"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(target, library, message, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=message):
        getattr(export, target)(MODEL, tmp_path / FILES[target])
    assert not list(tmp_path.iterdir())


def test_torchscript_takes_any_batch_and_time():
    model = cases.model("learned-start")
    module = torchscript_module.to_torchscript(model)
    x = np.stack([reference.check_input(model, 12, seed) for seed in range(7)])
    pieces = torch.from_numpy(x).split([1, 4, 7], dim=1)
    state, outputs = module.initial_state(pieces[0]), []
    for piece in pieces:
        y, state = module(piece, state)
        outputs.append(y)
    found = torch.cat(outputs, dim=1).numpy()
    for sequence, y in zip(x, found, strict=True):
        np.testing.assert_allclose(y, reference.run(model, sequence), rtol=0, atol=1e-6)


def test_an_inductor_package_needs_its_suffix_and_a_compiler(monkeypatch, tmp_path):
    with pytest.raises(ExportError, match=r"m\.so: expected a name that ends in \.pt2"):
        export.inductor(MODEL, tmp_path / "m.so")

    from torch._inductor import cpp_builder

    def none():
        raise RuntimeError("no compiler")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(ExportError, match=r"needs a C\+\+ compiler and found none.*install g\+\+"):
        export.inductor(MODEL, tmp_path / "m.pt2")
    with pytest.raises(ExportError, match=r"needs a C\+\+ compiler"):
        inductor_package.compile_step(MODEL)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", cases.MODELS)
def test_the_step_for_inductor_before_it_is_compiled(name):
    checks.step_for_inductor_is_right(cases.model(name), atol=1e-11)


@needs_compiler
def test_the_inductor_package(tmp_path):
    model = Model((cases.affine(2), *MODEL.layers, cases.dense(1, 3, "softmax")))
    done = export.inductor(model, tmp_path / "m.pt2")
    assert 0 < done.max_abs_error <= done.bound
    assert list(tmp_path.iterdir()) == [done.path]
    y = run_snippet(done.snippet)["y"].detach().numpy()
    expected = reference.run(model, np.zeros((1, 2)))
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6)

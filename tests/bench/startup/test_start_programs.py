"""Start-up: each ready program computes the reference's numbers from the file that it ships."""

import runpy

import numpy as np
import pytest

import cases
from fastlstm import reference
from fastlstm.bench.startup.processes import start
from fastlstm.bench.startup.program_list import PROGRAMS
from fastlstm.bench.startup.shipped_files import ShippedFiles
from fastlstm.model import Model
from fastlstm.verify import truth

# Both ends scaled, layers that torch takes as one module and layers that it does not, initial
# states, no bias, every kind of activation that a program knows.
START = (
    cases.affine(3),
    cases.recurrent("LSTM", 3, 6, seed=1, initial=True),
    cases.recurrent("LSTM", 6, 6, seed=2),
    cases.recurrent("LSTM", 6, 5, seed=3, bias=False),
    cases.recurrent("GRU", 5, 7, seed=4, initial=True),
    cases.recurrent("GRU", 7, 7, seed=5),
)
END = (cases.dense(4, 3, "softmax"), cases.dense(3, 2), cases.affine(2))
CHAIN = Model(
    (
        *START,
        cases.recurrent("RNN", 7, 4, seed=6, nonlinearity="relu"),
        cases.recurrent("RNN", 4, 4, seed=7, initial=True),
        cases.dense(4, 5, "tanh"),
        cases.dense(5, 4, "sigmoid", bias=False),
        *END,
    )
)
# OpenCV has no RNN and takes no biases left out, and our own runtime compiles for each kind and
# size of a layer.
MODELS = {
    "OpenCV dnn": Model((*START[:3], cases.dense(6, 4, "tanh"), *END)),
    "fastlstm": Model((*START[:2], cases.dense(6, 2))),
}
STEPS = 40
BY_NAME = {program.name: program for program in PROGRAMS}


# The two programs that compile C++ run in test_start_compiled_programs.py.
@pytest.mark.parametrize("name", [n for n in BY_NAME if n not in ("AOTInductor", "torch.compile")])
def test_a_program_computes_the_reference(name, tmp_path):
    program, model = BY_NAME[name], MODELS.get(name, CHAIN)
    if missing := program.missing():
        pytest.skip(missing)
    if program.ships == "onnx":
        pytest.importorskip("onnxruntime")
    path, reason = ShippedFiles(model, tmp_path).file(program.ships)
    assert reason == ""
    x = np.random.default_rng(5).standard_normal((STEPS, 3)).astype(np.float32)
    np.save(tmp_path / "input.npy", x)
    arguments = (str(path), str(tmp_path / "input.npy"), "steps")
    answer = start(program.script, arguments, {}, clock=lambda: 0)
    outputs, true = np.array(answer.figures["outputs"]), truth(model, x)
    assert np.abs(outputs - true.output).max() <= true.bound
    assert answer.first.tolist() == outputs[0].tolist()
    # A program that forgot the state would be seen.
    forgetful = np.concatenate([reference.run(model, sample[None]) for sample in x])
    assert np.abs(forgetful - true.output).max() > 100 * true.bound


def test_the_step_that_torch_compiles_is_the_reference(tmp_path):
    torch = pytest.importorskip("torch")
    program = runpy.run_path(str(BY_NAME["torch.compile"].script))
    path = CHAIN.save(tmp_path / "model.safetensors")
    tensors = pytest.importorskip("safetensors.torch").load_file(path)
    layers = [{"kind": layer.kind, **layer.options} for layer in CHAIN.layers]
    network = program["Network"](layers, tensors)
    x = np.random.default_rng(5).standard_normal((STEPS, 3)).astype(np.float32)
    carried = [torch.from_numpy(state.initial[None].copy()) for state in CHAIN.states]
    outputs = []
    with torch.no_grad():
        for sample in torch.from_numpy(x).split(1):
            y, *carried = network(sample, *carried)
            outputs.append(y.numpy()[0])
    true = truth(CHAIN, x)
    assert np.abs(np.array(outputs) - true.output).max() <= true.bound


@pytest.mark.parametrize("name", ["torch eager", "torch.compile"])
@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (cases.recurrent("LSTM", 2, 4, peephole=True), "LSTM with peephole_l0"),
        (cases.recurrent("LSTM", 2, 4, projection=3), "LSTM with weight_hr_l0"),
        (cases.recurrent("GRU", 2, 4, reset="before"), "GRU with reset before"),
        (cases.layer_norm(2), "LayerNorm"),
    ],
)
def test_a_layer_that_a_program_does_not_know_is_refused(name, layer, words, tmp_path):
    pytest.importorskip("torch")
    path = Model((layer,)).save(tmp_path / "model.safetensors")
    # In this process, because both refuse before they change any of torch's settings.
    load = runpy.run_path(str(BY_NAME[name].script))["load"]
    with pytest.raises(NotImplementedError, match=f"knows no layer of the kind {words}$"):
        load(str(path))


def test_an_onnx_file_of_another_writer_is_refused_by_the_reader_of_metadata():
    pytest.importorskip("cv2")
    read = runpy.run_path(str(BY_NAME["OpenCV dnn"].script))["metadata"]
    # Field 1, a number, then field 14 with the key "other" and the value "{}".
    message = b"\x08\x96\x01" + b"\x72\x0b" + b"\x0a\x05other\x12\x02{}"
    with pytest.raises(ValueError, match="no such metadata"):
        read(message)
    ours = b"\x72\x11" + b"\x0a\x08fastlstm\x12\x05" + b"[1,2]"
    assert read(message + ours) == [1, 2]

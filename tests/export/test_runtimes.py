"""Every runtime that can be had here runs the exported file as the reference does."""

import functools
import os
import sys

import numpy as np
import pytest

import cases
import checks
import onnx_files
from fastlstm import reference
from fastlstm.errors import UnsupportedError
from fastlstm.export import onnx_graph, onnx_half, opencv_runtime
from fastlstm.export.card import state_names
from fastlstm.export.cells import CELLS
from fastlstm.export.matrix import VARIABLE, matrix
from fastlstm.export.runtime_list import RUNTIMES
from fastlstm.export.runtimes import LONGEST_REASON, not_installed, refusal, version_of
from fastlstm.model import Model
from fastlstm.verify import truth

NAMES = [runtime.name for runtime in RUNTIMES]
MATRIX = [
    *("LSTM", "GRU reset before", "RNN relu", "BiGRU", "BiRNN tanh", "LSTM peepholes"),
    *("BiLSTM proj. + peep.", "Difference, LSTM", "Affine, LSTM, softmax"),
]
PADDED = [  # a cell, in both directions or one, with weights of float16 or float32
    ("lstm", False, False),
    ("lstm", True, True),
    ("gru", True, False),
    ("rnn", True, False),
    ("projection", True, True),
    ("peephole-and-projection", False, False),
    ("peephole-and-projection", True, True),
]
# What a runtime refuses, by a part of the cell's name, and in which words. OpenCV 5.0 tries another
# engine then, whose words stand there where the graph has lengths.
OTHER_ENGINE = "!isDynamicShape"
LACKS = {
    "ONNX reference evaluator": {"RNN relu": ("Unknown activation function 'Relu'",)},
    "OpenCV dnn": {
        "RNN": ('of type "RNN"', "Attribute[activations]", OTHER_ENGINE),
        "peep": ("Attribute[body]: 'Graph' is not supported", OTHER_ENGINE),
    },
}


@pytest.fixture(params=RUNTIMES, ids=NAMES)
def runtime(request):
    """Each runtime; one that is not installed skips, or fails where every one is wanted."""
    return there(request.param)


def there(runtime):
    if missing := runtime.missing() or not_installed("onnx")():
        if os.environ.get("FASTLSTM_EVERY_RUNTIME"):
            pytest.fail(f"{runtime.name}: {missing}")
        pytest.skip(f"{runtime.name}: {missing}")
    return runtime


def named(name):
    return there(next(runtime for runtime in RUNTIMES if runtime.name == name))


def loaded(runtime, model):
    return runtime.load(onnx_graph.build(model).SerializeToString())


@pytest.mark.parametrize("name", ["mixed", "learned-start-lstm", "residual-columns"])
def test_a_stream_and_a_batch_of_a_loaded_file_are_right(runtime, name):
    model = (
        Model((cases.recurrent("LSTM", 2, 24, initial=True), cases.recurrent("GRU", 24, 9)))
        if name == "learned-start-lstm"
        else cases.model(name)
    )
    runner = loaded(runtime, model)
    pairs = [state_names(state) for state in model.states]
    true = truth(model, reference.check_input(model, 30, seed=5))
    states, outputs = onnx_graph.initial_states(model), []
    for sample in true.x:
        found = runner.run({"x": sample[None, None], **states})
        outputs.append(found["y"][0, 0])
        states = {before: found[after] for before, after in pairs}
    np.testing.assert_allclose(outputs, true.output, rtol=0, atol=true.bound)
    for (before, _), exact in zip(pairs, true.state, strict=True):
        np.testing.assert_allclose(states[before][0], exact, rtol=0, atol=true.state_bound)

    x = np.stack([reference.check_input(model, 20, seed) for seed in range(7)])
    found = runner.run({"x": x, **onnx_graph.initial_states(model, 7)})
    checks.batch_is_right(model, x, found["y"], [found[after] for _, after in pairs])
    runner.close()
    runner.close()


def test_outputs_are_the_callers_to_keep_and_inputs_stay_as_they_were(runtime):
    model = cases.model("lstm-bare")
    runner = loaded(runtime, model)
    feeds = {"x": reference.check_input(model, 4)[None], **onnx_graph.initial_states(model)}
    before = {name: value.copy() for name, value in feeds.items()}
    first = runner.run(feeds)
    kept = {name: value.copy() for name, value in first.items()}
    runner.run({**feeds, "x": feeds["x"] + 1})
    assert set(first) == {"y", "hN_l0", "cN_l0"}
    for name, value in kept.items():
        assert np.array_equal(first[name], value), name
        first[name][...] = 0
    assert all(np.array_equal(feeds[name], value) for name, value in before.items())
    runner.close()


def test_what_is_no_model_is_refused_in_the_runtimes_own_words(runtime):
    with pytest.raises(UnsupportedError, match=f"^{runtime.name}: .{{5}}") as refused:
        runtime.load(b"no ONNX file")
    assert "\n" not in str(refused.value)


def test_every_runtime_says_which_it_is(runtime):
    assert any(figure.isdigit() for figure in runtime.version())
    assert runtime.how


@functools.cache
def everywhere(cell):
    """A cell on all runtimes that are there, which share what the reference makes of it."""
    runtimes = [runtime for runtime in RUNTIMES if not runtime.missing()]
    return {found.runtime: found for found in matrix({cell: CELLS[cell]}, runtimes).cells}


@pytest.mark.parametrize("cell", MATRIX)
def test_cells_of_the_matrix_are_right_on_every_runtime_or_refused(runtime, cell):
    found = everywhere(cell)[runtime.name]
    lacks = LACKS.get(runtime.name, {})
    words = next((words for name, words in lacks.items() if name in cell), ())
    assert VARIABLE in {check.name for check in found.checks}
    for check in found.checks:
        assert check.verdict == ("refused" if words else "ok"), check
        assert not words or any(one in check.note for one in words), check


@pytest.mark.parametrize(("name", "both", "half"), PADDED)
def test_lengths_of_0_and_on_with_padding_that_is_no_number(runtime, name, both, half):
    """States that were fed in come back where there is no step, and a NaN is looked at nowhere."""
    lacks = LACKS.get(runtime.name, {})
    layers = onnx_files.chain(name, layers=2, both=both).layers
    model = Model((cases.difference(2), *layers))
    data = onnx_graph.build(model, lengths=True, half=half).SerializeToString()
    counts = (3, 20, 0, 1, 11, 19, 7)
    x = np.stack([cases.stream(model, 20, seed) for seed in range(7)])
    padded = x.copy()
    for row, count in zip(padded, counts, strict=True):
        row[count:] = np.nan
    feeds = {"x": padded, **onnx_graph.initial_states(model, 7)}
    feeds["lengths"] = np.array(counts, np.int32)
    if {"rnn": "RNN", "peephole-and-projection": "peep"}.get(name) in lacks:
        with pytest.raises(UnsupportedError, match=rf"^{runtime.name}: "):
            runtime.load(data).run(feeds)
        return
    runner = runtime.load(data)
    found = runner.run(feeds)
    runner.close()
    expected = onnx_half.rounded(model) if half else model
    for k, count in enumerate(counts):
        true = truth(expected, x[k, :count])
        np.testing.assert_allclose(found["y"][k, :count], true.output, rtol=0, atol=true.bound)
        np.testing.assert_array_equal(found["y"][k, count:], 0)
        for state, exact in zip(model.states, true.state, strict=True):
            end = found[state_names(state)[1]][k]
            np.testing.assert_allclose(end, exact, rtol=0, atol=true.state_bound)


def test_a_crash_or_a_hang_of_opencv_is_a_refusal_that_says_how(monkeypatch, tmp_path):
    opencv = named("OpenCV dnn")
    data = onnx_graph.build(cases.model("lstm-bare")).SerializeToString()
    for body, words in (
        ("import os; os.abort()", "its process ended with SIGABRT in load"),
        ("import sys; sys.exit('out of luck')", "exit code 1 in load: out of luck"),
        ("import time; time.sleep(60)", "its process ended with SIGKILL in load"),
        ("print('no answer')", "its process ended with exit code 0 in load"),
    ):
        script = tmp_path / "script.py"
        script.write_text(body)
        monkeypatch.setattr(opencv_runtime, "SCRIPT", script)
        monkeypatch.setattr(opencv_runtime, "SECONDS", 1.0)
        with pytest.raises(UnsupportedError, match=words):
            opencv.load(data)


def test_a_closed_opencv_runner_has_left_no_process():
    runner = loaded(named("OpenCV dnn"), cases.model("lstm-bare"))
    assert runner.process.poll() is None
    runner.close()
    assert runner.process.returncode is not None


def test_what_is_missing_is_named_with_the_extra_that_brings_it():
    missing = not_installed("numpy", "no_such_module", "nor_this_one")()
    assert missing.startswith("no_such_module, nor_this_one not installed: ")
    assert "pip install 'fastlstm[runtimes]'" in missing
    assert not_installed("numpy")() == ""


def test_the_version_is_of_the_distribution_that_is_there():
    assert version_of("no-such-distribution", "numpy")() == np.__version__
    assert version_of("no-such-distribution")() == "unknown"


def test_a_refusal_keeps_the_runtimes_words_on_one_line_of_bounded_length():
    assert str(refusal("r", "a\n  b\tc")) == "r: a b c"
    long = str(refusal("r", "word " * 1000))
    assert long.startswith("r: word word")
    assert long.endswith("...")
    assert len(long) == len("r: ") + LONGEST_REASON


def test_the_list_brings_no_runtime_with_it():
    import subprocess

    source = "import sys, fastlstm.export.runtime_list; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert not {"onnx", "onnxruntime", "openvino", "cv2", "torch"} & set(done.stdout.split())

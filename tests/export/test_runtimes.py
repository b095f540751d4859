"""Every runtime that can be had here runs the exported file as the reference does."""

import os
import sys

import numpy as np
import pytest

import cases
import checks
from fastlstm import reference
from fastlstm.errors import UnsupportedError
from fastlstm.export import onnx_graph, opencv_runtime
from fastlstm.export.card import state_names
from fastlstm.export.cells import CELLS
from fastlstm.export.matrix import VARIABLE, matrix
from fastlstm.export.runtime_list import RUNTIMES
from fastlstm.export.runtimes import LONGEST_REASON, not_installed, refusal, version_of
from fastlstm.model import Model
from fastlstm.verify import truth

NAMES = [runtime.name for runtime in RUNTIMES]


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


@pytest.mark.parametrize("cell", ["LSTM", "GRU reset before", "BiGRU", "Affine, LSTM, softmax"])
def test_cells_of_the_matrix_are_right_on_every_runtime(runtime, cell):
    (found,) = matrix({cell: CELLS[cell]}, [runtime]).cells
    wrong = {c.name: c for c in found.checks if c.name != VARIABLE and c.verdict != "ok"}
    assert wrong == {}


@pytest.mark.parametrize("name", ["ONNX Runtime", "ONNX Runtime for Node.js", "ONNX Runtime Web"])
@pytest.mark.parametrize("cell", ["LSTM projection", "BiLSTM peepholes", "RNN relu"])
def test_onnx_runtime_takes_everything_wherever_it_runs(name, cell):
    (found,) = matrix({cell: CELLS[cell]}, [named(name)]).cells
    assert {check.name: check.verdict for check in found.checks} == dict.fromkeys(
        (check.name for check in found.checks), "ok"
    )


def test_what_a_runtime_lacks_is_refused_and_not_computed_otherwise():
    for name, cell, words in (
        ("ONNX reference evaluator", "RNN relu", "Relu"),
        ("OpenCV dnn", "RNN tanh", 'of type "RNN"'),
    ):
        (found,) = matrix({cell: CELLS[cell]}, [named(name)]).cells
        assert found.verdict == "refused"
        assert all(words in check.note for check in found.checks), found.checks


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

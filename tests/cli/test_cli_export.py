"""`fastlstm export`: what it writes, what it says of it, and its snippets, run as printed."""

import re
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("typer", reason="needs typer and rich: pip install 'fastlstm[cli]'")

import fastlstm
from fastlstm import reference

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler is installed"
)
ONNX = [[], ["--lengths"], ["--half"], ["--lengths", "--half"]]


@pytest.fixture
def onnxruntime():
    reason = "needs onnx and onnxruntime: pip install 'fastlstm[onnx]'"
    pytest.importorskip("onnx", reason=reason)
    return pytest.importorskip("onnxruntime", reason=reason)


def snippet_of(out):
    """The printed lines that run the file, all that follow the heading."""
    lines = out.split("Run it with:\n", 1)[1].strip("\n").splitlines()
    assert 1 <= len(lines) <= 5
    return lines


def run_in_a_process_of_its_own(lines, folder):
    """The lines as printed, and y written to a file after them."""
    code = "\n".join([*lines, "import numpy; numpy.save('y.npy', numpy.asarray(y))", ""])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return np.load(folder / "y.npy")


def run_here(lines):
    """The same in this process, which has torch already; y as an array."""
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is ", DeprecationWarning)
        exec("\n".join(lines), names)
    return names["y"].detach().numpy()


@pytest.mark.parametrize("options", ONNX, ids=lambda options: " ".join(options) or "plain")
def test_onnx_says_what_was_written_and_how_it_was_checked(
    run, onnxruntime, model, model_file, tmp_path, options
):
    target = tmp_path / "new" / "model.onnx"
    result = run("export", model_file, "--to", "onnx", "-o", target, *options)
    assert result.code == 0, result.err
    size = f"{target.stat().st_size:,} bytes"
    assert f"wrote {target} (ONNX, opset 17, {size})" in result.out
    steps = 3 * (16 + 64) + 7 * 16 + (59 if "--lengths" in options else 0)
    ways = "as one sequence, one step at a time, in pieces, 7 sequences at once"
    more = ", 7 sequences of 0 to 16 steps at once" if "--lengths" in options else ""
    assert f"checked by replaying {steps} steps through it: {ways}{more}\n" in result.out
    error, bound = re.search(r"greatest error (\S+), bound (\S+)\n", result.out).groups()
    assert float(error) <= float(bound)
    rounding = re.search(r"to float16 moves outputs by up to (\S+);", result.out)
    assert bool(rounding) == ("--half" in options)
    if rounding:
        assert 1e-5 < float(rounding.group(1)) < 0.1
    inputs = [value.name for value in onnxruntime.InferenceSession(target).get_inputs()]
    assert (inputs[-1] == "lengths") == ("--lengths" in options)


@pytest.mark.parametrize("options", ONNX[:2], ids=["plain", "lengths"])
def test_the_lines_for_onnx_run_as_printed(
    run, onnxruntime, model, model_file, tmp_path, monkeypatch, options
):
    monkeypatch.chdir(tmp_path)
    result = run("export", model_file, "--to", "onnx", "-o", "model.onnx", *options)
    y = run_in_a_process_of_its_own(snippet_of(result.out), tmp_path)
    expected = reference.run(model, np.zeros((10, 2)))
    np.testing.assert_allclose(y[0], expected, rtol=0, atol=1e-6)
    if options:
        np.testing.assert_allclose(y[1, :4], expected[:4], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(y[1, 4:], 0)


def test_torchscript_is_labelled_legacy_and_its_lines_run_as_printed(
    run, model, model_file, tmp_path, monkeypatch
):
    pytest.importorskip("torch", reason="needs torch: pip install 'fastlstm[train]'")
    monkeypatch.chdir(tmp_path)
    result = run("export", model_file, "--to", "torchscript", "-o", "model.pt")
    assert result.code == 0, result.err
    assert "wrote model.pt (TorchScript, legacy, " in result.out
    assert "checked by replaying 240 steps through it: as one sequence, one step" in result.out
    y = run_here(snippet_of(result.out))
    expected = reference.run(model, np.zeros((20, 2)))[-10:]
    np.testing.assert_allclose(y[0], expected, rtol=0, atol=1e-6)


@needs_compiler
def test_pt2_is_the_package_of_aotinductor_and_its_lines_run_as_printed(
    run, model, model_file, tmp_path, monkeypatch
):
    pytest.importorskip("torch", reason="needs torch: pip install 'fastlstm[train]'")
    monkeypatch.chdir(tmp_path)
    result = run("export", model_file, "--to", "pt2", "-o", "model.pt2")
    assert result.code == 0, result.err
    assert "wrote model.pt2 (AOTInductor package of one step, " in result.out
    y = run_here(snippet_of(result.out))
    np.testing.assert_allclose(y, reference.run(model, np.zeros((1, 2))), rtol=0, atol=1e-6)


def test_the_help_says_which_formats_there_are_and_that_torchscript_is_legacy(run):
    text = " ".join(run("export", "--help").out.replace("│", " ").split())
    assert "torchscript, legacy, for programs that already load it" in text
    assert "onnx, for every other runtime; pt2, one step as machine code for this CPU" in text
    assert all(name in text for name in ("--lengths", "--half"))


def test_an_unknown_format_names_the_known_ones(run, model_file):
    result = run("export", model_file, "--to", "onxx", "-o", "x")
    assert result.code != 0
    assert all(name in result.err for name in ("--to", "onxx", "onnx", "torchscript", "pt2"))


@pytest.mark.parametrize("option", ["--lengths", "--half"])
@pytest.mark.parametrize("target", ["pt2", "torchscript"])
def test_what_only_onnx_has_is_refused_for_others(run, model_file, tmp_path, target, option):
    result = run("export", model_file, "--to", target, "-o", tmp_path / "new" / "x", option)
    assert result.code != 0
    words = " ".join(result.err.replace("│", " ").split())
    assert option in words
    assert f"is for --to onnx only: a file of --to {target} has no such form" in words
    assert list(tmp_path.iterdir()) == []


def test_a_weight_too_large_for_half_is_one_line_and_no_file(run, model, onnxruntime, tmp_path):
    layer = model.layers[2]
    large = fastlstm.Dense(layer.weight * np.float32(1e6), layer.bias)
    path = fastlstm.Model((*model.layers[:2], large)).save(tmp_path / "m.safetensors")
    result = run("export", path, "--to", "onnx", "-o", tmp_path / "m.onnx", "--half")
    assert "layer 2 (Dense).weight: expected values within float16's range" in result.error
    assert list(tmp_path.iterdir()) == [path]

"""examples/node: the script on exported models, against the reference, and what it refuses."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

import cases
from fastlstm import export
from fastlstm.export import onnx_graph
from fastlstm.export.card import CHECK_STEPS
from fastlstm.export.javascript_runtimes import node_runtime
from fastlstm.model import Model
from fastlstm.reference import check_input
from fastlstm.verify import truth
from foreign_runtimes import need

EXAMPLES = Path(__file__).parents[2] / "examples"
MODELS = (
    *("LSTM-17", "GRU-8", "RNN-33", "lstm-stack", "gru-before-17", "learned-start", "mixed"),
    *("scaled", "lstm-peephole-8", "lstm-projected-17-3", "connected-17", "affine-only"),
)
REPORT = re.compile(r"(\w+): (\d+) steps, greatest difference .* (\S+), bound (\S+); \S+ us a step")


def stream(*arguments, samples=None):
    """What stream.mjs does with samples on its standard input."""
    need(node_runtime.missing())
    lines = "" if samples is None else "".join(f"{','.join(map(str, row))}\n" for row in samples)
    return subprocess.run(
        [shutil.which("node"), EXAMPLES / "node" / "stream.mjs", *map(str, arguments)],
        input=lines,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def exported(tmp_path):
    def make(name, **options):
        model = cases.model(name)
        return model, export.onnx(model, tmp_path / "model.onnx", **options).path

    return make


@pytest.mark.parametrize("name", MODELS)
def test_check_replays_the_files_own_check_vector(exported, name):
    model, path = exported(name)
    done = stream(path, "--check")
    assert done.returncode == 0, done.stderr
    verdict, steps, difference, bound = REPORT.match(done.stdout).groups()
    true = truth(model, check_input(model, CHECK_STEPS))
    assert verdict == "ok"
    assert int(steps) % CHECK_STEPS == 0
    assert float(bound) == pytest.approx(true.bound, rel=0.01)
    assert 0 <= float(difference) <= true.bound


@pytest.mark.parametrize("options", [{"lengths": True}, {"half": True}], ids=str)
def test_check_of_every_kind_of_file(exported, options):
    _, path = exported("gru-stack", **options)
    done = stream(path, "--check")
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize("name", ["lstm-stack", "learned-start", "scaled", "wide-input"])
def test_samples_of_standard_input_against_the_reference(exported, name):
    model, path = exported(name)
    x = check_input(model, 40, 3)
    done = stream(path, samples=x)
    assert done.returncode == 0, done.stderr
    y = np.array([[float(v) for v in line.split(",")] for line in done.stdout.splitlines()])
    true = truth(model, x)
    # Nine digits are printed, which is half of the ninth.
    np.testing.assert_allclose(y, true.output, rtol=5e-9, atol=true.bound)
    assert "40 steps" in done.stderr


def test_expected_values_beside_the_samples(exported, tmp_path):
    model, path = exported("mixed")
    x = check_input(model, 12, 3)
    true = truth(model, x)
    table = tmp_path / "expected.csv"

    def run(expected):
        table.write_text("".join(f"{','.join(map(repr, row))}\n" for row in expected.tolist()))
        return stream(path, "--expect", table, "--bound", true.bound, samples=x)

    done = run(true.output)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 12), done.stderr
    assert REPORT.match(done.stderr).group(1) == "ok"

    wrong = true.output.copy()
    wrong[7, 3] += 0.25
    done = run(wrong)
    assert done.returncode == 1
    verdict, _, difference, _ = REPORT.match(done.stderr).groups()
    assert (verdict, float(difference)) == ("WRONG", pytest.approx(0.25, abs=2e-3))

    for expected, message in (
        (true.output[:11], "step 11: expected 7 reference values, found none"),
        (np.concatenate([true.output, true.output]), "expected 24 samples"),
        (true.output[:, :2], "step 0: expected 7 reference values, found 2"),
    ):
        done = run(expected)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("wrong", [1e-3, float("nan")], ids=str)
def test_a_file_that_does_not_compute_its_check_vector_is_wrong(exported, wrong):
    _, path = exported("lstm-bare")
    proto = onnx.load(path)
    weights = next(t for t in proto.graph.initializer if t.name.endswith("_R"))
    array = onnx.numpy_helper.to_array(weights).copy()
    array[0, 5, 7] += wrong
    weights.CopyFrom(onnx.numpy_helper.from_array(array, weights.name))
    onnx.save(proto, path)
    done = stream(path, "--check")
    assert (done.returncode, done.stdout.startswith("WRONG: ")) == (1, True), done.stderr


def test_what_cannot_be_read_ends_with_a_message(exported, tmp_path):
    _, path = exported("lstm-bare")
    bidirectional = tmp_path / "bidirectional.onnx"
    export.onnx(Model((cases.bidirectional("LSTM", 1, 4),)), bidirectional)
    foreign = tmp_path / "foreign.onnx"
    proto = onnx_graph.build(cases.model("lstm-bare"))
    del proto.metadata_props[:]
    onnx.save(proto, foreign)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(path.read_bytes()[:1000])
    for arguments, samples, message in (
        ([], None, "node stream.mjs model.onnx --check"),
        ([tmp_path / "absent.onnx"], None, "no such file"),
        ([foreign, "--check"], None, "found no metadata under the key 'fastlstm'"),
        ([cut, "--check"], None, "expected an ONNX file, found other bytes or a file that was cut"),
        ([bidirectional, "--check"], None, "expected a model that runs step by step"),
        ([path], [], "expected samples on standard input, found none"),
        ([path], [[1.0], [1.0, 2.0]], "expected 1 values a sample, found 2"),
        ([path], [[1.0], ["nan"]], "standard input, line 2: expected numbers between commas"),
        ([path, "--check", "--bound", "0"], None, "expected a bound"),
    ):
        done = stream(*arguments, samples=samples)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_both_examples_hold_the_same_live_model():
    copies = [EXAMPLES / example / "live_model.mjs" for example in ("node", "browser")]
    assert copies[0].read_bytes() == copies[1].read_bytes()


@pytest.mark.parametrize("example", ["node", "browser"])
def test_the_lock_file_names_no_registry_and_pins_what_is_asked_for(example):
    text = (EXAMPLES / example / "package-lock.json").read_text("utf-8")
    assert '"resolved"' not in text  # the address that a package came from on this machine
    assert "registry" not in text
    locked = json.loads(text)["packages"]
    asked = json.loads((EXAMPLES / example / "package.json").read_text("utf-8"))
    wanted = {**asked["dependencies"], **asked.get("devDependencies", {})}
    assert {name: locked[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert all(entry.get("integrity") for name, entry in locked.items() if name)

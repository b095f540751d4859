"""The `fastlstm` command: what it prints and writes, and one clear line for every bad input."""

from __future__ import annotations

import io
import json
import re
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest

pytest.importorskip("typer", reason="needs typer and rich: pip install 'fastlstm[cli]'")

import fastlstm
from fastlstm import cli

COMMANDS = ("train", "evaluate", "forecast", "stream", "verify", "export", "bench", "inspect")


class Result(NamedTuple):
    """What one call of the command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys, monkeypatch):
    """Call the command in this process."""

    def call(*arguments, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code or 0
        return Result(code, *capsys.readouterr())

    return call


def one_clear_line(result: Result) -> str:
    """The one error line of a failed call."""
    assert result.code != 0
    assert "Traceback" not in result.err
    lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.err
    return lines[0]


@pytest.fixture(scope="module")
def model():
    """Standardising Affine, LSTM, Dense and the Affine back: two inputs, two outputs."""
    r = np.random.default_rng(5)

    def a(*shape):
        return (0.5 * r.standard_normal(shape)).astype(np.float32)

    layers = (
        fastlstm.Affine(np.float32([0.5, 2]), a(2)),
        fastlstm.LSTM(a(20, 2), a(20, 5), a(20), a(20)),
        fastlstm.Dense(a(2, 5), a(2)),
        fastlstm.Affine(np.float32([2, 0.5]), a(2)),
    )
    return fastlstm.Model(layers, {"series": "made for the tests [1]"})


@pytest.fixture(scope="module")
def model_file(model, tmp_path_factory):
    return model.save(tmp_path_factory.mktemp("model") / "model.safetensors")


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_text_has_an_example(run, command):
    result = run(command, "--help")
    assert result.code == 0
    assert re.search(rf"Example: .*fastlstm {command} ", result.out)


def test_the_help_lists_every_command_and_asking_for_none_shows_it(run):
    listed = run("--help").out
    assert all(command in listed for command in COMMANDS)
    assert all(command in "".join(run()) for command in COMMANDS)


def test_without_typer_one_line_names_the_extra():
    source = "import sys; sys.modules['typer'] = None; from fastlstm.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: the fastlstm command needs typer, which is not installed. "
        "Install it with: pip install 'fastlstm[cli]'"
    ]


# stream


def rows(text: str) -> np.ndarray:
    return np.array([[float(word) for word in line.split(",")] for line in text.splitlines()])


def test_stream_writes_the_predictions_of_the_reference(run, model, model_file):
    x = np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)
    separators = (",", " ", ", ", "\t")
    lines = [f"{a!s}{separators[k % 4]}{b!s}" for k, (a, b) in enumerate(x)]
    result = run("stream", model_file, stdin="# a, b\n\n" + "\n".join(lines) + "\n")
    assert (result.code, result.err) == (0, "")
    np.testing.assert_allclose(rows(result.out), fastlstm.reference.run(model, x), atol=1e-6)
    # The printed text holds every bit of the float32 predictions.
    expected = model.stream().run(x)
    np.testing.assert_array_equal(rows(result.out).astype(np.float32), expected)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("1", "expected 2 numbers, found 1"),
        ("1 2 3", "expected 2 numbers, found 3"),
        ("1,,2", "expected 2 numbers, found 3"),
        ("1,", "expected a number, found ''"),
        ("1,two", "expected a number, found 'two'"),
        ("1,1_0", "expected a number, found '1_0'"),
        ("1 nan", "nan"),
        ("inf,1", "inf"),
        ("1e39,1", "inf"),
    ],
)
def test_stream_reports_a_bad_line_and_goes_on_as_if_it_had_not_come(run, model_file, bad, message):
    good = ["0.1,0.2", "0.3,0.4", "0.5,0.6"]
    clean = run("stream", model_file, stdin="\n".join(good))
    result = run("stream", model_file, stdin="\n".join([*good[:2], bad, good[2]]))
    line = one_clear_line(result)
    assert line.startswith("error: line 3: ")
    assert message in line
    assert result.code == 1
    assert result.out == clean.out


def test_stream_answers_each_line_before_the_next_one_comes(model, model_file):
    command = [sys.executable, "-m", "fastlstm", "stream", str(model_file)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    deadline = threading.Timer(120, process.kill)  # an answer that never comes fails, not hangs
    deadline.start()
    live = model.stream()
    try:
        for sample in (b"0.5 -0.5", b"\xff\xfe nonsense", b"1,2"):
            process.stdin.write(sample + b"\n")
            if b"nonsense" in sample:
                assert process.stderr.readline().startswith(b"error: line 2: expected a number")
                continue
            x = np.array(sample.replace(b",", b" ").split(), np.float32)
            answer = rows(process.stdout.readline().decode())
            np.testing.assert_array_equal(answer.astype(np.float32), [live.step(x)])
        assert process.poll() is None
        process.stdin.close()
        assert process.wait() == 1
        assert process.stderr.read() == b""
    finally:
        deadline.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_stream_into_a_closed_pipe_ends_quietly(model_file):
    command = [sys.executable, "-m", "fastlstm", "stream", str(model_file)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    _, err = process.communicate(b"1,2\n" * 3, timeout=120)
    assert err == b""


# verify


@dataclass
class Road:
    """A road made of the reference itself, off by `shift`."""

    name: str
    shift: float = 0.0
    lacks: str = ""

    def missing(self):
        return self.lacks

    def prepare(self, model):
        def road(x):
            output, state = fastlstm.reference.run_with_state(model, x, np.float32)
            return output + self.shift, state

        return road


def test_verify_shows_and_writes_every_road(run, model_file, monkeypatch, tmp_path):
    roads = [Road("plain float32"), Road("other [x]", lacks="needs otherlib: pip install otherlib")]
    monkeypatch.setattr("fastlstm.roads.ROADS", roads)
    target = tmp_path / "new" / "report.json"
    result = run("verify", model_file, "--steps", 50, "--json", target)
    assert result.code == 0
    assert "Verifying: plain float32" in result.err
    (row,) = (line for line in result.out.splitlines() if "plain float32" in line)
    assert row.split()[-1] == "ok"
    (row,) = (line for line in result.out.splitlines() if "other [x]" in line)
    assert "missing: needs otherlib: pip install otherlib" in row
    written = json.loads(target.read_text())
    assert [(r["road"], r["verdict"], r["steps"]) for r in written["rows"]] == [
        ("plain float32", "ok", 50),
        ("other [x]", "missing", 0),
    ]
    assert 0 < written["rows"][0]["max_abs_error"] <= written["rows"][0]["bound"]


def test_verify_fails_when_a_road_is_wrong_and_names_it(run, model_file, monkeypatch):
    monkeypatch.setattr("fastlstm.roads.ROADS", [Road("good"), Road("off", shift=1e-4)])
    result = run("verify", model_file, "--steps", 50)
    assert result.code == 1
    assert one_clear_line(result) == "error: not within bounds: off"


# inspect, export, bench


def test_inspect_shows_layers_metadata_and_digest(run, model, model_file):
    result = run("inspect", model_file)
    assert result.code == 0
    (row,) = (line for line in result.out.splitlines() if "LSTM" in line)
    assert row.split() == ["1", "LSTM", "2", "5", "180", "h", "(5),", "c", "(5)"]
    assert f"{model.num_parameters} " in result.out
    assert "made for the tests [1]" in result.out
    assert re.search(r"sha256:[0-9a-f]{64}", result.out)
    assert f"{model_file.stat().st_size:,} bytes" in result.out


def test_export_writes_the_file_and_says_how_it_was_checked(run, model, model_file, tmp_path):
    ort = pytest.importorskip(
        "onnxruntime", reason="needs onnxruntime: pip install 'fastlstm[onnx]'"
    )
    target = tmp_path / "new" / "model.onnx"
    result = run("export", model_file, "--to", "onnx", "-o", target)
    assert result.code == 0, result.err
    assert f"wrote {target}" in result.out
    error, bound = re.search(r"greatest error (\S+), bound (\S+)", result.out).groups()
    assert float(error) <= float(bound)
    assert "onnxruntime" in result.out
    assert ort.InferenceSession(target).get_inputs()[0].shape[-1] == model.input_size


def test_export_to_an_unknown_format_names_the_known_ones(run, model_file):
    result = run("export", model_file, "--to", "onxx", "-o", "x")
    assert result.code != 0
    assert all(name in result.err for name in ("--to", "onxx", "onnx", "torchscript", "inductor"))


@dataclass
class Timing:
    """A row as fastlstm.bench makes it."""

    model: str
    mode: str
    contender: str
    median_ns: float | None
    p99_ns: float | None
    ratio: float | None
    error: float | None
    note: str = ""


@dataclass
class Timings:
    """A result as fastlstm.bench makes it."""

    rows: tuple[Timing, ...]

    def to_dict(self):
        return {"rows": [vars(row) for row in self.rows]}


def test_bench_shows_and_writes_every_contender(run, model_file, monkeypatch, tmp_path):
    seen = []

    def compare(models, *, progress):
        seen.append({name: len(m.layers) for name, m in models.items()})
        progress("fastlstm")
        return Timings(
            (
                Timing("model", "push", "fastlstm", 512.25, 1024.0, 1.0, 1e-7),
                Timing("model", "push", "other", None, None, None, None, "not installed"),
                Timing("model", "sequence", "fastlstm", 99.6, 120.0, 1.0, 1e-7),
            )
        )

    monkeypatch.setattr("fastlstm.bench.compare", compare)
    target = tmp_path / "bench.json"
    result = run("bench", model_file, "--json", target)
    assert result.code == 0
    assert seen == [{"model": 4}]
    lines = [line.split() for line in result.out.splitlines()]
    assert ["fastlstm", "512", "1,024", "1.00", "1.00e-07"] in lines
    assert ["other", "-", "-", "-", "-", "not", "installed"] in lines
    assert json.loads(target.read_text())["rows"][2]["median_ns"] == 99.6


def test_bench_without_a_model_makes_lstms_of_the_sizes_asked_for(run, monkeypatch):
    seen = {}

    def compare(models, *, progress):
        seen.update({m.states[0].size: name for name, m in models.items()})
        return Timings(())

    monkeypatch.setattr("fastlstm.bench.compare", compare)
    assert run("bench", "--hidden", "1,17").code == 0
    assert sorted(seen) == [1, 17]


@pytest.mark.parametrize("text", ["8,a", "0", "", "8,,9"])
def test_bench_refuses_sizes_that_are_none(run, text):
    result = run("bench", "--hidden", text)
    assert result.code == 2
    assert "--hidden" in result.err
    assert "8,32,64" in result.err


# Damaged model files, whatever the command


def rewritten(data: bytes, change) -> bytes:
    """The model file with its header changed by `change(header)`, the tensors as they were."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def newer(header):
    document = json.loads(header["__metadata__"]["fastlstm"])
    document["format_version"] = 99
    header["__metadata__"]["fastlstm"] = json.dumps(document)


def swapped(header):
    header["layers.1.weight_ih_l0"]["shape"].reverse()


def lying(header):
    header["layers.1.weight_ih_l0"]["shape"] = [20, 3]


def foreign(header):
    del header["__metadata__"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(lambda d: d[:-10], ["truncated", "copy or export it again"], id="truncated"),
        pytest.param(lambda d: d[:5], ["truncated", "copy or export it again"], id="almost empty"),
        pytest.param(lambda d: d + b"\0" * 8, ["padded", "copy or export it again"], id="padded"),
        pytest.param(lambda d: rewritten(d, newer), ["version 99", "upgrade"], id="newer"),
        pytest.param(
            lambda d: rewritten(d, swapped), ["layer 1", "weight_ih_l0", "(2, 20)"], id="swapped"
        ),
        pytest.param(lambda d: rewritten(d, lying), ["damaged", "export it again"], id="lying"),
        pytest.param(lambda d: rewritten(d, foreign), ["not a fastlstm model"], id="foreign"),
        pytest.param(
            lambda d: d[:-400] + bytes([d[-400] ^ 1]) + d[-399:], ["digest", "again"], id="one bit"
        ),
    ],
)
def test_a_damaged_model_file_is_one_clear_error(run, model_file, tmp_path, damage, words):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(damage(model_file.read_bytes()))
    line = one_clear_line(run("inspect", damaged))
    assert str(damaged) in line
    for word in words:
        assert word in line


@pytest.mark.parametrize("command", ["stream", "verify", "inspect", "bench"])
def test_a_missing_model_file_is_one_clear_error(run, tmp_path, command):
    line = one_clear_line(run(command, tmp_path / "nowhere.safetensors"))
    assert "nowhere.safetensors: no such file" in line


# Outputs that cannot be written


def test_an_output_that_cannot_be_written_is_one_clear_error(
    run, model_file, tmp_path, monkeypatch
):
    monkeypatch.setattr("fastlstm.roads.ROADS", [Road("plain float32")])
    blocked = tmp_path / "file"
    blocked.write_text("kept")
    line = one_clear_line(run("verify", model_file, "--json", blocked / "report.json"))
    assert str(blocked) in line
    assert blocked.read_text() == "kept"
    line = one_clear_line(run("verify", model_file, "--steps", 5, "--json", tmp_path))
    assert str(tmp_path) in line
    assert "directory" in line


def test_a_command_stopped_by_the_keyboard_exits_with_130(run, model_file, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("fastlstm.load", stop)
    result = run("inspect", model_file)
    assert result.code == 130
    assert "Traceback" not in result.err

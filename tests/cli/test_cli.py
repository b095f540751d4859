"""The `fastlstm` command: help, verify, inspect, export and bench."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("typer", reason="needs typer and rich: pip install 'fastlstm[cli]'")

from rich.console import Console

import fastlstm
from fastlstm import cli_tables
from fastlstm.verify import Report, Row

COMMANDS = (
    "train", "evaluate", "forecast", "stream", "verify", "export", "bench", "warmup", "inspect",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_text_has_an_example(run, command):
    result = run(command, "--help")
    assert result.code == 0
    assert re.search(rf"Example: .*fastlstm {command} ", result.out)


def test_the_help_lists_every_command_and_asking_for_none_shows_it(run):
    listed = run("--help").out
    assert all(command in listed for command in COMMANDS)
    shown = run()
    assert shown.code == 2
    assert all(command in shown.out + shown.err for command in COMMANDS)


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


@pytest.mark.parametrize(
    ("library", "arguments", "extra"),
    [
        ("torch", ["train", "sunspots"], "train"),
        ("lightning", ["train", "sunspots"], "train"),
        ("onnx", ["export", "MODEL", "--to", "onnx", "-o", "x.onnx"], "onnx"),
        ("torch", ["export", "MODEL", "--to", "torchscript", "-o", "x.pt"], "train"),
    ],
)
def test_a_missing_library_is_one_line_that_names_the_extra(
    model_file, tmp_path, library, arguments, extra
):
    source = (
        "import sys; sys.modules[sys.argv[1]] = None\n"
        "from fastlstm.cli import main; sys.exit(main(sys.argv[2:]))"
    )
    arguments = [str(model_file) if word == "MODEL" else word for word in arguments]
    done = subprocess.run(
        [sys.executable, "-c", source, library, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    assert f"needs {library}, which is not installed" in line
    assert f"pip install 'fastlstm[{extra}]'" in line
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_verify_shows_and_writes_every_road(run, model_file, monkeypatch, tmp_path):
    roads = [Road("plain float32"), Road("other [x]", lacks="needs otherlib: pip install otherlib")]
    monkeypatch.setattr("fastlstm.roads.ROADS", roads)
    target = tmp_path / "new" / "report.json"
    result = run("verify", model_file, "--steps", 50, "--json", target)
    assert result.code == 0
    assert "Verifying: plain float32" in result.err
    (row,) = (line for line in result.out.splitlines() if "plain float32" in line)
    assert row.split()[-1] == "ok"
    row, note = (line for line in result.out.splitlines() if "other [x]" in line)
    assert row.split()[-1] == "missing"
    assert note == "other [x]: needs otherlib: pip install otherlib"
    written = json.loads(target.read_text())
    assert [(r["road"], r["verdict"], r["steps"]) for r in written["rows"]] == [
        ("plain float32", "ok", 50),
        ("other [x]", "missing", 0),
    ]
    assert 0 < written["rows"][0]["max_abs_error"] <= written["rows"][0]["bound"]


def test_every_figure_fits_on_a_terminal_of_80_columns():
    row = Row("ONNX Runtime bound, by step", "ok", 10_000, 1e-5, 2e-8, 4e-4, 5e-7, 4e-6)
    text = io.StringIO()
    Console(file=text, width=80).print(cli_tables.verdicts(Report((row,))))
    shown = text.getvalue()
    assert row.road in shown
    assert "…" not in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_verify_fails_when_a_road_is_wrong_and_names_it(run, model_file, monkeypatch):
    monkeypatch.setattr("fastlstm.roads.ROADS", [Road("good"), Road("off", shift=1e-4)])
    result = run("verify", model_file, "--steps", 50)
    assert result.code == 1
    assert result.error == "error: not within bounds: off"


def test_inspect_shows_layers_metadata_and_digest(run, model, model_file):
    result = run("inspect", model_file)
    assert result.code == 0
    (row,) = (line for line in result.out.splitlines() if "LSTM" in line)
    assert row.split() == ["1", "LSTM", "2", "5", "180", "h", "(5),", "c", "(5)"]
    assert f"{model.num_parameters} " in result.out
    assert "made for the tests [1]" in result.out
    assert re.search(r"sha256:[0-9a-f]{64}", result.out)
    assert f"{model_file.stat().st_size:,} bytes" in result.out

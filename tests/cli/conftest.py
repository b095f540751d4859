"""Call the `fastlstm` command in this process; a small model file, a run folder of two epochs."""

from __future__ import annotations

import io
import sys
from typing import NamedTuple

import numpy as np
import pytest

import fastlstm


class Result(NamedTuple):
    """What one call of the command left behind."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line on standard error that says what was wrong."""
        assert self.code != 0
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        return lines[0]


@pytest.fixture
def run(capsys, monkeypatch):
    """Call the command in this process."""
    pytest.importorskip("typer", reason="needs typer and rich: pip install 'fastlstm[cli]'")
    from fastlstm import cli

    def call(*arguments, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code or 0
        return Result(code, *capsys.readouterr())

    return call


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


SHORT = ("--set", "training.max_epochs=2", "--set", "windows.length=20")


@pytest.fixture
def series(tmp_path):
    """A noisy wave on an even clock, and a second column that is its square."""
    t = np.arange(200)
    wave = np.sin(t / 3) + 0.1 * np.random.default_rng(0).standard_normal(200)
    lines = [f"{1800 + k},{w:.6f},{w * w:.6f}" for k, w in zip(t, wave, strict=True)]
    path = tmp_path / "wave.csv"
    path.write_text("\n".join(["year,sunspots,square", *lines]) + "\n")
    return path


@pytest.fixture
def trained(run, series, tmp_path):
    """A run folder of two epochs on that wave, and what `train` printed."""
    pytest.importorskip("lightning", reason="needs lightning: pip install 'fastlstm[train]'")
    folder = tmp_path / "run"
    result = run("train", "sunspots", "--data", series, "--out", folder, *SHORT)
    assert result.code == 0, result.err
    return folder, result.out

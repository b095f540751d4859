"""How long a new process takes to its first output: with kernels on disk, and the first time ever.

Each start is a process of its own, timed from outside: from the moment it is asked for to the line
that holds its first output.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from fastlstm import reference

from ..models import plain_model
from .rows import Row, Settings, Tell

if TYPE_CHECKING:
    from .timing import Clock

WARM_GOAL_S, COLD_GOAL_S = 0.6, 5.0
SAMPLE = 0.5
FIRST_OUTPUT = f"""
import sys
import fastlstm
stream = fastlstm.load(sys.argv[1]).stream()
print(stream.step({SAMPLE})[0], flush=True)
"""
# What every program that uses NumPy pays, to see what is ours.
ONLY_NUMPY = "import numpy; print(0, flush=True)"


def starts(settings: Settings, tell: Tell) -> list[Row]:
    """7. Process start to the first output of a saved model."""
    model = plain_model("LSTM", 32)
    expected = float(reference.run(model, np.array([[SAMPLE]], np.float32))[0, 0])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = model.save(folder / "model.safetensors")
        cold = []
        for k in range(settings.cold_starts):
            tell(f"first start ever, {k + 1} of {settings.cold_starts}")
            cold.append(_start(FIRST_OUTPUT, path, folder / f"cache{k}", expected, settings.clock))
        warm, numpy = [], []
        for k in range(settings.warm_starts):
            tell(f"start with kernels on disk, {k + 1} of {settings.warm_starts}")
            warm.append(_start(FIRST_OUTPUT, path, folder / "cache0", expected, settings.clock))
            numpy.append(_start(ONLY_NUMPY, path, folder / "cache0", 0.0, settings.clock))
    return [
        _row("kernels on disk", warm, WARM_GOAL_S),
        _row("first ever", cold, COLD_GOAL_S),
        _row("for comparison: importing NumPy alone", numpy, None),
    ]


def _row(what: str, seconds: list[float], goal: float | None) -> Row:
    figures = {"fastest s": min(seconds), "slowest s": max(seconds), "starts": float(len(seconds))}
    return Row(what, median(seconds), goal, {**figures})


def _start(code: str, model: Path, cache: Path, expected: float, clock: Clock) -> float:
    """Seconds to the first line of a process; ArithmeticError if that is not what is expected."""
    environment = {**os.environ, "FASTLSTM_CACHE_DIR": str(cache)}
    begin = clock()
    with subprocess.Popen(
        [sys.executable, "-c", code, str(model)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        end = clock()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    if not np.isclose(float(line), expected, rtol=0, atol=1e-6):
        raise ArithmeticError(f"the first output was {line.strip()}, expected {expected}")
    return (end - begin) / 1e9

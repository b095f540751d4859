"""Every vector width is right on this CPU, and every width gives the reference's numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
import cases
from fastlstm.kernels.simd import NATIVE_WIDTH
from fastlstm.verify import judge, truth
rows = []
stacks = ("mixed", "lstm-stack", "gru-stack")
connected = ("connected-1", "connected-17", "residual-columns", "residual-720")
for name in (*stacks, *connected, "rnn-relu", "wide-input", "LSTM-1", "LSTM-130", "affine-only"):
    model = cases.model(name)
    stream = model.stream()
    true = truth(model, cases.stream(model, 600))
    row = judge(name, lambda x: (stream.run(x), stream.state), true)
    rows.append([name, row.verdict, row.max_abs_error, row.bound])
print(json.dumps([NATIVE_WIDTH, rows]))
"""


@pytest.mark.parametrize("width", [4, 8, 16])
def test_forced_width(width):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ
        | {"FASTLSTM_VECTOR_WIDTH": str(width), "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    used, rows = json.loads(done.stdout)
    assert used == width
    assert [row for row in rows if row[1] != "ok"] == []


def test_a_wrong_width_is_named():
    done = subprocess.run(
        [sys.executable, "-c", "import fastlstm"],
        env=os.environ | {"FASTLSTM_VECTOR_WIDTH": "12"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "FASTLSTM_VECTOR_WIDTH: expected 4, 8 or 16, found '12'" in done.stderr

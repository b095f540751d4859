"""The tests are honest: each known kind of mistake, put into a copy of the package, is caught.

The judge is the one of `verify`, run on the copy; the suite's own tests stand on the same one.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastlstm

PACKAGE = Path(fastlstm.__file__).parent
HERE = Path(__file__).parent
# Exits with 1 where the copy's stream is further from the reference than it may be.
JUDGE = """
import sys
import numpy as np
import cases
from fastlstm.verify import judge, truth
models = {
    kind: cases.Model((cases.affine(2), cases.recurrent(kind, 2, 20), cases.dense(20, 6),
                       cases.dense(6, 1)))
    for kind in ("LSTM", "GRU", "RNN")
}
# So many weights that `run` takes spans of steps.
models["spans"] = cases.Model((
    cases.dense(2, 20),
    cases.recurrent("LSTM", 20, 60, projection=12, peephole=True),
    cases.recurrent("GRU", 12, 40, reset="before"),
))
# These compile fast, and what is wrong with such layers is judged by one of them alone.
connected = {
    "connected": cases.Model((cases.difference(3), cases.layer_norm(3), cases.residual(1, 3))),
    "connected spans": cases.Model((
        cases.dense(2, 110), cases.dense(110, 110), cases.affine(110), cases.residual(2, 110),
    )),
}
named = sys.argv[1]
models = models | connected if named == "none" else {named: connected[named]} if named else models
bad = []
for kind, model in models.items():
    stream = model.stream()
    stream.run(cases.stream(model, 10, seed=9))
    stream.reset()
    true = truth(model, cases.stream(model, 60))
    if judge(kind, lambda x: (stream.run(x), stream.state), true).verdict != "ok":
        bad.append(kind)
        break  # one is enough, and each further one takes seconds to compile
print(bad)
sys.exit(bool(bad))
"""
# What is wrong, in which file; after "in" the model that it is judged by, if not by the first four.
MUTATIONS = {
    "none": ("kernels/lstm.py", "z[0]", "z[0]"),
    "LSTM gate o in place of i": (
        "kernels/lstm.py",
        "written = gated_tanh(z[0], z[2])",
        "written = gated_tanh(z[3], z[2])",
    ),
    "GRU gates r and z swapped": (
        "kernels/gru.py",
        "start = (z[0], z[1], n_bias)",
        "start = (z[1], z[0], n_bias)",
    ),
    "LSTM bias_hh dropped": (
        "kernels/blocks.py",
        'a["bias_ih_l0"] + a["bias_hh_l0"]',
        'a["bias_ih_l0"]',
    ),
    "GRU's own bias of n dropped": (
        "kernels/gru.py",
        "start = (z[0], z[1], n_bias)",
        "start = (z[0], z[1], add(n_bias, negate(n_bias)))",
    ),
    "GRU's early reset left out": (
        "kernels/gru.py",
        "div(load(like, h, unit), sigmoid_denominator(z_h[0]))",
        "load(like, h, unit)",
    ),
    "peephole of o sees the old cell": (
        "kernels/lstm.py",
        "z_o = fma(load(gates[0], weights, at + stride + 2 * width), cell, z_o)",
        "z_o = fma(load(gates[0], weights, at + stride + 2 * width), load(gates[0], c, unit), z_o)",
    ),
    "peepholes of i and f swapped": (
        "kernels/lstm.py",
        "z = (z_i, z_f, z[2], z[3])",
        "z = (z_f, z_i, z[2], z[3])",
    ),
    "h of a span never moves on": (
        "kernels/layer_steps.py",
        "            old = new\n",
        "            old = old\n",
    ),
    "a tile's steps mixed up": (
        "kernels/span_products.py",
        "builder.mul(x_stride, ir.Constant(_INDEX, t))",
        "builder.mul(x_stride, ir.Constant(_INDEX, 0))",
    ),
    "state of a span not kept": (
        "kernels/layer_steps.py",
        "            put(last, k, get(old, k))",
        "            put(last, k, get(last, k))",
    ),
    "Dense bias dropped": (
        "kernels/blocks.py",
        "np.concatenate([_vectors(weight, spec), bias])",
        "np.concatenate([_vectors(weight, spec), 0 * bias])",
    ),
    "c forgotten on reset": (
        "stream.py",
        "self._memory[HEADER_FLOATS:] = self._code.initial[HEADER_FLOATS:]",
        "kept = [self._memory[p].copy() for p in self._state_places()]; "
        "self._memory[HEADER_FLOATS:] = self._code.initial[HEADER_FLOATS:]; "
        "self._memory[self._state_places()[-1]] = kept[-1]",
    ),
    "a residual's source off by one, in connected": (
        "kernels/packing.py",
        "                sources[k - spec.back],\n",
        "                sources[k - spec.back - 1],\n",
    ),
    "a residual's rows overwritten, in connected spans": (
        "kernels/packing.py",
        "last_reader[writer] = max(last_reader[writer], k)",
        "last_reader[writer] = writer + 1",
    ),
    "a norm divides by n - 1, in connected": (
        "kernels/elementwise.py",
        "variance = np.float64(total(squares) / count)",
        "variance = np.float64(total(squares) / (count - 1))",
    ),
    "a difference's x forgotten on reset, in connected": (
        "stream.py",
        "self._memory[HEADER_FLOATS:] = self._code.initial[HEADER_FLOATS:]",
        "kept = [self._memory[p].copy() for p in self._state_places()]; "
        "self._memory[HEADER_FLOATS:] = self._code.initial[HEADER_FLOATS:]; "
        "self._memory[self._state_places()[0]] = kept[0]",
    ),
    "reference gates swapped": (
        "reference.py",
        "i, f, g, o = np.split(",
        "f, i, g, o = np.split(",
    ),
    "reset gate before the product": (
        "reference.py",
        "np.tanh(n_x + r * n_h)",
        "np.tanh(r * n_x + n_h)",
    ),
}


def mutated(folder, file, old, new):
    copy = folder / "fastlstm"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "train"))
    path = copy / file
    source = path.read_text()
    assert old in source, f"{file} no longer holds {old!r}: mend the mutation"
    path.write_text(source.replace(old, new))
    return folder


def environment(folder):
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder), str(HERE)]),
        "FASTLSTM_CACHE_DIR": str(folder / "cache"),
    }


@pytest.mark.parametrize("name", list(MUTATIONS))
def test_a_mistake_is_caught(tmp_path, name):
    folder = mutated(tmp_path, *MUTATIONS[name])
    judge = name if name == "none" else name.partition(", in ")[2]
    done = subprocess.run(
        [sys.executable, "-c", JUDGE, judge],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.returncode == (0 if name == "none" else 1), done.stdout


def test_stale_machine_code_is_caught(tmp_path):
    """With a cache keyed by less than all sources, the staleness tests fail."""
    folder = mutated(
        tmp_path,
        "kernels/cache.py",
        'sha.update(f"{path.name} {len(content)} ".encode() + content)',
        'sha.update(f"{path.name} ".encode())',
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-k",
            "edited_kernel_source and lstm",
            str(HERE / "kernels" / "test_cache.py"),
        ],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed" in done.stdout

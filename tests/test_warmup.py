"""warmup: after it no other process compiles, and what cannot be kept on disk is an error."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cases
import fastlstm
from fastlstm.errors import CacheError, ModelError

PLAIN = 'Model((cases.recurrent("LSTM", 1, 5), cases.dense(5, 1)))'
BOTH_WAYS = (
    'Model((cases.affine(2), Bidirectional(cases.recurrent("GRU", 2, 3), '
    'cases.recurrent("GRU", 2, 3, seed=1)), cases.dense(6, 1)))'
)
IMPORTS = """
import json
import numpy as np
import cases, fastlstm
from fastlstm import Bidirectional, Model
"""
WARM = (
    IMPORTS
    + """
for model in MODELS:
    done = fastlstm.warmup(model)
    print(json.dumps([[f.name, f.path.name, f.size_bytes, f.compiled] for f in done.functions]))
"""
)
USE = (
    IMPORTS
    + """
from numba.core import compiler
def refuse(*_, **__):
    raise AssertionError("this process compiles")
compiler.CompilerBase.__init__ = refuse
for model in MODELS:
    x = np.linspace(-1, 1, 20 * model.input_size, dtype=np.float32).reshape(20, -1)
    y = model.run(x)
    if not model.bidirectional:
        stream = model.stream()
        stream.push(x[0])
        assert np.array_equal(np.array([stream.output.copy(), *map(stream.step, x[1:])]), y)
        stream.restore(stream.snapshot())
        assert len(stream.forecast(5)) == 5
    print(np.abs(y - fastlstm.reference.run(model, x)).max())
"""
)


def python(source, folder, *models, **environment):
    return subprocess.run(
        [sys.executable, "-c", source.replace("MODELS", f"[{', '.join(models)}]")],
        env=os.environ | {"FASTLSTM_CACHE_DIR": str(folder), "PYTHONPATH": paths()} | environment,
        capture_output=True,
        text=True,
    )


def paths():
    return os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A folder warmed for both models, and what `warmup` said of each."""
    folder = tmp_path_factory.mktemp("warm") / "kernels"
    done = python(WARM, folder, PLAIN, BOTH_WAYS)
    assert done.returncode == 0, done.stderr
    return folder, [json.loads(line) for line in done.stdout.splitlines()]


def listing(folder):
    found = {path.name: path.stat() for path in folder.iterdir()}
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


def test_it_says_what_is_on_disk(warm):
    folder, (plain, both_ways) = warm
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert {name: size for _, name, size, _ in plain + both_ways} == sizes
    assert all(compiled for *_, compiled in plain)
    # The calls are for all networks; the affine, the GRU and the dense are a network each.
    news = [name for name, _, _, compiled in both_ways if compiled]
    assert [name for name, *_ in both_ways if name not in news] == list(
        fastlstm.stream.calls.Calls._fields
    )
    assert sorted(news) == ["network_run"] * 3 + ["network_step"] * 3


def test_after_it_another_process_compiles_nothing(warm):
    folder, _ = warm
    before = listing(folder)
    done = python(USE, folder, PLAIN, BOTH_WAYS)
    assert done.returncode == 0, done.stderr
    assert max(map(float, done.stdout.split())) < 1e-6
    assert listing(folder) == before


def test_a_model_that_was_not_warmed_does_compile(warm):
    """The negative control of the test above."""
    done = python(USE, warm[0], PLAIN.replace("5", "6"))
    assert "this process compiles" in done.stderr


def test_once_warm_the_folder_need_not_be_writable(warm, monkeypatch, tmp_path):
    folder, (plain, _) = warm
    source = "import os\ndef no(*_, **__): raise PermissionError(13, 'no')\nos.replace = no\n"
    done = python(source + WARM, folder, PLAIN)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[*function[:3], False] for function in plain]
    done = python(source + WARM, folder, PLAIN.replace("5", "7"))
    assert f"CacheError: compiled kernels cannot be kept on disk ({folder}: no)" in done.stderr
    assert "set FASTLSTM_CACHE_DIR to one that is" in done.stderr
    # It fails; it does not warn as well.
    assert "RuntimeWarning" not in done.stderr


def test_a_user_without_a_home_is_told(monkeypatch):
    def no_home(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("FASTLSTM_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(Path, "expanduser", no_home)
    with pytest.raises(CacheError, match=r"home directory.*FASTLSTM_CACHE_DIR"):
        fastlstm.warmup(cases.stack("LSTM", 3, 1))


def test_code_that_this_process_has_only_in_memory_is_not_called_warm(tmp_path, monkeypatch):
    """Made for another folder, so the one that counts now lacks it."""
    model = cases.stack("LSTM", 3, 1)
    model.stream()
    monkeypatch.setenv("FASTLSTM_CACHE_DIR", str(tmp_path))
    with pytest.raises(CacheError, match="call warmup in a new process"):
        fastlstm.warmup(model)


def test_it_is_of_a_model():
    with pytest.raises(ModelError, match="expected a fastlstm Model, found str"):
        fastlstm.warmup("model.safetensors")

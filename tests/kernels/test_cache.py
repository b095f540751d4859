"""Machine code on disk: found again, never stale, harmless when damaged or not to be written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastlstm

PACKAGE = Path(fastlstm.__file__).parent
SCRIPT = """
import numpy as np
from fastlstm import reference
from fastlstm.kernels import cache
import fastlstm.model as m
import cases

compiled = []
save = cache.KernelCache.save_overload
def spy(self, *arguments):
    compiled.append(self._function)
    return save(self, *arguments)
cache.KernelCache.save_overload = spy
model = m.Model((cases.affine(2), cases.recurrent("LSTM", 2, 20), cases.recurrent("GRU", 20, 5),
                 cases.recurrent("RNN", 5, 6), cases.dense(6, 9), cases.dense(9, 1)))
y = model.stream().run(reference.check_input(model, 20))
print(len(compiled), y.astype(np.float64).sum().hex())
"""


@pytest.fixture
def copy(tmp_path):
    """A copy of the package whose sources a test may edit, with an empty cache of its own."""
    shutil.copytree(
        PACKAGE, tmp_path / "fastlstm", ignore=shutil.ignore_patterns("__pycache__", "train")
    )
    return tmp_path


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A copy that has run once, and what it found."""
    folder = tmp_path_factory.mktemp("warm")
    shutil.copytree(
        PACKAGE, folder / "fastlstm", ignore=shutil.ignore_patterns("__pycache__", "train")
    )
    return folder, run(folder)


def run(folder, **environment):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parent.parent)]),
            "FASTLSTM_CACHE_DIR": str(folder / "cache"),
            # Python's own cache goes by time and size, which the edits below keep.
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    compiled, total = done.stdout.split()
    return int(compiled), float.fromhex(total), done.stderr


def test_the_second_process_compiles_nothing(warm):
    folder, (compiled, total, _) = warm
    assert compiled == 6  # five calls that all networks share, and this network
    assert run(folder) == (0, total, "")


# An edit of every kernel source that must show in the numbers, even with a warm cache.
EDITS = {
    "activations.py": ("ONE, TWO = F(1), F(2)", "ONE, TWO = F(1.5), F(2)"),
    "lstm.py": ("sigmoid(z[0]), tanh(z[2])", "sigmoid(z[3]), tanh(z[2])"),
    "gru.py": ("fma(renewed, sub(n, old), old)", "fma(renewed, sub(n, old), n)"),
    "rnn.py": ("weights, at + stride, stride, x, inputs", "weights, at, stride, x, inputs"),
    "dense.py": ("y, k, fma(scale,", "y, k, fma(shift,"),
    "simd.py": ("TINY = np.float32(1e-30)", "TINY = np.float32(0.01)"),
    "memory.py": (
        "builder.load(builder.gep(arguments[0], [arguments[1]]), align=4)",
        "builder.fneg(builder.load(builder.gep(arguments[0], [arguments[1]]), align=4))",
    ),
    "products.py": ("for k in range(done, count):", "for k in range(done, count - 1):"),
    "packing.py": ('a["bias_ih_l0"] + a["bias_hh_l0"]', 'a["bias_ih_l0"] * 1'),
    "network.py": ("put(y, k, get(result, k))", "put(y, k, -get(result, k))"),
    "calls.py": (
        "put(memory, k, get(source, t * x_stride + k))",
        "put(memory, k, -get(source, t * x_stride + k))",
    ),
}


@pytest.mark.parametrize("name", list(EDITS))
def test_an_edited_kernel_source_is_never_served_from_the_cache(warm, tmp_path, name):
    folder, (_, before, _) = warm
    copy = shutil.copytree(folder, tmp_path / "copy")
    path = copy / "fastlstm" / "kernels" / name
    source = path.read_text()
    old, new = EDITS[name]
    assert old in source
    stamp = path.stat()
    path.write_text(source.replace(old, new))
    # As an installer might leave it: a new content under an old time.
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert run(copy)[1] != before
    path.write_text(source)
    assert run(copy)[:2] == (0, before)


def test_every_kernel_source_has_an_edit():
    sources = {path.name for path in (PACKAGE / "kernels").glob("*.py")}
    # cache.py makes no machine code, and an edit of it changes the key like any other.
    assert sources - {"__init__.py", "cache.py"} == set(EDITS)


def test_a_damaged_file_is_compiled_again(warm, tmp_path):
    folder, (_, total, _) = warm
    copy = shutil.copytree(folder, tmp_path / "copy")
    for path in (copy / "cache").iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    for path in list((copy / "cache").iterdir())[:3]:
        path.write_bytes(path.read_bytes()[:100])
    assert run(copy)[:2] == (6, total)
    assert run(copy)[:2] == (0, total)


def test_a_cache_that_cannot_be_written_costs_one_warning(warm, tmp_path):
    folder, (_, total, _) = warm
    copy = shutil.copytree(folder, tmp_path / "copy")
    blocked = copy / "a file, not a folder"
    blocked.write_text("")
    compiled, found, errors = run(copy, FASTLSTM_CACHE_DIR=str(blocked))
    assert (compiled, found) == (6, total)
    assert errors.count("RuntimeWarning") == 1
    assert "set FASTLSTM_CACHE_DIR to a writable folder" in errors


def test_a_user_without_a_home_compiles_in_memory(warm, tmp_path):
    folder, (_, total, _) = warm
    copy = shutil.copytree(folder, tmp_path / "copy")
    path = copy / "fastlstm" / "kernels" / "cache.py"
    source = path.read_text()
    # What pathlib does where HOME is unset and the user id stands in no list of users.
    path.write_text(
        source.replace(".expanduser()", " and _no_home()")
        + "\n\ndef _no_home():\n    raise RuntimeError('Could not determine home directory.')\n"
    )
    environment = {"FASTLSTM_CACHE_DIR": "", "XDG_CACHE_HOME": ""}
    compiled, found, errors = run(copy, **environment)
    assert (compiled, found) == (6, total)
    assert errors.count("RuntimeWarning") == 1
    assert "Could not determine home directory" in errors


def test_two_processes_may_compile_at_once(copy):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(copy), str(Path(__file__).parent.parent)]),
        "FASTLSTM_CACHE_DIR": str(copy / "cache"),
    }
    both = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT], env=environment, cwd=copy, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    totals = {process.communicate()[0].split()[1] for process in both}
    assert all(process.returncode == 0 for process in both)
    assert len(totals) == 1
    assert run(copy)[:2] == (0, float.fromhex(totals.pop().decode()))

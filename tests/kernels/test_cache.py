"""Machine code on disk: found again, never stale, harmless when damaged or not to be written."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import llvmlite.binding as llvm
import numba
import pytest
from numba import njit, types
from numba.core.registry import cpu_target

import fastlstm
from fastlstm.kernels import cache

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
model = m.Model((LAYERS,))
x, stream = reference.check_input(model, 20), model.stream()
y = np.concatenate([stream.run(x[:14]), [stream.step(sample) for sample in x[14:]]])
print(len(compiled), y.astype(np.float64).sum().hex())
"""
# Few layers at a time: each takes seconds to compile.
LAYERS = {
    "LSTM": 'cases.recurrent("LSTM", 2, 20)',
    "GRU": 'cases.recurrent("GRU", 9, 5)',
    # So many weights that `run` takes spans of steps.
    "spans": 'cases.recurrent("GRU", 9, 64)',
    "RNN": 'cases.recurrent("RNN", 5, 6)',
    "Dense": "cases.affine(2), cases.dense(2, 9)",
}


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


def run(folder, layers="LSTM", **environment):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("LAYERS", LAYERS[layers])],
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
    assert compiled == 9  # seven calls that all networks share, and this network's step and run
    assert run(folder) == (0, total, "")


# An edit of every kernel source that must show in the numbers of these layers, even with a warm
# cache.
EDITS = {
    "activations.py": ("LSTM", "ONE, TWO = F(1), F(2)", "ONE, TWO = F(1.5), F(2)"),
    "lstm.py": ("LSTM", "row, stride, h, recurrent,", "row, stride, h, recurrent - 1,"),
    "gru.py": ("GRU", "(z[0], z[1], n_bias)", "(z[1], z[0], n_bias)"),
    "rnn.py": ("RNN", "weights, at + stride, stride, x, inputs", "weights, at, stride, x, inputs"),
    "dense.py": ("Dense", "z = load_many(vectors, weights, at)", "z = vectors"),
    "elementwise.py": ("Dense", "y, k, fma(scale,", "y, k, fma(shift,"),
    "simd.py": ("LSTM", "TINY = np.float32(1e-30)", "TINY = np.float32(0.01)"),
    "memory.py": (
        "LSTM",
        "builder.load(builder.gep(arguments[0], [arguments[1]]), align=4)",
        "builder.fneg(builder.load(builder.gep(arguments[0], [arguments[1]]), align=4))",
    ),
    "products.py": ("LSTM", "for k in range(done, count):", "for k in range(done, count - 1):"),
    "blocks.py": ("LSTM", 'a["bias_ih_l0"] + a["bias_hh_l0"]', 'a["bias_ih_l0"] * 1'),
    "packing.py": ("Dense", "sources[k],", "(0, 0),"),
    "span_products.py": ("spans", "a = add_tiles(a, b)", "a = add_tiles(a, a)"),
    "layer_steps.py": ("spans", "offset(halves, t * half_size)", "offset(halves, 0)"),
    "network.py": ("LSTM", "put(y, k, get(result, k))", "put(y, k, -get(result, k))"),
    "calls.py": ("LSTM", "put(y, k, value)", "put(y, k, -value)"),
}


@pytest.mark.parametrize("name", list(EDITS))
def test_an_edited_kernel_source_is_never_served_from_the_cache(warm, tmp_path, name):
    layers, old, new = EDITS[name]
    folder = warm[0]
    before = run(folder, layers)[1]
    copy = shutil.copytree(folder, tmp_path / "copy")
    path = copy / "fastlstm" / "kernels" / name
    source = path.read_text()
    assert old in source
    stamp = path.stat()
    path.write_text(source.replace(old, new))
    # As an installer might leave it: a new content under an old time.
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert run(copy, layers)[1] != before
    path.write_text(source)
    assert run(copy, layers)[:2] == (0, before)


def test_every_kernel_source_has_an_edit():
    sources = {path.name for path in (PACKAGE / "kernels").glob("*.py")}
    # These make no machine code, and an edit of them changes the key like any other.
    assert sources - {"__init__.py", "cache.py", "plan.py"} == set(EDITS)


def test_a_damaged_file_is_compiled_again(warm, tmp_path):
    folder, (all_of_it, total, _) = warm
    copy = shutil.copytree(folder, tmp_path / "copy")
    for path in (copy / "cache").iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    for path in list((copy / "cache").iterdir())[:3]:
        path.write_bytes(path.read_bytes()[:100])
    path.write_bytes(b"")
    assert run(copy)[:2] == (all_of_it, total)
    assert run(copy)[:2] == (0, total)


def test_a_cache_that_cannot_be_written_costs_one_warning(warm, tmp_path):
    folder, (all_of_it, total, _) = warm
    copy = shutil.copytree(folder, tmp_path / "copy")
    blocked = copy / "a file, not a folder"
    blocked.write_text("")
    compiled, found, errors = run(copy, FASTLSTM_CACHE_DIR=str(blocked))
    assert (compiled, found) == (all_of_it, total)
    assert errors.count("RuntimeWarning") == 1
    assert "set FASTLSTM_CACHE_DIR to a writable folder" in errors


def test_a_user_without_a_home_compiles_in_memory(warm, tmp_path):
    folder, (all_of_it, total, _) = warm
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
    assert (compiled, found) == (all_of_it, total)
    assert errors.count("RuntimeWarning") == 1
    assert "Could not determine home directory" in errors


def test_processes_may_compile_at_once(warm, copy):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(copy), str(Path(__file__).parent.parent)]),
        "FASTLSTM_CACHE_DIR": str(copy / "cache"),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT.replace("LAYERS", LAYERS["LSTM"])],
            env=environment,
            cwd=copy,
            stdout=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    totals = {process.communicate()[0].split()[1] for process in processes}
    assert all(process.returncode == 0 for process in processes)
    assert len(totals) == 1
    files = sorted((copy / "cache").iterdir())
    assert [path.suffix for path in files] == [".kernel"] * warm[1][0]
    for path in files:
        content = path.read_bytes()
        assert hashlib.sha256(content[32:]).digest() == content[:32]
    assert run(copy)[:2] == (0, float.fromhex(totals.pop().decode()))


def test_no_width_loads_the_code_of_another(warm, tmp_path):
    folder = shutil.copytree(warm[0], tmp_path / "copy", ignore=shutil.ignore_patterns("cache"))
    found = {}
    for width in ("16", "8", "4"):
        compiled, found[width], _ = run(folder, FASTLSTM_VECTOR_WIDTH=width)
        assert compiled == warm[1][0]
    for width, total in found.items():
        assert run(folder, FASTLSTM_VECTOR_WIDTH=width) == (0, total, "")


KEY = """
from numba import types
from numba.core.registry import cpu_target
from fastlstm.kernels.cache import KernelCache
print(KernelCache("f")._path(types.int64(types.int64), cpu_target.target_context).name)
"""


def key(**environment):
    done = subprocess.run(
        [sys.executable, "-c", KEY],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def usual_key():
    return key()


@pytest.mark.parametrize(
    "variable",
    [
        "NUMBA_CPU_NAME=generic",
        "NUMBA_CPU_FEATURES=",
        "NUMBA_OPT=1",
        "NUMBA_OPT=max",
        "NUMBA_LOOP_VECTORIZE=0",
        "NUMBA_SLP_VECTORIZE=1",
        "NUMBA_BOUNDSCHECK=1",
        "NUMBA_DEBUGINFO=1",
    ],
)
def test_what_changes_the_code_is_in_the_key(usual_key, variable):
    name, _, value = variable.partition("=")
    if value == llvm.get_host_cpu_name():
        pytest.skip("this CPU is the generic one")
    assert key(**{name: value}) != usual_key


def test_what_changes_no_code_is_not_in_the_key(usual_key):
    assert key(NUMBA_NUM_THREADS="1", OMP_NUM_THREADS="1") == usual_key


@pytest.mark.parametrize(
    ("module", "name"), [(numba, "__version__"), (cache.llvmlite, "__version__"), (sys, "version")]
)
def test_each_version_has_files_of_its_own(monkeypatch, module, name):
    def path():
        kernel = cache.KernelCache("f")
        return kernel._path(types.int64(types.int64), cpu_target.target_context)

    before = path()
    monkeypatch.setattr(module, name, "99.0")
    assert path() != before


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache folder for this process, in which nothing has been warned of."""
    monkeypatch.setenv("FASTLSTM_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setattr(cache, "kept", {})
    monkeypatch.setattr(cache, "_warned", threading.Event())
    return tmp_path / "kernels"


def compile_one(name="triple"):
    """Compile or load a small function; whether it was loaded."""

    @njit
    def triple(x):
        return 3 * x

    triple._cache = cache.KernelCache(name)
    triple.compile(types.int64(types.int64))
    assert triple(14) == 42
    return bool(triple.stats.cache_hits)


DAY = 24 * 3600


def aged(path, seconds):
    """A file that was last used so long ago."""
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.write_bytes(b"old")
    then = int(time.time() - seconds)
    os.utime(path, (then, then))
    return then


def test_what_nobody_uses_any_more_is_removed(folder):
    a, b, c, d, e = (letter * 64 + ".kernel" for letter in "abcde")
    unfinished = "." + "0" * 32
    stays = ["notes.txt", "a.kernel", f"{b}.old", a, d + unfinished]
    for name, seconds in {
        "notes.txt": 900 * DAY,  # someone else's, as are the next two
        "a.kernel": 900 * DAY,
        f"{b}.old": 900 * DAY,
        a: 89 * DAY,
        b: 91 * DAY,
        c + unfinished: 2 * 3600,  # its writer died
        d + unfinished: 600,
    }.items():
        aged(folder / name, seconds)
    # This cannot be removed like a file; the others go all the same.
    (folder / e).mkdir()
    aged(folder / e, 900 * DAY)
    assert not compile_one()
    (new,) = (kept.path.name for kept in cache.kept.values())
    assert sorted(os.listdir(folder)) == sorted([*stays, e, new])


def test_a_file_that_is_loaded_counts_as_used(folder):
    assert not compile_one()
    (path,) = folder.iterdir()
    two_days_ago = aged(path, 2 * DAY)
    assert compile_one()
    assert path.stat().st_mtime > two_days_ago + DAY
    # Not at each load: that would be a write to the disk for every process that starts.
    an_hour_ago = aged(path, 3600)
    assert compile_one()
    assert path.stat().st_mtime == an_hour_ago


def refused(*_, **__):
    raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize("call", ["scandir", "unlink", "utime"])
def test_trouble_with_old_files_is_nobodys_trouble(folder, monkeypatch, call):
    aged(folder / ("b" * 64 + ".kernel"), 91 * DAY)
    assert not compile_one("other")
    (path,) = (kept.path for kept in cache.kept.values())
    aged(path, 2 * DAY)
    monkeypatch.setattr(os, call, refused)
    assert compile_one("other")
    assert not compile_one("third")


def test_code_that_cannot_be_kept_is_warned_of_once_and_leaves_nothing(folder, monkeypatch):
    monkeypatch.setattr(os, "replace", refused)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        assert not compile_one()
        assert not compile_one("other")
    (warning,) = found
    assert f"({folder}: Permission denied)" in str(warning.message)
    assert list(folder.iterdir()) == []
    assert cache.kept == {}


def test_where_keeping_is_required_it_is_an_error(folder, monkeypatch):
    monkeypatch.setattr(os, "replace", refused)
    with cache.required(), pytest.raises(OSError, match=f"{folder}: Permission denied"):
        compile_one()


def test_another_user_may_read_what_this_one_compiled(folder):
    """As where a container is built by root and run by someone else."""
    before = os.umask(0o022)
    try:
        compile_one()
    finally:
        os.umask(before)
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o644

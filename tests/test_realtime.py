"""What a service with deadlines relies on: no allocation, no denormals, threads that do not mix.

Every counter has a negative control: something that allocates is counted by it.
"""

import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import cases
from fastlstm.errors import StreamBusyError
from fastlstm.kernels import calls
from fastlstm.model import LSTM, Model

STEPS = 10_000

# Each counts something over STEPS calls, beyond what STEPS calls of nothing count.
COUNTERS = """
import gc, itertools, json, sys, tracemalloc
from collections import deque
import numpy as np
from numba import njit
from numba.core.runtime import rtsys
import cases

def repeat(call, sample):
    # Without a loop variable: a counter that runs on would allocate the numbers above 256.
    for _ in itertools.repeat(None, STEPS):
        call(sample)

def nothing(sample):
    pass

def numba_allocations(call, sample):
    before = rtsys.get_allocation_stats()
    repeat(call, sample)
    after = rtsys.get_allocation_stats()
    return after.alloc - before.alloc + after.mi_alloc - before.mi_alloc

def blocks_left(call, sample):
    before = sys.getallocatedblocks()
    repeat(call, sample)
    return sys.getallocatedblocks() - before

def peak_bytes(call, sample):
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    repeat(call, sample)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak - before

def beyond(counter, call, sample):
    for warm in (call, nothing):
        counter(warm, sample)
    return counter(call, sample) - counter(nothing, sample)

gc.disable()
""".replace("STEPS", str(STEPS))

STREAMS = """
def streams():
    for kind in cases.GATES:
        plain = cases.stack(kind, 12, 1, inputs=1).stream()
        yield kind + ", a float", plain, 0.5
        yield kind + ", an array of one", plain, np.array([0.5], np.float32)
        deep = cases.stack(kind, 12, 3, inputs=3).stream()
        yield "three " + kind + ", an array", deep, np.array([0.5, -1, 2], np.float32)
    yield "connected", cases.model("connected-1").stream(), np.array([0.5], np.float32)

def fresh(sample, empty=np.empty, dtype=np.dtype(np.float32)):
    # What a step returns, and no step.
    y = empty(1, dtype)
    return y
"""


def python(source, **environment):
    """What a script prints as JSON, in a process of its own."""
    folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", source],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_step_allocates_nothing_in_numba_or_python():
    source = """
@njit
def allocating(sample):
    return np.ones(4)

rows = {}
for name, stream, sample in streams():
    for call in (stream.push, stream.step):
        counted = [beyond(c, call, sample) for c in (numba_allocations, blocks_left, peak_bytes)]
        rows[f"{call.__name__}, {name}"] = counted
listed = [1.0, 2.0, 3.0]
stream = cases.stack("LSTM", 12, 3, inputs=3).stream()
kept = []
controls = [
    beyond(peak_bytes, fresh, 0.5),
    beyond(numba_allocations, allocating, 0.5),
    beyond(blocks_left, lambda sample: kept.append(stream.step(sample)), listed),
    beyond(peak_bytes, stream.push, listed),
]
print(json.dumps([rows, controls]))
"""
    rows, controls = python(COUNTERS + STREAMS + source, NUMBA_NRT_STATS="1")
    result, numba, left, peak = controls
    assert len(rows) == 20
    for name, counted in rows.items():
        # A step has its one result, and it is freed before the next.
        assert counted == [0, 0, result if name.startswith("step") else 0], name
    # What allocates is seen by each of the counters.
    assert numba >= STEPS
    assert left >= STEPS
    assert peak > 0
    assert result > 0


MALLOC = """
#include <stddef.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

/* Of the thread that asks: what others allocate meanwhile is not its own. */
static __thread long count __attribute__((tls_model("initial-exec")));

long mallocs(void) { return count; }

void *malloc(size_t size) { count++; return __libc_malloc(size); }
void *calloc(size_t n, size_t size) { count++; return __libc_calloc(n, size); }
void *realloc(void *old, size_t size) { count++; return __libc_realloc(old, size); }
void *memalign(size_t to, size_t size) { count++; return __libc_memalign(to, size); }
void *aligned_alloc(size_t to, size_t size) { count++; return __libc_memalign(to, size); }
int posix_memalign(void **at, size_t to, size_t size)
{
    count++;
    *at = __libc_memalign(to, size);
    return *at ? 0 : 12;
}
"""


@pytest.fixture(scope="module")
def counting_malloc(tmp_path_factory):
    """A library to preload that counts a thread's calls of malloc and its like."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("counting malloc needs Linux with glibc")
    if compiler is None:
        pytest.skip("counting malloc needs a C compiler: cc, gcc or clang")
    folder = tmp_path_factory.mktemp("malloc")
    (folder / "count.c").write_text(MALLOC)
    library = folder / "count.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-fno-builtin", "-o", str(library)]
    subprocess.run([*command, str(folder / "count.c")], check=True)
    return library


# "pymalloc" as usual; with "malloc" each of Python's own objects is a malloc too.
@pytest.mark.parametrize("allocator", ["pymalloc", "malloc"])
def test_push_never_calls_malloc(counting_malloc, allocator):
    source = """
import ctypes
mallocs = ctypes.CDLL(None).mallocs
mallocs.restype = ctypes.c_long

def malloc_calls(call, sample):
    before = mallocs()
    repeat(call, sample)
    return mallocs() - before

rows = {}
for name, stream, sample in streams():
    rows[f"push, {name}"] = beyond(malloc_calls, stream.push, sample)
    rows[f"step, {name}"] = beyond(malloc_calls, stream.step, sample)
listed = cases.stack("LSTM", 12, 3, inputs=3).stream()
print(json.dumps([
    rows,
    beyond(malloc_calls, fresh, 0.5),
    beyond(malloc_calls, listed.push, [1.0, 2.0, 3.0]),
    beyond(malloc_calls, lambda sample: bytearray(5000), 0.5),
]))
"""
    rows, fresh, converted, control = python(
        COUNTERS + STREAMS + source, LD_PRELOAD=str(counting_malloc), PYTHONMALLOC=allocator
    )
    assert control >= STEPS
    assert {name: count for name, count in rows.items() if name.startswith("push") and count} == {}
    # A step allocates what its one result array does, and nothing else.
    assert {count for name, count in rows.items() if name.startswith("step")} == {fresh}
    if allocator == "malloc":
        assert fresh >= STEPS
        assert converted >= STEPS


TINY = np.finfo(np.float32).tiny


def denormal(values):
    return bool(np.any((values != 0) & (np.abs(values) < TINY)))


def fading(kind):
    """A network whose state fades when the input falls silent: no bias, small hidden weights."""
    layer = cases.recurrent(kind, 2, 20, bias=False)
    arrays = dict(layer.arrays)
    arrays["weight_hh_l0"] = arrays["weight_hh_l0"] * np.float32(0.1)
    return Model((type(layer)(**arrays),))


def forgetful():
    """An LSTM with open gates that keeps nothing in its cell: all that fades is h."""
    gates = np.array([10, -10, 0, 10], np.float32)
    hidden = np.array([[0], [0], [0.99], [0]], np.float32)
    inputs = np.array([[0, 0], [0, 0], [1, 0], [0, 0]], np.float32)
    return Model((LSTM(inputs, hidden, gates, np.zeros(4, np.float32)),))


FADING = {kind: lambda kind=kind: fading(kind) for kind in cases.GATES} | {"forgetful": forgetful}


# Its cell is flushed, and h is what came out of it before that.
@pytest.mark.parametrize("name", FADING)
@pytest.mark.parametrize("way", ["push", "run"])
def test_a_state_that_fades_is_never_denormal(name, way):
    model = FADING[name]()
    loud = 5 * np.random.default_rng(1).standard_normal((50, 2)).astype(np.float32)
    stream = model.stream()
    stream.run(loud)
    assert all(np.abs(vector).max() > 0.1 for vector in stream.state)
    silence = np.zeros((7 if way == "run" else 1, 2), np.float32)
    seen, sizes = [], []
    for _ in range(20_000 // len(silence)):
        if way == "run":
            seen.append(denormal(stream.run(silence)))
        else:
            stream.push(silence[0])
            seen.append(denormal(stream.output))
        seen += map(denormal, stream.state)
        sizes.append(max(np.abs(vector).max() for vector in stream.state))
    assert seen.count(True) == 0
    # It came through the small numbers, and ended.
    assert any(0 < size < 1e-25 for size in sizes)
    assert not any(vector.any() for vector in stream.state)


def test_without_the_flush_it_would_be_denormal():
    """The negative control: the same decay in NumPy's float32."""
    h, seen = np.float32(1), []
    for _ in range(1000):
        h *= np.float32(0.9)
        seen.append(denormal(h))
    assert any(seen)


def together(work, count):
    """Run work(k) for k under `count`, each in a thread, all from the same moment on."""
    gate, failed = threading.Barrier(count), []

    def one(k):
        gate.wait()
        try:
            work(k)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=one, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_many_threads_with_a_stream_each_get_the_bits_of_one_thread():
    model = cases.stack("LSTM", 40, 2)
    inputs = [cases.stream(model, 900, seed) for seed in range(8)]
    expected = [model.stream().run(x) for x in inputs]
    found = [None] * 8

    def drive(k):
        stream, rows = model.stream(), []
        for number, block in enumerate(np.split(inputs[k], 45)):
            if (number + k) % 3:
                rows.append(stream.run(block))
                continue
            for sample in block:
                stream.push(sample)
                rows.append(stream.output.copy()[np.newaxis])
        found[k] = np.concatenate(rows)

    together(drive, 8)
    for a, b in zip(found, expected, strict=True):
        assert np.array_equal(a, b)


def test_streams_of_different_models_may_be_made_at_once():
    names = ("LSTM-3", "GRU-3", "RNN-3", "LSTM-3", "GRU-3", "RNN-3", "sigmoid-head", "affine-only")
    models = [cases.model(name) for name in names]
    found = [None] * 8

    def make(k):
        # Alternately a model of its own and one that another thread has too.
        model = models[k] if k % 2 else models[k // 2]
        found[k] = (model, model.stream().run(cases.stream(model, 40)))

    together(make, 8)
    for model, y in found:
        assert np.array_equal(y, model.stream().run(cases.stream(model, 40)))


def test_threads_that_share_a_stream_are_refused_or_served_whole():
    model = cases.stack("LSTM", 24, 1)
    stream, x = model.stream(), cases.stream(model, 2000)
    served = []

    def drive(_):
        for _ in range(10):
            try:
                stream.run(x)
            except StreamBusyError:
                continue
            served.append(1)

    together(drive, 4)
    assert stream.steps == len(served) * len(x) > 0
    alone = model.stream()
    for _ in served:
        alone.run(x)
    assert stream.snapshot() == alone.snapshot()


def watched(work, busy):
    """How often this thread gets to look, and sees `busy`, while another one does `work`."""
    thread = threading.Thread(target=work)
    thread.start()
    seen = 0
    while thread.is_alive():
        seen += bool(busy())
    thread.join()
    return seen


def test_run_leaves_the_other_threads_free():
    model = cases.stack("LSTM", 64, 1)
    stream, x = model.stream(), cases.stream(model, 100_000)
    header = stream._header
    # Python runs here while the stream is marked as in use: `run` does not hold the GIL.
    rounds = (watched(lambda: stream.run(x), lambda: header[calls.BUSY // 8]) for _ in range(50))
    assert sum(itertools.islice(itertools.dropwhile(lambda seen: seen < 100, rounds), 1)) >= 100


def test_a_call_that_keeps_the_gil_would_be_noticed():
    """The negative control: the same, marked by compiled code that does not release it."""
    from numba import njit

    @njit
    def hold(mark):
        mark[0] = 1
        total = 0.0
        for k in range(100_000_000):
            total += total * 0.5 + k
        mark[0] = 0
        return total

    mark = np.zeros(1)
    hold(mark)
    assert watched(lambda: hold(mark), lambda: mark[0]) == 0

"""Start-up: the counter of allocations finds every one, and none where there is none."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

import cases
from fastlstm.bench.startup import allocation_counter
from fastlstm.bench.startup.allocation_counter import build_counter, counting
from fastlstm.bench.startup.processes import start

COMPILER = next(filter(shutil.which, ("cc", "gcc", "clang")), None)
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or COMPILER is None, reason="needs Linux and a C compiler"
)

# Every function that is counted, once; what they hand out is freed, which does not count.
ALLOCATING = """
#define _GNU_SOURCE
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
void nothing(void) {}
int allocate(void) {
    void *p[6], *q;
    int k, bad = 0;
    p[0] = malloc(10);
    p[1] = calloc(3, 100);
    for (k = 0; k < 300; k++) bad |= ((char *)p[1])[k];
    memset(p[0], 7, 10);
    p[0] = realloc(p[0], 100000);
    for (k = 0; k < 10; k++) bad |= ((char *)p[0])[k] != 7;
    bad |= posix_memalign(&p[2], 64, 100) || (size_t)p[2] % 64;
    p[3] = aligned_alloc(128, 256);
    p[4] = memalign(256, 100);
    bad |= (size_t)p[3] % 128 || (size_t)p[4] % 256;
    p[5] = realloc(NULL, 20);
    q = strdup("libc's own call");
    free(q);
    for (k = 0; k < 6; k++) free(p[k]);
    return bad;
}
"""
IN_C = """
import ctypes

def load(path):
    call = getattr(ctypes.CDLL(path), "FUNCTION")
    def step(x):
        assert not call()
        return x
    return step
"""
# A plain object is one piece of memory, and Python keeps none of them for the next.
IN_PYTHON = """
def load(path):
    def step(x):
        CALLS
        return x
    return step
"""
PUSH = """
import fastlstm

def load(path):
    stream = fastlstm.load(path).stream()
    push, output = stream.push, stream.output
    def step(x):
        push(x)
        return output
    return step
"""


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    library = build_counter(tmp_path_factory.mktemp("counter"))
    assert library is not None
    return library


@pytest.fixture
def count(counter, tmp_path):
    """Allocations per step that are counted in a program of this source."""

    def count(source, model="", inputs=1):
        program, samples = tmp_path / "program.py", tmp_path / "input.npy"
        program.write_text(source)
        np.save(samples, np.full((5, inputs), 0.5, np.float32))
        arguments = (str(model), str(samples), "allocations", str(counter))
        answer = start(program, arguments, counting(counter), clock=lambda: 0)
        return answer.figures["allocations_per_step"]

    return count


def test_every_kind_of_allocation_in_c_is_counted_once(count, tmp_path):
    source, library = tmp_path / "allocating.c", tmp_path / "allocating.so"
    source.write_text(ALLOCATING)
    subprocess.run([COMPILER, "-O0", "-fPIC", "-shared", "-o", library, source], check=True)
    # ctypes' own objects are in both.
    of_the_call = count(IN_C.replace("FUNCTION", "nothing"), library)
    assert count(IN_C.replace("FUNCTION", "allocate"), library) - of_the_call == 8


@pytest.mark.parametrize("calls", [0, 1, 5])
def test_objects_of_python_are_counted(count, calls):
    assert count(IN_PYTHON.replace("CALLS", "; ".join(["object()"] * calls) or "pass")) == calls


def test_a_push_allocates_nothing(count, tmp_path):
    path = cases.stack("LSTM", 12, 1, inputs=3).save(tmp_path / "model.safetensors")
    assert count(PUSH, path, 3) == 0
    # The negative control: the same program with a fresh copy of the output, an array and no more,
    # because NumPy keeps the few bytes of its content for the next one.
    assert count(PUSH.replace("return output", "return output.copy()"), path, 3) == 1


def test_what_stands_in_cc_is_the_compiler(tmp_path, monkeypatch):
    note = tmp_path / "called"
    script = tmp_path / "my compiler"
    script.write_text(f'#!/bin/sh\necho "$1" >"{note}"\nshift\nexec {COMPILER} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("CC", f"'{script}' --mine")
    assert build_counter(tmp_path) == tmp_path / "count_allocations.so"
    assert note.read_text() == "--mine\n"


def test_without_a_compiler_that_works_there_is_no_counter(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    assert build_counter(tmp_path) is None
    monkeypatch.setenv("CC", "false")
    assert build_counter(tmp_path) is None
    monkeypatch.delenv("CC")
    monkeypatch.setattr(allocation_counter.sys, "platform", "darwin")
    assert build_counter(tmp_path) is None


def test_an_older_preload_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("LD_PRELOAD", "/lib/other.so")
    assert counting(tmp_path / "a.so") == {
        "LD_PRELOAD": f"{tmp_path / 'a.so'} /lib/other.so",
        "PYTHONMALLOC": "malloc",
    }

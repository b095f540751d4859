"""What crosses from Python into machine code for any network: push, step, run and forecast.

They see a stream as one block of memory: a header of int64 words, then the float32 that packing.py
lays out. They trust what stream.py put there, and check what a user gives.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import config, njit, types
from numba.extending import NativeValue, intrinsic, models, register_model, unbox

from fastlstm.kernels.cache import KernelCache
from fastlstm.kernels.memory import (
    address_of,
    exchange_word,
    get,
    get_word,
    offset,
    pointer_to,
    put,
    put_word,
)
from fastlstm.kernels.simd import JIT

if TYPE_CHECKING:
    from collections.abc import Callable

# Header words of a stream's memory, as byte offsets: where the machine code for one step and the
# packed weights are, whether a thread is in, the steps taken, sizes, where the output buffer
# begins (in float32), what tells an ndarray, a float and the dtype float32, and where the machine
# code for a run is.
(
    NETWORK,
    WEIGHTS,
    BUSY,
    STEPS,
    INPUTS,
    OUTPUTS,
    OUTPUT,
    ARRAY_TYPE,
    FLOAT_TYPE,
    FLOAT32,
    NETWORK_RUN,
) = range(0, 88, 8)
HEADER_BYTES = 128

# What the compiled functions answer.
DONE, NOT_PLAIN, NOT_FINITE, IN_USE = range(4)

# The bytes before an object's own fields: reference count and type, more in some builds.
OBJECT_HEADER = object.__basicsize__
# Where an ndarray keeps what, in bytes after that (PyArrayObject_fields of NumPy's C API).
# stream.py checks these against a real array before the first use.
DATA, NDIM, DIMENSIONS, STRIDES, DTYPE = 0, 8, 16, 24, 40
# The word of a dtype that holds its kind, type character, byte order, flags and type number
# (PyArray_Descr), and all of it but the flags.
DTYPE_WORD, DTYPE_MASK = 8, ~(0xFF << 24)


class Object(types.Opaque):
    """Any Python object, as its address: reading an array's fields in the kernel costs a few
    nanoseconds, Numba's own unboxing of an array an allocation and 35 ns.
    """


OBJECT = Object("object")
register_model(Object)(models.OpaqueModel)


@unbox(Object)
def _unbox(kind: Object, value: Any, context: Any) -> NativeValue:
    return NativeValue(value)


@intrinsic
def address_of_object(typingctx, value):
    """The address of a Python object."""

    def build(context, builder, signature, arguments):
        return builder.ptrtoint(arguments[0], ir.IntType(64))

    return types.int64(OBJECT), build


@intrinsic
def get_double(typingctx, address):
    """The float64 at `address`."""

    def build(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], ir.DoubleType().as_pointer()), align=8)

    return types.float64(types.int64), build


@intrinsic
def call_network_run(typingctx, function, memory, weights, parity, x, x_stride, y, steps, scratch):
    """Call the machine code at the address `function`; see network.NETWORK_RUN."""

    def build(context, builder, signature, arguments):
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word] * 8)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9), build


@intrinsic
def call_network(typingctx, function, memory, weights, parity, y):
    """Call the machine code at the address `function`; see network.NETWORK_STEP."""

    def build(context, builder, signature, arguments):
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word] * 4)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), build


class Calls(NamedTuple):
    """The compiled entry points."""

    # push(sample, memory) -> status: reads the sample, steps, leaves the output in the memory.
    push: Callable[[Any, Any], int]
    # step(sample, memory, y) -> status: the same, and copies the output to y.
    step: Callable[[Any, Any, Any], int]
    # run(samples, memory, y, scratch) -> status: from the rows of samples, an array of two axes, to
    # those of y; releases the GIL.
    run: Callable[[Any, Any, Any, Any], int]
    # run_rows(memory, x, x_stride, y, steps, scratch) -> status: the same by address, unchecked.
    run_rows: Callable[[int, int, int, int, int, int], int]
    # forecast(memory, y, steps) -> status: row k of y is the input of the step that writes row
    # k + 1; releases the GIL.
    forecast: Callable[[int, int, int], int]
    # claim(memory) -> whether the stream was free and is now marked as in use; release undoes it.
    claim: Callable[[int], bool]
    release: Callable[[int], None]


@cache
def compiled_calls() -> Calls:
    """Compile the calls, or load their machine code from the cache; once in a process.

    Not for two threads at once.
    """
    if config.DISABLE_JIT:
        raise RuntimeError(
            "fastlstm streams are machine code, and NUMBA_DISABLE_JIT forbids compiling any: unset "
            "it, or use fastlstm.reference"
        )
    word = types.int64
    # First, because `run` calls it: compiled along with that, it would not come from the cache.
    by_rows = _entry_point(run_rows, word(word, word, word, word, word, word))
    return Calls(
        _entry_point(push, word(OBJECT, OBJECT)),
        _entry_point(step, word(OBJECT, OBJECT, OBJECT)),
        _entry_point(run, word(OBJECT, OBJECT, OBJECT, OBJECT)),
        by_rows,
        _entry_point(forecast, word(word, word, word)),
        _entry_point(claim, types.boolean(word)),
        _entry_point(release, types.void(word)),
    )


def _entry_point(function: Any, signature: Any) -> Any:
    function._cache = KernelCache(function.py_func.__name__)
    function.compile(signature)
    function.disable_compile()
    # Through the dispatcher a call costs 70 ns more (docs/kernels.md).
    return function.overloads[signature.args].entry_point


@njit(**JIT)
def read_sample(sample, base):
    """Copy one sample into the input buffer, the first of the memory."""
    memory = pointer_to(base + HEADER_BYTES)
    inputs = get_word(base + INPUTS)
    fields = sample + OBJECT_HEADER
    kind = get_word(fields - 8)
    if kind == get_word(base + ARRAY_TYPE):
        dtype = get_word(get_word(fields + DTYPE) + OBJECT_HEADER + DTYPE_WORD)
        if dtype & DTYPE_MASK != get_word(base + FLOAT32):
            return NOT_PLAIN
        # The number of dimensions is a C int; what follows it in the word is padding.
        if get_word(fields + NDIM) & 0xFFFFFFFF != 1:
            return NOT_PLAIN
        if get_word(get_word(fields + DIMENSIONS)) != inputs:
            return NOT_PLAIN
        if inputs > 1 and get_word(get_word(fields + STRIDES)) != 4:
            return NOT_PLAIN
        if not copy_finite(pointer_to(get_word(fields + DATA)), memory, inputs):
            return NOT_FINITE
        return DONE
    if inputs == 1 and kind == get_word(base + FLOAT_TYPE):
        put(memory, 0, np.float32(get_double(fields)))
        return DONE if copy_finite(memory, memory, 1) else NOT_FINITE
    return NOT_PLAIN


@njit(**JIT)
def copy_finite(x, y, count):
    """Copy `count` values; whether all of them are finite."""
    spoiled = np.float32(0)
    for k in range(count):
        value = get(x, k)
        put(y, k, value)
        # 0 for a finite value, NaN for any other, and NaN stays.
        spoiled += value - value
    return spoiled == 0


@njit(**JIT)
def advance(base):
    """One step on the sample in the input buffer; the address of the output."""
    memory = base + HEADER_BYTES
    output = memory + 4 * get_word(base + OUTPUT)
    steps = get_word(base + STEPS)
    call_network(get_word(base + NETWORK), memory, get_word(base + WEIGHTS), steps & 1, output)
    put_word(base + STEPS, steps + 1)
    return output


@njit(error_model="numpy")
def push(sample, memory):
    base = get_word(address_of_object(memory) + OBJECT_HEADER + DATA)
    # The GIL is held here, so that only a `run` in another thread can be in between.
    if get_word(base + BUSY) != 0:
        return IN_USE
    status = read_sample(address_of_object(sample), base)
    if status == DONE:
        advance(base)
    return status


@njit(error_model="numpy")
def step(sample, memory, y):
    base = get_word(address_of_object(memory) + OBJECT_HEADER + DATA)
    if get_word(base + BUSY) != 0:
        return IN_USE
    status = read_sample(address_of_object(sample), base)
    if status == DONE:
        result = pointer_to(advance(base))
        copy = pointer_to(get_word(address_of_object(y) + OBJECT_HEADER + DATA))
        for k in range(get_word(base + OUTPUTS)):
            put(copy, k, get(result, k))
    return status


@njit(error_model="numpy", nogil=True)
def run(samples, memory, y, scratch):
    base = get_word(address_of_object(memory) + OBJECT_HEADER + DATA)
    fields = address_of_object(samples) + OBJECT_HEADER
    inputs = get_word(base + INPUTS)
    if get_word(fields - 8) != get_word(base + ARRAY_TYPE):
        return NOT_PLAIN
    dtype = get_word(get_word(fields + DTYPE) + OBJECT_HEADER + DTYPE_WORD)
    if dtype & DTYPE_MASK != get_word(base + FLOAT32):
        return NOT_PLAIN
    if get_word(fields + NDIM) & 0xFFFFFFFF != 2:
        return NOT_PLAIN
    sizes, strides = get_word(fields + DIMENSIONS), get_word(fields + STRIDES)
    if get_word(sizes + 8) != inputs:
        return NOT_PLAIN
    steps, stride = get_word(sizes), get_word(strides)
    # Rows may lie apart, but not between two float32, and each must be without gaps. NumPy leaves
    # the strides of an empty array to chance.
    if steps > 0 and (stride & 3 != 0 or (inputs > 1 and get_word(strides + 8) != 4)):
        return NOT_PLAIN
    x, x_stride = get_word(fields + DATA), stride >> 2
    if not all_finite(pointer_to(x), x_stride, steps, inputs):
        return NOT_FINITE
    return run_rows(
        base,
        x,
        x_stride,
        get_word(address_of_object(y) + OBJECT_HEADER + DATA),
        steps,
        get_word(address_of_object(scratch) + OBJECT_HEADER + DATA),
    )


@njit(**JIT)
def all_finite(x, x_stride, steps, inputs):
    """Whether every value of these rows is finite."""
    spoiled = np.float32(0)
    for t in range(steps):
        for k in range(inputs):
            value = get(x, t * x_stride + k)
            # 0 for a finite value, NaN for any other, and NaN stays.
            spoiled += value - value
    return spoiled == 0


@njit(error_model="numpy", nogil=True)
def run_rows(base, x, x_stride, y, steps, scratch):
    """`steps` rows of x, x_stride float32 apart, which are finite, to rows of y: addresses."""
    if not exchange_word(base + BUSY, 0, 1):
        return IN_USE
    before = get_word(base + STEPS)
    call_network_run(
        get_word(base + NETWORK_RUN),
        base + HEADER_BYTES,
        get_word(base + WEIGHTS),
        before & 1,
        x,
        x_stride,
        y,
        steps,
        scratch,
    )
    leave(base, y, before, steps)
    return DONE


@njit(error_model="numpy", nogil=True)
def forecast(base, y, steps):
    if not exchange_word(base + BUSY, 0, 1):
        return IN_USE
    network, weights = get_word(base + NETWORK), get_word(base + WEIGHTS)
    size = get_word(base + OUTPUTS)
    before = get_word(base + STEPS)
    memory, rows = pointer_to(base + HEADER_BYTES), pointer_to(y)
    for t in range(steps):
        for k in range(size):
            put(memory, k, get(rows, t * size + k))
        row = address_of(offset(rows, (t + 1) * size))
        call_network(network, base + HEADER_BYTES, weights, (before + t) & 1, row)
    leave(base, address_of(offset(rows, size)), before, steps)
    return DONE


@njit(**JIT)
def leave(base, y, before, steps):
    """After `steps` steps: keep the last row of y as the output, count, and let others in."""
    if steps > 0:
        outputs = get_word(base + OUTPUTS)
        output = pointer_to(base + HEADER_BYTES + 4 * get_word(base + OUTPUT))
        last = offset(pointer_to(y), (steps - 1) * outputs)
        for k in range(outputs):
            put(output, k, get(last, k))
    put_word(base + STEPS, before + steps)
    put_word(base + BUSY, 0)


@njit
def claim(base):
    return exchange_word(base + BUSY, 0, 1)


@njit
def release(base):
    put_word(base + BUSY, 0)

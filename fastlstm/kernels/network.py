"""A whole network as one compiled `push`, `step` and `run`, made from a Plan.

The compiled functions see a stream as one block of memory: a header of int64 words, then the
float32 that packing.py lays out. They trust what stream.py put there, and check what a user gives.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import NativeValue, intrinsic, models, register_model, unbox

from fastlstm.kernels.cache import KernelCache
from fastlstm.kernels.dense import affine_step, dense_dot_step, dense_step
from fastlstm.kernels.gru import gru_step
from fastlstm.kernels.lstm import lstm_step
from fastlstm.kernels.packing import ALIGNMENT, LayerPlan, Plan
from fastlstm.kernels.rnn import rnn_step
from fastlstm.kernels.simd import (
    JIT,
    exchange_word,
    get,
    get_word,
    offset,
    pointer_to,
    put,
    put_word,
    zero_sets,
)

# Header words of a stream's memory, as byte offsets.
WEIGHTS, BUSY, STEPS, ARRAY_TYPE, FLOAT_TYPE, FLOAT32, FIELDS = range(0, 56, 8)
HEADER_BYTES = 64

# What the compiled functions answer.
DONE, NOT_PLAIN, NOT_FINITE, IN_USE = range(4)

# Where an ndarray keeps what, in bytes after the object header (PyArrayObject_fields of NumPy's C
# API). stream.py checks these against a real array before the first use.
DATA, NDIM, DIMENSIONS, STRIDES, DTYPE = 0, 8, 16, 24, 40


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
def address_of_object(typingctx, value):  # type: ignore[no-untyped-def]
    """The address of a Python object."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.ptrtoint(arguments[0], ir.IntType(64))

    return types.int64(OBJECT), build


@intrinsic
def get_double(typingctx, address):  # type: ignore[no-untyped-def]
    """The float64 at `address`."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.load(builder.inttoptr(arguments[0], ir.DoubleType().as_pointer()), align=8)

    return types.float64(types.int64), build


class Program(NamedTuple):
    """The compiled entry points of one plan."""

    # push(sample, memory) -> status: reads the sample, steps, leaves the output in the memory.
    push: Callable[[Any, Any], int]
    # step(sample, memory, y) -> status: the same, and copies the output to y.
    step: Callable[[Any, Any, Any], int]
    # run(memory, x, x_stride, y, steps) -> status: addresses and counts; releases the GIL.
    run: Callable[[int, int, int, int, int], int]


@njit
def _claim(base):  # type: ignore[no-untyped-def]
    return exchange_word(base + BUSY, 0, 1)


@njit
def _release(base):  # type: ignore[no-untyped-def]
    put_word(base + BUSY, 0)


@cache
def _flag_functions() -> tuple[Any, Any]:
    signature = types.int64
    return (
        _entry_point(_claim, types.boolean(signature), ""),
        _entry_point(_release, types.void(signature), ""),
    )


def claim(base: int) -> bool:
    """Mark the stream whose memory begins at `base` as in use; False if it already is."""
    return bool(_flag_functions()[0](base))


def release(base: int) -> None:
    """Undo `claim`."""
    _flag_functions()[1](base)


def compile_network(plan: Plan) -> Program:
    """Compile the network of a plan, or load its machine code from the cache."""
    push, step, run = _functions(plan)
    return Program(
        _entry_point(push, types.int64(OBJECT, OBJECT), repr(plan)),
        _entry_point(step, types.int64(OBJECT, OBJECT, OBJECT), repr(plan)),
        _entry_point(run, types.int64(*[types.int64] * 5), repr(plan)),
    )


def _entry_point(function: Any, signature: Any, plan: str) -> Any:
    function._cache = KernelCache(function.py_func.__name__, plan)
    function.compile(signature)
    function.disable_compile()
    # Through the dispatcher a call costs 70 ns more (docs/kernels.md).
    return function.overloads[signature.args].entry_point


def _functions(plan: Plan) -> tuple[Any, Any, Any]:
    # One layer after the other, as nested calls: Numba cannot loop over functions.
    layers = _layer(plan.layers[0])
    for layer in plan.layers[1:]:
        layers = _chain(layers, _layer(layer))
    inputs, outputs, output = plan.inputs, plan.outputs, plan.output
    even, odd = plan.layers[-1].result

    # Not inlined: `push`, `step` and `run` share its machine code, or would take three times as
    # long to compile; the call costs 2 ns.
    @njit(error_model="numpy")
    def network_step(memory, weights, parity, y):  # type: ignore[no-untyped-def]
        layers(memory, weights, parity)
        result = offset(memory, odd if parity else even)
        for k in range(outputs):
            put(y, k, get(result, k))

    @njit(**JIT)
    def read(sample, base):  # type: ignore[no-untyped-def]
        """Copy one sample into the input buffer, the first of the memory."""
        memory = pointer_to(base + HEADER_BYTES)
        fields = sample + get_word(base + FIELDS)
        kind = get_word(fields - 8)
        if kind == get_word(base + ARRAY_TYPE):
            if get_word(fields + DTYPE) != get_word(base + FLOAT32):
                return NOT_PLAIN
            # The number of dimensions is a C int; what follows it in the word is padding.
            if get_word(fields + NDIM) & 0xFFFFFFFF != 1:
                return NOT_PLAIN
            if get_word(get_word(fields + DIMENSIONS)) != inputs:
                return NOT_PLAIN
            if inputs > 1 and get_word(get_word(fields + STRIDES)) != 4:
                return NOT_PLAIN
            x = pointer_to(get_word(fields + DATA))
            if not copy_finite(x, memory):
                return NOT_FINITE
            return DONE
        if inputs == 1 and kind == get_word(base + FLOAT_TYPE):
            value = np.float32(get_double(fields))
            if not value - value == 0:
                return NOT_FINITE
            put(memory, 0, value)
            return DONE
        return NOT_PLAIN

    @njit(**JIT)
    def copy_finite(x, memory):  # type: ignore[no-untyped-def]
        spoiled = np.float32(0)
        for k in range(inputs):
            value = get(x, k)
            put(memory, k, value)
            # 0 for a finite value, NaN for any other, and NaN stays.
            spoiled += value - value
        return spoiled == 0

    @njit(**JIT)
    def advance(base):  # type: ignore[no-untyped-def]
        memory = pointer_to(base + HEADER_BYTES)
        steps = get_word(base + STEPS)
        network_step(
            memory, pointer_to(get_word(base + WEIGHTS)), steps & 1, offset(memory, output)
        )
        put_word(base + STEPS, steps + 1)
        return memory

    @njit(error_model="numpy")
    def push(sample, memory):  # type: ignore[no-untyped-def]
        base = get_word(address_of_object(memory) + OBJECT_HEADER + DATA)
        # The GIL is held here, so that only a `run` in another thread can be in between.
        if get_word(base + BUSY) != 0:
            return IN_USE
        status = read(address_of_object(sample), base)
        if status == DONE:
            advance(base)
        return status

    @njit(error_model="numpy")
    def step(sample, memory, y):  # type: ignore[no-untyped-def]
        base = get_word(address_of_object(memory) + OBJECT_HEADER + DATA)
        if get_word(base + BUSY) != 0:
            return IN_USE
        status = read(address_of_object(sample), base)
        if status == DONE:
            result = offset(advance(base), output)
            copy = pointer_to(get_word(address_of_object(y) + OBJECT_HEADER + DATA))
            for k in range(outputs):
                put(copy, k, get(result, k))
        return status

    @njit(error_model="numpy", nogil=True)
    def run(base, x, x_stride, y, steps):  # type: ignore[no-untyped-def]
        if not exchange_word(base + BUSY, 0, 1):
            return IN_USE
        memory = pointer_to(base + HEADER_BYTES)
        weights = pointer_to(get_word(base + WEIGHTS))
        before = get_word(base + STEPS)
        source, target = pointer_to(x), pointer_to(y)
        for t in range(steps):
            for k in range(inputs):
                put(memory, k, get(source, t * x_stride + k))
            network_step(memory, weights, (before + t) & 1, offset(target, t * outputs))
        if steps > 0:
            for k in range(outputs):
                put(memory, output + k, get(target, (steps - 1) * outputs + k))
        put_word(base + STEPS, before + steps)
        put_word(base + BUSY, 0)
        return DONE

    return push, step, run


# The bytes before an ndarray's own fields: reference count and type, more in some builds.
OBJECT_HEADER = object.__basicsize__


def _chain(first: Any, second: Any) -> Any:
    @njit(**JIT)
    def both(memory, weights, parity):  # type: ignore[no-untyped-def]
        first(memory, weights, parity)
        second(memory, weights, parity)

    return both


def _layer(plan: LayerPlan) -> Any:
    """One layer's step with its sizes and offsets as constants."""
    inputs, outputs, width, parts = plan.inputs, plan.outputs, plan.width, plan.parts
    vectors, sets, activation, at, cell = (
        plan.vectors,
        plan.sets,
        plan.activation,
        plan.weights,
        plan.cell,
    )
    source_even, source_odd = plan.source
    result_even, result_odd = plan.result
    padded = -(-inputs // ALIGNMENT) * ALIGNMENT

    @njit(**JIT)
    def source(memory, parity):  # type: ignore[no-untyped-def]
        return offset(memory, source_odd if parity else source_even)

    @njit(**JIT)
    def result(memory, parity):  # type: ignore[no-untyped-def]
        return offset(memory, result_odd if parity else result_even)

    if plan.kind == "LSTM":

        @njit(**JIT)
        def layer(memory, weights, parity):  # type: ignore[no-untyped-def]
            zero = zero_sets(width, vectors, sets)
            x, old, new = source(memory, parity), result(memory, 1 - parity), result(memory, parity)
            c = offset(memory, cell)
            w = offset(weights, at)
            lstm_step(zero, inputs, outputs, parts, width, w, x, old, c, new, parity)

    elif plan.kind == "GRU":

        @njit(**JIT)
        def layer(memory, weights, parity):  # type: ignore[no-untyped-def]
            zero = zero_sets(width, vectors, sets)
            x, old, new = source(memory, parity), result(memory, 1 - parity), result(memory, parity)
            w = offset(weights, at)
            gru_step(zero, inputs, outputs, parts, width, w, x, old, new, parity)

    elif plan.kind == "RNN":

        @njit(**JIT)
        def layer(memory, weights, parity):  # type: ignore[no-untyped-def]
            zero = zero_sets(width, vectors, sets)
            x, old, new = source(memory, parity), result(memory, 1 - parity), result(memory, parity)
            w = offset(weights, at)
            rnn_step(zero, inputs, outputs, parts, width, activation, w, x, old, new, parity)

    elif plan.kind == "Affine":

        @njit(**JIT)
        def layer(memory, weights, parity):  # type: ignore[no-untyped-def]
            zero = zero_sets(width, vectors, sets)
            x, y = source(memory, parity), result(memory, parity)
            affine_step(zero, padded, width, offset(weights, at), x, y)

    elif plan.dot:

        @njit(**JIT)
        def layer(memory, weights, parity):  # type: ignore[no-untyped-def]
            zero = zero_sets(width, vectors, sets)
            x, y = source(memory, parity), result(memory, parity)
            w = offset(weights, at)
            dense_dot_step(zero, padded, outputs, width, activation, w, x, y)

    else:

        @njit(**JIT)
        def layer(memory, weights, parity):  # type: ignore[no-untyped-def]
            zero = zero_sets(width, vectors, sets)
            x, y = source(memory, parity), result(memory, parity)
            w = offset(weights, at)
            dense_step(zero, inputs, outputs, parts, width, activation, w, x, y)

    return layer

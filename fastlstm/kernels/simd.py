"""An LLVM vector of float32 as a Numba type, and the operations that the kernels are made of.

Plain loops left to the auto-vectoriser cost 2 to 10 times as much (docs/kernels.md), because it
will not keep four gates in registers. LLVM legalises these vectors on any CPU, of any width.
"""

from __future__ import annotations

import os
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model

# No fast-math: re-association would make `run` and `step` differ in their last bits, and the
# no-NaN and no-infinity flags would delete the check of the input.
# forceinline: a kernel is one function to LLVM, so sizes become constants and pointers stay in
# registers; passing them through calls doubled some times. Errors: Numba's "python" model
# puts a division check, with its branch, before each scalar division.
JIT = {"forceinline": True, "error_model": "numpy", "boundscheck": False}

_FLOAT = ir.FloatType()
_INDEX = ir.IntType(64)


class Vector(types.Type):
    """`width` float32 lanes in one value."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"float32x{width}")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.VectorType(_FLOAT, vector.width))


def native_width() -> int:
    """Lanes of the widest float32 register of this CPU: 16, 8 or 4.

    The environment variable FASTLSTM_VECTOR_WIDTH overrides it; every width is right on every CPU.
    """
    forced = os.environ.get("FASTLSTM_VECTOR_WIDTH", "")
    if forced:
        if forced not in ("4", "8", "16"):
            raise ValueError(f"FASTLSTM_VECTOR_WIDTH: expected 4, 8 or 16, found {forced!r}")
        return int(forced)
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    if features.get("avx"):
        return 8
    return 4


# A state value under this is stored as 0: a silent input would otherwise let a decaying state
# slip into denormals, where some CPUs take a hundred times as long for each operation.
TINY = np.float32(1e-30)
POINTER = types.CPointer(types.float32)
NATIVE_WIDTH = native_width()
# AVX-512 and AArch64 have 32 vector registers, SSE and AVX2 have 16.
REGISTERS = 32 if NATIVE_WIDTH == 16 or "aarch64" in llvm.get_process_triple() else 16


def _lanes(vector: Vector) -> ir.VectorType:
    return ir.VectorType(_FLOAT, vector.width)


def _splat(builder: ir.IRBuilder, value: ir.Value, width: int) -> ir.Value:
    vector = ir.VectorType(_FLOAT, width)
    single = builder.insert_element(
        ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
    )
    mask = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
    return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), mask)


def _address(builder: ir.IRBuilder, pointer: ir.Value, index: ir.Value, to: ir.Type) -> ir.Value:
    return builder.bitcast(builder.gep(pointer, [index]), to.as_pointer())


def _call(builder: ir.IRBuilder, name: str, operands: list[ir.Value]) -> ir.Value:
    vector = operands[0].type
    full_name = f"llvm.{name}.v{vector.count}f32"
    function_type = ir.FunctionType(vector, [vector] * len(operands))
    function = builder.module.globals.get(full_name)
    if function is None:
        function = ir.Function(builder.module, function_type, full_name)
    return builder.call(function, operands)


def _load(
    builder: ir.IRBuilder, vector: ir.VectorType, pointer: ir.Value, index: ir.Value
) -> ir.Value:
    # Buffers are aligned to 64 bytes (packing.py), so no load crosses a cache line; the IR says 4
    # because a weaker promise costs nothing on any CPU with AVX or NEON.
    return builder.load(_address(builder, pointer, index, vector), align=4)


@intrinsic
def pointer_to(typingctx, address):
    """The float32 pointer at `address`, an int64."""

    def build(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], _FLOAT.as_pointer())

    return POINTER(types.int64), build


@intrinsic
def address_of(typingctx, pointer):
    """The int64 address of a float32 pointer."""

    def build(context, builder, signature, arguments):
        return builder.ptrtoint(arguments[0], _INDEX)

    return types.int64(POINTER), build


@intrinsic
def offset(typingctx, pointer, count):
    """The pointer moved on by `count` float32."""

    def build(context, builder, signature, arguments):
        return builder.gep(arguments[0], [arguments[1]])

    return POINTER(POINTER, types.int64), build


@intrinsic
def get(typingctx, pointer, index):
    """The float32 at pointer[index]."""

    def build(context, builder, signature, arguments):
        return builder.load(builder.gep(arguments[0], [arguments[1]]), align=4)

    return types.float32(POINTER, types.int64), build


@intrinsic
def put(typingctx, pointer, index, value):
    """pointer[index] = value, a float32."""

    def build(context, builder, signature, arguments):
        pointer, index, value = arguments
        builder.store(value, builder.gep(pointer, [index]), align=4)
        return context.get_dummy_value()

    return types.void(POINTER, types.int64, types.float32), build


@intrinsic
def get_word(typingctx, address):
    """The int64 at `address`."""

    def build(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], _INDEX.as_pointer()), align=8)

    return types.int64(types.int64), build


@intrinsic
def put_word(typingctx, address, value):
    """Store an int64 at `address`."""

    def build(context, builder, signature, arguments):
        address, value = arguments
        builder.store(value, builder.inttoptr(address, _INDEX.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), build


@intrinsic
def exchange_word(typingctx, address, expected, value):
    """Store `value` at `address` if `expected` stands there, in one atomic act; True if it did."""

    def build(context, builder, signature, arguments):
        address, expected, value = arguments
        pointer = builder.inttoptr(address, _INDEX.as_pointer())
        pair = builder.cmpxchg(pointer, expected, value, "acq_rel", "acquire")
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64), build


@intrinsic
def zeros(typingctx, width):
    """A vector of `width` zeros; `width` must be a compile-time constant."""
    if not isinstance(width, types.IntegerLiteral):
        return None
    vector = Vector(width.literal_value)

    def build(context, builder, signature, arguments):
        return ir.Constant(_lanes(vector), None)

    return vector(width), build


@intrinsic
def splat(typingctx, like, value):
    """`value`, a float32, in every lane of a vector as wide as `like`."""
    if not isinstance(like, Vector):
        return None

    def build(context, builder, signature, arguments):
        return _splat(builder, arguments[1], like.width)

    return like(like, types.float32), build


@intrinsic
def load(typingctx, like, pointer, index):
    """The vector at pointer[index], as wide as `like`."""
    if not isinstance(like, Vector):
        return None

    def build(context, builder, signature, arguments):
        return _load(builder, _lanes(like), arguments[1], arguments[2])

    return like(like, POINTER, types.int64), build


@intrinsic
def store(typingctx, pointer, index, vector):
    """Store a vector at pointer[index]."""
    if not isinstance(vector, Vector):
        return None

    def build(context, builder, signature, arguments):
        pointer, index, value = arguments
        builder.store(value, _address(builder, pointer, index, value.type), align=4)
        return context.get_dummy_value()

    return types.void(POINTER, types.int64, vector), build


@intrinsic
def store_many(typingctx, pointer, index, vectors):
    """Store the vectors of a tuple one after the other from pointer[index]."""
    if not isinstance(vectors, types.UniTuple) or not isinstance(vectors.dtype, Vector):
        return None

    def build(context, builder, signature, arguments):
        pointer, index, values = arguments
        for k in range(vectors.count):
            place = builder.add(index, ir.Constant(_INDEX, k * vectors.dtype.width))
            value = builder.extract_value(values, k)
            builder.store(value, _address(builder, pointer, place, value.type), align=4)
        return context.get_dummy_value()

    return types.void(POINTER, types.int64, vectors), build


def _binary(emit: Any) -> Any:
    def declare(typingctx, a, b):
        if not isinstance(a, Vector) or a != b:
            return None

        def build(context, builder, signature, arguments):
            return emit(builder, *arguments)

        return a(a, b), build

    return intrinsic(declare)


add = _binary(lambda builder, a, b: builder.fadd(a, b))
sub = _binary(lambda builder, a, b: builder.fsub(a, b))
mul = _binary(lambda builder, a, b: builder.fmul(a, b))
div = _binary(lambda builder, a, b: builder.fdiv(a, b))
# A NaN in `a` comes out as `b`: the order of the operands of x86's minps and maxps.
minimum = _binary(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
maximum = _binary(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))


@intrinsic
def with_sign(typingctx, a, sign):
    """|a| with the sign of `sign`."""
    if not isinstance(a, Vector) or a != sign:
        return None

    def build(context, builder, signature, arguments):
        return _call(builder, "copysign", list(arguments))

    return a(a, sign), build


@intrinsic
def fma(typingctx, a, b, c):
    """A * b + c, rounded once."""
    if not isinstance(a, Vector) or not a == b == c:
        return None

    def build(context, builder, signature, arguments):
        return _call(builder, "fma", list(arguments))

    return a(a, b, c), build


@intrinsic
def total(typingctx, vector):
    """The sum of the lanes, halves added pairwise: the same order on every CPU."""
    if not isinstance(vector, Vector):
        return None

    def build(context, builder, signature, arguments):
        value, width = arguments[0], vector.width
        undefined = ir.Constant(value.type, ir.Undefined)
        while width > 1:
            width //= 2
            lanes = [k % width + width for k in range(vector.width)]
            mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.width), lanes)
            value = builder.fadd(value, builder.shuffle_vector(value, undefined, mask))
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return types.float32(vector), build


@intrinsic
def negate(typingctx, a):
    """-a; costs nothing where the result goes into an fma."""
    if not isinstance(a, Vector):
        return None

    def build(context, builder, signature, arguments):
        return builder.fneg(arguments[0])

    return a(a), build


@intrinsic
def magnitude(typingctx, a):
    """|a|."""
    if not isinstance(a, Vector):
        return None

    def build(context, builder, signature, arguments):
        return _call(builder, "fabs", list(arguments))

    return a(a), build


@intrinsic
def power_of_two(typingctx, shifted):
    """2^n for `shifted` = n + 1.5 * 2^23, n a whole number from -126 to 127.

    The low bits of such a float32 are n itself; moved to where the exponent stands, with its
    bias of 127 added, they are the result.
    """
    if not isinstance(shifted, Vector):
        return None

    def build(context, builder, signature, arguments):
        integers = ir.VectorType(ir.IntType(32), shifted.width)
        bits = builder.bitcast(arguments[0], integers)
        moved = builder.shl(bits, ir.Constant(integers, [23] * shifted.width))
        biased = builder.add(moved, ir.Constant(integers, [127 << 23] * shifted.width))
        return builder.bitcast(biased, arguments[0].type)

    return shifted(shifted), build


@intrinsic
def flush_tiny(typingctx, value, limit):
    """Lanes whose magnitude is under `limit` become 0."""
    if not isinstance(value, Vector) or value != limit:
        return None

    def build(context, builder, signature, arguments):
        value, limit = arguments
        small = builder.fcmp_ordered("<", _call(builder, "fabs", [value]), limit)
        return builder.select(small, ir.Constant(value.type, None), value)

    return value(value, limit), build


@intrinsic
def load_many(typingctx, like, pointer, index):
    """As many vectors as the tuple `like` holds, one after the other from pointer[index]."""
    if not isinstance(like, types.UniTuple) or not isinstance(like.dtype, Vector):
        return None

    def build(context, builder, signature, arguments):
        _, pointer, index = arguments
        width = like.dtype.width
        values = [
            _load(
                builder,
                _lanes(like.dtype),
                pointer,
                builder.add(index, ir.Constant(_INDEX, k * width)),
            )
            for k in range(like.count)
        ]
        return context.make_tuple(builder, like, values)

    return like(like, POINTER, types.int64), build


@intrinsic
def multiply_rows(typingctx, sums, weights, row, x, k):
    """Add x[k] * (row of vectors at weights[row]) to `sums`: one row of a matrix product.

    `sums` holds as many vectors as a row. Where it is a tuple of several such sets, in a tuple,
    set number j takes x[k + j] and the row after the j-th, so that the chains of additions
    are short enough for the adder to stay busy.
    """
    if not isinstance(sums, types.UniTuple) or not isinstance(sums.dtype, types.UniTuple):
        return None
    sets, gates, vector = sums.count, sums.dtype.count, sums.dtype.dtype

    def build(context, builder, signature, arguments):
        sums_value, weights, row, x, k = arguments
        new_sets = []
        for j in range(sets):
            scalar = builder.load(builder.gep(x, [builder.add(k, ir.Constant(_INDEX, j))]), align=4)
            value = _splat(builder, scalar, vector.width)
            old = builder.extract_value(sums_value, j)
            new = []
            for g in range(gates):
                place = builder.add(row, ir.Constant(_INDEX, (j * gates + g) * vector.width))
                weight = _load(builder, _lanes(vector), weights, place)
                new.append(_call(builder, "fma", [value, weight, builder.extract_value(old, g)]))
            new_sets.append(context.make_tuple(builder, sums.dtype, new))
        return context.make_tuple(builder, sums, new_sets)

    return sums(sums, POINTER, types.int64, POINTER, types.int64), build


@intrinsic
def fold(typingctx, sums):
    """The sets of a tuple of sets of vectors, added pairwise: one set."""
    if not isinstance(sums, types.UniTuple) or not isinstance(sums.dtype, types.UniTuple):
        return None
    sets, gates = sums.count, sums.dtype.count

    def build(context, builder, signature, arguments):
        parts = [
            [builder.extract_value(builder.extract_value(arguments[0], j), g) for g in range(gates)]
            for j in range(sets)
        ]
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [[builder.fadd(a, b) for a, b in zip(*pair, strict=True)] for pair in pairs]
        return context.make_tuple(builder, sums.dtype, parts[0])

    return sums.dtype(sums), build


@intrinsic
def hidden_constant(typingctx, value):
    """`value`, an int64, without LLVM's knowing it: a loop over it is not unrolled."""

    def build(context, builder, signature, arguments):
        kind = ir.FunctionType(_INDEX, [_INDEX])
        return builder.asm(kind, "", "=r,0", arguments, side_effect=False)

    return types.int64(types.int64), build


@intrinsic
def zero_sets(typingctx, width, gates, sets):
    """`sets` sets of `gates` vectors of `width` zeros, all compile-time constants.

    The kernels take their vector width, their gates and their number of accumulators from the
    type of this value: it is how a constant passes through an inlined function.
    """
    if not all(isinstance(n, types.IntegerLiteral) for n in (width, gates, sets)):
        return None
    one = types.UniTuple(Vector(width.literal_value), gates.literal_value)
    many = types.UniTuple(one, sets.literal_value)

    def build(context, builder, signature, arguments):
        return ir.Constant(context.get_value_type(many), None)

    return many(width, gates, sets), build


@intrinsic
def with_first(typingctx, sets, first):
    """`sets` with its first set replaced."""
    if not isinstance(sets, types.UniTuple) or sets.dtype != first:
        return None

    def build(context, builder, signature, arguments):
        return builder.insert_value(arguments[0], arguments[1], 0)

    return sets(sets, first), build


@njit(**JIT)
def accumulate(zero, start, weights, row, stride, x, count):
    """`start` + x[:count] @ weights: one row of `stride` float32 per value of x, from weights[row].

    The order of additions depends on the sizes alone, so every caller gets the same bits.
    """
    sets = len(zero)
    one = (start,)
    done = 0
    # Short sums go one by one: folding empty sets would cost more than it saves.
    if count >= 2 * sets:
        done = count - count % sets
        many = with_first(zero, start)
        for k in range(0, done, sets):
            many = multiply_rows(many, weights, row + k * stride, x, k)
        one = (fold(many),)
    for k in range(done, count):
        one = multiply_rows(one, weights, row + k * stride, x, k)
    return one[0]


@njit(**JIT)
def clamp(x, limit):
    """`x` between -limit and limit; a NaN becomes the limit."""
    return maximum(minimum(x, limit), sub(sub(limit, limit), limit))

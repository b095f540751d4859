"""An LLVM vector of float32 as a Numba type, and the operations that the kernels are made of.

Plain loops left to the auto-vectoriser cost 1.6 to 10 times as much (docs/kernels.md), because it
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

from fastlstm.kernels.memory import POINTER

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
NATIVE_WIDTH = native_width()
# AVX-512 and AArch64 have 32 vector registers, SSE and AVX2 have 16.
REGISTERS = 32 if NATIVE_WIDTH == 16 or "aarch64" in llvm.get_process_triple() else 16


def lanes(vector: Vector) -> ir.VectorType:
    return ir.VectorType(_FLOAT, vector.width)


def splat_value(builder: ir.IRBuilder, value: ir.Value, width: int) -> ir.Value:
    vector = ir.VectorType(_FLOAT, width)
    single = builder.insert_element(
        ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
    )
    mask = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
    return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), mask)


def address_in(builder: ir.IRBuilder, pointer: ir.Value, index: ir.Value, to: ir.Type) -> ir.Value:
    return builder.bitcast(builder.gep(pointer, [index]), to.as_pointer())


def call_vector(builder: ir.IRBuilder, name: str, operands: list[ir.Value]) -> ir.Value:
    vector = operands[0].type
    full_name = f"llvm.{name}.v{vector.count}f32"
    function_type = ir.FunctionType(vector, [vector] * len(operands))
    function = builder.module.globals.get(full_name)
    if function is None:
        function = ir.Function(builder.module, function_type, full_name)
    return builder.call(function, operands)


def load_vector(
    builder: ir.IRBuilder, vector: ir.VectorType, pointer: ir.Value, index: ir.Value
) -> ir.Value:
    # Buffers are aligned to 64 bytes (packing.py), so no load crosses a cache line; the IR says 4
    # because a weaker promise costs nothing on any CPU with AVX or NEON.
    return builder.load(address_in(builder, pointer, index, vector), align=4)


@intrinsic
def splat(typingctx, like, value):
    """`value`, a float32, in every lane of a vector as wide as `like`."""
    if not isinstance(like, Vector):
        return None

    def build(context, builder, signature, arguments):
        return splat_value(builder, arguments[1], like.width)

    return like(like, types.float32), build


@intrinsic
def load(typingctx, like, pointer, index):
    """The vector at pointer[index], as wide as `like`."""
    if not isinstance(like, Vector):
        return None

    def build(context, builder, signature, arguments):
        return load_vector(builder, lanes(like), arguments[1], arguments[2])

    return like(like, POINTER, types.int64), build


@intrinsic
def store(typingctx, pointer, index, vector):
    """Store a vector at pointer[index]."""
    if not isinstance(vector, Vector):
        return None

    def build(context, builder, signature, arguments):
        pointer, index, value = arguments
        builder.store(value, address_in(builder, pointer, index, value.type), align=4)
        return context.get_dummy_value()

    return types.void(POINTER, types.int64, vector), build


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
# A NaN in `a` stays: weights so great that a sum overflows must not end in a plausible number.
minimum = _binary(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", b, a), b, a))
maximum = _binary(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", b, a), b, a))


@intrinsic
def with_sign(typingctx, a, sign):
    """|a| with the sign of `sign`."""
    if not isinstance(a, Vector) or a != sign:
        return None

    def build(context, builder, signature, arguments):
        return call_vector(builder, "copysign", list(arguments))

    return a(a, sign), build


@intrinsic
def fma(typingctx, a, b, c):
    """A * b + c, rounded once."""
    if not isinstance(a, Vector) or not a == b == c:
        return None

    def build(context, builder, signature, arguments):
        return call_vector(builder, "fma", list(arguments))

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
def keep_first(typingctx, vector, count):
    """The first `count` lanes of a vector, 0 in those beyond, whatever is in them."""
    if not isinstance(vector, Vector):
        return None

    def build(context, builder, signature, arguments):
        value, count = arguments
        kind = ir.VectorType(_INDEX, vector.width)
        single = builder.insert_element(
            ir.Constant(kind, ir.Undefined), count, ir.Constant(ir.IntType(32), 0)
        )
        mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.width), [0] * vector.width)
        limit = builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), mask)
        lane = ir.Constant(kind, list(range(vector.width)))
        kept = builder.icmp_signed("<", lane, limit)
        return builder.select(kept, value, ir.Constant(value.type, None))

    return vector(vector, types.int64), build


@intrinsic
def with_lane(typingctx, vector, lane, value):
    """`vector` with one lane replaced."""
    if not isinstance(vector, Vector):
        return None

    def build(context, builder, signature, arguments):
        vector, lane, value = arguments
        return builder.insert_element(vector, value, lane)

    return vector(vector, types.int64, types.float32), build


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
        return call_vector(builder, "fabs", list(arguments))

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
def zero_where_less(typingctx, value, a, limit):
    """`value`, but 0 in the lanes where |a| is under `limit`."""
    if not isinstance(value, Vector) or not value == a == limit:
        return None

    def build(context, builder, signature, arguments):
        value, a, limit = arguments
        small = builder.fcmp_ordered("<", call_vector(builder, "fabs", [a]), limit)
        return builder.select(small, ir.Constant(value.type, None), value)

    return value(value, a, limit), build


@intrinsic
def hidden_constant(typingctx, value):
    """`value`, an int64, without LLVM's knowing it: a loop over it is not unrolled."""

    def build(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.IntType(64), [ir.IntType(64)])
        return builder.asm(kind, "", "=r,0", arguments, side_effect=False)

    return types.int64(types.int64), build


@njit(**JIT)
def flush_tiny(value):
    """`value`, but 0 in the lanes where its magnitude is under TINY."""
    return zero_where_less(value, value, splat(value, TINY))


@njit(**JIT)
def clamp(x, limit):
    """`x` between -limit and limit; a NaN stays."""
    return maximum(minimum(x, limit), sub(sub(limit, limit), limit))

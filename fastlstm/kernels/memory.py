"""Raw memory in the kernels: float32 behind pointers, int64 words at addresses.

Nothing is checked here: what comes in is laid out by packing.py and stream.py.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

POINTER = types.CPointer(types.float32)

_FLOAT = ir.FloatType()
_INDEX = ir.IntType(64)


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
def get_int(typingctx, pointer, index):
    """The int32 whose bits lie at pointer[index], as int64."""

    def build(context, builder, signature, arguments):
        place = builder.gep(arguments[0], [arguments[1]])
        value = builder.load(builder.bitcast(place, ir.IntType(32).as_pointer()), align=4)
        return builder.sext(value, _INDEX)

    return types.int64(POINTER, types.int64), build


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

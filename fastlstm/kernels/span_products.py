"""The product of products.py for a span of time steps at once: each weight is loaded once a tile.

A *tile* is one set of accumulators for each of a few time steps. Every sum is taken in the order
of `accumulate`, so that a span gives the bits of as many single steps.
"""

from __future__ import annotations

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from fastlstm.kernels.memory import POINTER, offset
from fastlstm.kernels.products import (
    PART_OF_FOUR,
    PART_OF_TWO,
    accumulate,
    load_many,
    store_many,
)
from fastlstm.kernels.simd import (
    JIT,
    call_vector,
    hidden_constant,
    lanes,
    load_vector,
    splat_value,
)

_INDEX = ir.IntType(64)


@intrinsic
def repeated(typingctx, tile, one):
    """A tile with the set `one` at each of its time steps."""
    if not isinstance(tile, types.UniTuple) or tile.dtype != one:
        return None

    def build(context, builder, signature, arguments):
        return context.make_tuple(builder, tile, [arguments[1]] * tile.count)

    return tile(tile, one), build


@intrinsic
def add_tiles(typingctx, a, b):
    """The sum of two tiles."""
    if not isinstance(a, types.UniTuple) or a != b:
        return None

    def build(context, builder, signature, arguments):
        rows = []
        for t in range(a.count):
            left, right = (builder.extract_value(tile, t) for tile in arguments)
            sums = [
                builder.fadd(builder.extract_value(left, g), builder.extract_value(right, g))
                for g in range(a.dtype.count)
            ]
            rows.append(context.make_tuple(builder, a.dtype, sums))
        return context.make_tuple(builder, a, rows)

    return a(a, b), build


@intrinsic
def multiply_tile(typingctx, tile, weights, row, x, x_stride, k):
    """Add x[t, k] * (row of vectors at weights[row]) to time step t of the tile, for all its t."""
    if not isinstance(tile, types.UniTuple) or not isinstance(tile.dtype, types.UniTuple):
        return None
    gates, vector = tile.dtype.count, tile.dtype.dtype

    def build(context, builder, signature, arguments):
        tile_value, weights, row, x, x_stride, k = arguments
        loaded = [
            load_vector(
                builder,
                lanes(vector),
                weights,
                builder.add(row, ir.Constant(_INDEX, g * vector.width)),
            )
            for g in range(gates)
        ]
        rows = []
        for t in range(tile.count):
            place = builder.add(k, builder.mul(x_stride, ir.Constant(_INDEX, t)))
            scalar = builder.load(builder.gep(x, [place]), align=4)
            value = splat_value(builder, scalar, vector.width)
            old = builder.extract_value(tile_value, t)
            sums = [
                call_vector(builder, "fma", [value, loaded[g], builder.extract_value(old, g)])
                for g in range(gates)
            ]
            rows.append(context.make_tuple(builder, tile.dtype, sums))
        return context.make_tuple(builder, tile, rows)

    return tile(tile, POINTER, types.int64, POINTER, types.int64, types.int64), build


@intrinsic
def store_tile(typingctx, pointer, index, z_stride, tile):
    """Store the sets of a tile, time step t at pointer[index + t * z_stride]."""
    if not isinstance(tile, types.UniTuple) or not isinstance(tile.dtype, types.UniTuple):
        return None
    vector = tile.dtype.dtype

    def build(context, builder, signature, arguments):
        pointer, index, z_stride, value = arguments
        for t in range(tile.count):
            begin = builder.add(index, builder.mul(z_stride, ir.Constant(_INDEX, t)))
            one = builder.extract_value(value, t)
            for g in range(tile.dtype.count):
                place = builder.add(begin, ir.Constant(_INDEX, g * vector.width))
                address = builder.bitcast(builder.gep(pointer, [place]), lanes(vector).as_pointer())
                builder.store(builder.extract_value(one, g), address, align=4)
        return context.get_dummy_value()

    return types.void(POINTER, types.int64, types.int64, tile), build


@njit(**JIT)
def tile_of_set(tile, sets, weights, row, stride, x, x_stride, begin, count):
    """Add every `sets`-th of `count` rows from `begin` on: what one accumulator of a step sums."""
    for k in range(begin, begin + count, sets):
        tile = multiply_tile(tile, weights, row + k * stride, x, x_stride, k)
    return tile


@njit(**JIT)
def tile_of_sets(zero, empty, first, weights, row, stride, x, x_stride, begin, count):
    """What `accumulate_sets` and `fold` give, for every step of a tile; `first` begins set 0."""
    n = len(zero)
    a = tile_of_set(first, n, weights, row, stride, x, x_stride, begin, count)
    b = tile_of_set(empty, n, weights, row, stride, x, x_stride, begin + 1, count - 1)
    a = add_tiles(a, b)
    if n == 4:
        c = tile_of_set(empty, n, weights, row, stride, x, x_stride, begin + 2, count - 2)
        d = tile_of_set(empty, n, weights, row, stride, x, x_stride, begin + 3, count - 3)
        a = add_tiles(a, add_tiles(c, d))
    return a


@njit(**JIT)
def accumulate_tile(zero, empty, total, weights, row, stride, x, x_stride, count):
    """The tile `total` + x[t, :count] @ weights for each of its time steps: see `accumulate`."""
    sets = len(zero)
    done = 0
    if count >= 2 * sets:
        done = count - count % sets
        part = sets * (PART_OF_TWO if sets == 2 else PART_OF_FOUR)
        if done <= part:
            total = tile_of_sets(zero, empty, total, weights, row, stride, x, x_stride, 0, done)
        else:
            for begin in range(0, done, part):
                size = min(part, done - begin)
                total = add_tiles(
                    total,
                    tile_of_sets(
                        zero, empty, empty, weights, row, stride, x, x_stride, begin, size
                    ),
                )
    for k in range(done, count):
        total = multiply_tile(total, weights, row + k * stride, x, x_stride, k)
    return total


@njit(**JIT)
def span_product(
    zero, empty, inputs, parts, width, size, skip, weights, x, x_stride, z, z_stride, steps
):
    """z[t] = bias + x[t] @ weights for `steps` time steps, part by part of the blocked weights.

    A part of `size` float32 begins with its bias row; its input rows begin `skip` further on.
    """
    stride = len(zero[0]) * width
    tile = len(empty)
    whole = steps - steps % tile
    for part in range(hidden_constant(parts) if parts > 1 else 1):
        at = part * size
        bias = load_many(zero[0], weights, at)
        for t in range(0, whole, tile):
            sums = repeated(empty, bias)
            source = offset(x, t * x_stride)
            sums = accumulate_tile(
                zero, empty, sums, weights, at + skip, stride, source, x_stride, inputs
            )
            store_tile(z, t * z_stride + part * stride, z_stride, sums)
        for t in range(whole, steps):
            source = offset(x, t * x_stride)
            one = accumulate(zero, bias, weights, at + skip, stride, source, inputs, 0)
            store_many(z, t * z_stride + part * stride, one)

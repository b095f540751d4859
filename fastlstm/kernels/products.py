"""The product that every kernel is made of: a vector times rows of blocked weights, in registers.

A *set* is one accumulator for each vector of a row, such as the four gates of a block.
"""

from __future__ import annotations

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from fastlstm.kernels.memory import POINTER
from fastlstm.kernels.simd import (
    JIT,
    Vector,
    address_in,
    call_vector,
    hidden_constant,
    lanes,
    load_vector,
    splat_value,
)

_INDEX = ir.IntType(64)
CACHE_LINE = 16  # float32
# A sum longer than this many rows a set is taken in parts, with two sets and with four: rounding
# errors grow with the length of a chain, and with two sets a chain of 32 left the bound on loud
# input. Shorter parts of four sets are more exact still, and up to a third slower.
PART_OF_TWO, PART_OF_FOUR = 16, 64
UNROLLED_UP_TO = 16  # rows


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


@intrinsic
def load_many(typingctx, like, pointer, index):
    """As many vectors as the tuple `like` holds, one after the other from pointer[index]."""
    if not isinstance(like, types.UniTuple) or not isinstance(like.dtype, Vector):
        return None

    def build(context, builder, signature, arguments):
        _, pointer, index = arguments
        width = like.dtype.width
        values = [
            load_vector(
                builder,
                lanes(like.dtype),
                pointer,
                builder.add(index, ir.Constant(_INDEX, k * width)),
            )
            for k in range(like.count)
        ]
        return context.make_tuple(builder, like, values)

    return like(like, POINTER, types.int64), build


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
            builder.store(value, address_in(builder, pointer, place, value.type), align=4)
        return context.get_dummy_value()

    return types.void(POINTER, types.int64, vectors), build


def keep_order(builder: ir.IRBuilder) -> None:
    """No load before this moves behind it, none after it before: an instruction of no length."""
    builder.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", [], side_effect=True)


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
            # LLVM chooses at times to load in another order than the weights', which costs up to a
            # fifth where they come from the second level of cache.
            keep_order(builder)
            scalar = builder.load(builder.gep(x, [builder.add(k, ir.Constant(_INDEX, j))]), align=4)
            value = splat_value(builder, scalar, vector.width)
            old = builder.extract_value(sums_value, j)
            new = []
            for g in range(gates):
                place = builder.add(row, ir.Constant(_INDEX, (j * gates + g) * vector.width))
                weight = load_vector(builder, lanes(vector), weights, place)
                new.append(
                    call_vector(builder, "fma", [value, weight, builder.extract_value(old, g)])
                )
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
def prefetch_rows(typingctx, sums, weights, place):
    """Ask for the cache lines that `multiply_rows` with these `sums` would read at `place`."""
    if not isinstance(sums, types.UniTuple) or not isinstance(sums.dtype, types.UniTuple):
        return None
    size = sums.count * sums.dtype.count * sums.dtype.dtype.width

    def build(context, builder, signature, arguments):
        _, weights, place = arguments
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        name = "llvm.prefetch.p0"
        function = builder.module.globals.get(name)
        if function is None:
            kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
            function = ir.Function(builder.module, kind, name)
        for k in range(0, size, CACHE_LINE):
            line = builder.gep(weights, [builder.add(place, ir.Constant(_INDEX, k))])
            # To read, into the first level, data.
            builder.call(function, [builder.bitcast(line, byte), word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(sums, POINTER, types.int64), build


@njit(**JIT)
def accumulate_sets(many, weights, row, stride, x, begin, count, ahead):
    """Add the rows from `begin` on to the sets `many`, in turn; `count` a multiple of the sets."""
    # Unrolled, long loops do one gate after the other and spill (docs/kernels.md).
    stop = hidden_constant(count) if count > UNROLLED_UP_TO else count
    for k in range(begin, begin + stop, len(many)):
        if ahead > 0:
            prefetch_rows(many, weights, row + k * stride + ahead)
        many = multiply_rows(many, weights, row + k * stride, x, k)
    return many


@njit(**JIT)
def accumulate(zero, start, weights, row, stride, x, count, ahead):
    """`start` + x[:count] @ weights: one row of `stride` float32 per value of x, from weights[row].

    The order of additions depends on the sizes alone, so every caller gets the same bits. Where
    `ahead` is not 0, what lies that many float32 further on is asked for early.
    """
    sets = len(zero)
    total = start
    done = 0
    # Short sums go one by one: folding empty sets would cost more than it saves.
    if count >= 2 * sets:
        done = count - count % sets
        part = sets * (PART_OF_TWO if sets == 2 else PART_OF_FOUR)
        if done <= part:
            many = accumulate_sets(with_first(zero, total), weights, row, stride, x, 0, done, ahead)
            total = fold(many)
        else:
            whole = done - done % part
            for begin in range(0, whole, part):
                many = accumulate_sets(zero, weights, row, stride, x, begin, part, ahead)
                total = fold((total, fold(many)))
            if done > whole:
                left = done - whole
                many = accumulate_sets(zero, weights, row, stride, x, whole, left, ahead)
                total = fold((total, fold(many)))
    one = (total,)
    for k in range(done, count):
        one = multiply_rows(one, weights, row + k * stride, x, k)
    return one[0]

"""The floor under a step: a compiled loop that loads a step's weights and does nothing else.

A step reads every weight once, in order. So does this loop, in whole vectors, into enough
independent sums that neither the adder nor a loop counter holds the loads up. The sums are the
proof that it reads: without a result LLVM would drop the loads, and a test compares it with the
buffer's own sum.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit, types

from fastlstm.kernels.memory import pointer_to
from fastlstm.kernels.packing import PREFETCH_AHEAD
from fastlstm.kernels.products import fold, load_many, prefetch_rows, zero_sets
from fastlstm.kernels.simd import JIT, NATIVE_WIDTH, total

if TYPE_CHECKING:
    from collections.abc import Callable


class Way(NamedTuple):
    """How the loop reads: vectors added side by side, float32 asked for ahead, or turning back."""

    name: str
    vectors: int
    ahead: int = 0
    turning: bool = False


# In order, each weight once a pass: the fastest of these is the floor.
FORWARD = (
    Way("8 vectors", 8),
    Way("16 vectors", 16),
    Way("8 vectors, prefetch", 8, PREFETCH_AHEAD),
    Way("16 vectors, prefetch", 16, PREFETCH_AHEAD),
)
# Every other pass from the end, as the kernels walk their blocks: what one pass read last is still
# in the first level of cache when the next begins, so this is no bound for reading in order.
BACK_AND_FORTH = Way("back and forth", 16, turning=True)


def load_only(way: Way, weights: np.ndarray[Any, Any], passes: int) -> float:
    """Read `weights`, whole vectors of float32, `passes` times; return the sum of all values read.

    Raises ValueError for a buffer that is not aligned to 64 bytes or no multiple of them: every
    buffer of packed weights is.
    """
    address, size = weights.ctypes.data, weights.nbytes
    if address % 64 or size % 64 or not size or not weights.flags.c_contiguous:
        raise ValueError(
            "load_only: expected whole cache lines of packed weights, found "
            f"{size} bytes at {address % 64} past a cache line"
        )
    return float(_compiled(way)(address, size // 4, passes))


@cache
def _compiled(way: Way) -> Callable[[int, int, int], float]:
    """loop(address, count of float32, passes) -> sum."""
    width, vectors, ahead, turning = NATIVE_WIDTH, way.vectors, way.ahead, way.turning
    block = vectors * width
    # What is left after whole blocks goes by four vectors and then singly.
    few = min(4, vectors)

    @njit(**JIT)
    def read(sums, weights, place):
        if ahead > 0:
            prefetch_rows((sums,), weights, place + ahead)
        return fold((sums, load_many(sums, weights, place)))

    @njit(**JIT)
    def add_up(sums):
        result = np.float32(0)
        for vector in sums:
            result += total(vector)
        return result

    @njit(types.float32(types.int64, types.int64, types.int64), error_model="numpy")
    def loop(address, count, passes):
        weights = pointer_to(address)
        many = zero_sets(width, vectors, 1)[0]
        some = zero_sets(width, few, 1)[0]
        one = zero_sets(width, 1, 1)[0]
        whole = count - count % block
        by_few = count - count % (few * width)
        for k in range(passes):
            if turning and k & 1:
                for place in range(count - width, by_few - width, -width):
                    one = read(one, weights, place)
                for place in range(by_few - few * width, whole - few * width, -few * width):
                    some = read(some, weights, place)
                for place in range(whole - block, -block, -block):
                    many = read(many, weights, place)
            else:
                for place in range(0, whole, block):
                    many = read(many, weights, place)
                for place in range(whole, by_few, few * width):
                    some = read(some, weights, place)
                for place in range(by_few, count, width):
                    one = read(one, weights, place)
        return add_up(many) + add_up(some) + add_up(one)

    return loop  # type: ignore[no-any-return]

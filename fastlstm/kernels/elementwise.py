"""The layers that put out one value for each value they take: twins of the reference's functions.

They go over whole vectors, the last of which may be longer than the input: what lies beyond it is
finite on the way in and out, and counts for nothing in between. `lanes` counts both.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fastlstm.kernels.memory import get, get_int, put
from fastlstm.kernels.simd import JIT, add, fma, keep_first, load, mul, splat, store, sub, total

# How a Residual finds what it adds: column k for output k, one column for all, or a list of them.
EACH, ONE, PICKED = range(1, 4)


@njit(**JIT)
def affine_step(zero, lanes, width, weights, x, y):
    """Y = scale * x + shift, rounded once. weights: [scale | shift], both padded with zeros."""
    like = zero[0][0]
    for k in range(0, lanes, width):
        scale, shift = load(like, weights, k), load(like, weights, lanes + k)
        store(y, k, fma(scale, load(like, x, k), shift))


@njit(**JIT)
def difference_step(zero, lanes, width, x, last, y):
    """Y = x - last, and x is the next step's `last`."""
    like = zero[0][0]
    for k in range(0, lanes, width):
        now = load(like, x, k)
        store(y, k, sub(now, load(like, last, k)))
        store(last, k, now)


@njit(**JIT)
def residual_step(zero, reading, size, lanes, width, weights, x, source, y):
    """Y = x + source[columns]. weights: the columns as int32, as many as `reading` asks for."""
    like = zero[0][0]
    if reading == EACH:
        for k in range(0, lanes, width):
            # The source may be longer, and what is beyond the columns is none of the sum's.
            store(y, k, add(load(like, x, k), keep_first(load(like, source, k), size - k)))
    elif reading == ONE:
        value = splat(like, get(source, get_int(weights, 0)))
        for k in range(0, lanes, width):
            store(y, k, add(load(like, x, k), value))
    else:
        for k in range(size):
            put(y, k, get(x, k) + get(source, get_int(weights, k)))
        for k in range(size, lanes):
            put(y, k, np.float32(0))


@njit(**JIT)
def lowered(zero, size, width, x, amount, y):
    """Y = x - amount, with zeros beyond the first `size` values; the sum of y."""
    like = zero[0][0]
    by = splat(like, amount)
    # Two sums: a single one would wait for the adder.
    a, b = like, like
    whole = size - size % width
    pairs = whole - whole % (2 * width)
    for k in range(0, pairs, 2 * width):
        left, right = sub(load(like, x, k), by), sub(load(like, x, k + width), by)
        store(y, k, left)
        store(y, k + width, right)
        a, b = add(a, left), add(b, right)
    if pairs < whole:
        left = sub(load(like, x, pairs), by)
        store(y, pairs, left)
        a = add(a, left)
    if whole < size:
        right = keep_first(sub(load(like, x, whole), by), size - whole)
        store(y, whole, right)
        b = add(b, right)
    return total(add(a, b))


@njit(**JIT)
def layer_norm_step(zero, size, lanes, width, weights, x, y):
    """Y = (x - mean) / sqrt(variance + eps) * weight + bias.

    weights: [weight | bias | eps], the first two padded with zeros.
    """
    like = zero[0][0]
    count = np.float32(size)
    mean = lowered(zero, size, width, x, np.float32(0), y) / count
    # A mean is rounded to the digits of its own size, which would be all there is of values that
    # lie close together, far from 0. The mean of what is left is what it was rounded by.
    rest = lowered(zero, size, width, y, mean, y) / count
    lowered(zero, size, width, y, rest, y)
    squares = like
    for k in range(0, lanes, width):
        centred = load(like, y, k)
        squares = fma(centred, centred, squares)
    variance = np.float64(total(squares) / count)
    # In float64, because a scale that is rounded once costs no accuracy beside a division.
    inverse = np.float32(1 / math.sqrt(variance + np.float64(get(weights, 2 * lanes))))
    scale = splat(like, inverse)
    for k in range(0, lanes, width):
        z = mul(load(like, y, k), scale)
        store(y, k, fma(z, load(like, weights, k), load(like, weights, lanes + k)))

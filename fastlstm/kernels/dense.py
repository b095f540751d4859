"""One fused Dense step: twin of reference.dense_step."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fastlstm.kernels.activations import sigmoid, tanh
from fastlstm.kernels.memory import get, offset, put
from fastlstm.kernels.products import accumulate, load_many, store_many
from fastlstm.kernels.simd import (
    JIT,
    flush_tiny,
    fma,
    load,
    maximum,
    splat,
    store,
    total,
    with_lane,
)
from fastlstm.kernels.span_products import span_product

# The last is linear too, but what is tiny becomes 0: a projection writes a state.
LINEAR, RELU, TANH, SIGMOID, SOFTMAX, FLUSHED = range(6)


@njit(**JIT)
def activate(activation, z):
    """The activation lane by lane; softmax needs all outputs and is done after them."""
    if activation == RELU:
        return maximum(z, splat(z, np.float32(0)))
    if activation == TANH:
        return tanh(z)
    if activation == SIGMOID:
        return sigmoid(z)
    if activation == FLUSHED:
        return flush_tiny(z)
    return z


@njit(**JIT)
def softmax(y, outputs):
    """Y = exp(y) / sum(exp(y)) in place, shifted by the greatest y, which leaves the ratio."""
    greatest = get(y, 0)
    for k in range(1, outputs):
        greatest = max(greatest, get(y, k))
    whole = np.float32(0)
    for k in range(outputs):
        e = np.float32(math.exp(get(y, k) - greatest))
        whole += e
        put(y, k, e)
    for k in range(outputs):
        put(y, k, get(y, k) / whole)


@njit(**JIT)
def dense_step(zero, inputs, outputs, groups, width, activation, ahead, weights, x, y):
    """Y = activation(weight @ x + bias) for many outputs, in groups of as many vectors as zero[0].

    weights: groups x [bias | input rows][vector of the group][width].
    """
    vectors = zero[0]
    stride = len(vectors) * width
    for group in range(groups):
        at = group * (1 + inputs) * stride
        z = load_many(vectors, weights, at)
        z = accumulate(zero, z, weights, at + stride, stride, x, inputs, ahead)
        store_many(y, group * stride, z)
        for k in range(group * stride, (group + 1) * stride, width):
            store(y, k, activate(activation, load(vectors[0], y, k)))
    if activation == SOFTMAX:
        softmax(y, outputs)


@njit(**JIT)
def dense_span(
    zero, tile, inputs, outputs, groups, width, activation, weights, x, x_stride, y, y_stride, steps
):
    """dense_step for a span of time steps, row t of `y` from row t of `x`: the same bits."""
    stride = len(zero[0]) * width
    part = (1 + inputs) * stride
    span_product(
        zero, tile, inputs, groups, width, part, stride, weights, x, x_stride, y, y_stride, steps
    )
    if activation != LINEAR:
        for t in range(steps):
            row = offset(y, t * y_stride)
            for k in range(0, groups * stride, width):
                store(row, k, activate(activation, load(zero[0][0], row, k)))
            if activation == SOFTMAX:
                softmax(row, outputs)


@njit(**JIT)
def dense_dot_step(zero, lanes, outputs, width, activation, weights, x, y):
    """Y = activation(weight @ x + bias) for few outputs: one dot product each.

    A block of `width` outputs would leave most lanes idle, and most heads have a single output.
    weights: outputs x [lanes], then the biases. x has `lanes` finite values, those beyond the
    inputs included.
    """
    like = zero[0][0]
    sums = like
    for k in range(outputs):
        z = like
        for j in range(0, lanes, width):
            z = fma(load(like, weights, k * lanes + j), load(like, x, j), z)
        sums = with_lane(sums, k, total(z) + get(weights, outputs * lanes + k))
    store(y, 0, activate(activation, sums))
    if activation == SOFTMAX:
        softmax(y, outputs)

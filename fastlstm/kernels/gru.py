"""One fused GRU step, the reset gate after the matrix product: twin of reference.gru_step."""

from __future__ import annotations

from numba import njit

from fastlstm.kernels.activations import one_minus_sigmoid, sigmoid, tanh
from fastlstm.kernels.products import accumulate, load_many
from fastlstm.kernels.simd import (
    JIT,
    TINY,
    flush_tiny,
    fma,
    hidden_constant,
    load,
    splat,
    store,
    sub,
)


@njit(**JIT)
def gru_step(zero, inputs, hidden, blocks, width, ahead, weights, x, h, h_new, odd):
    """One step over every block of `width` units; the new h goes to `h_new`.

    weights: blocks x [bias r z n | bias n of the hidden half | inputs | hidden rows][gate][width].
    Odd steps walk the blocks backwards, so that what was read last is still in L1.
    """
    gates = zero[0]
    stride = 3 * width
    tiny = splat(gates[0], TINY)
    # Unrolled, two blocks are scheduled into each other and their gates spill.
    count = hidden_constant(blocks) if blocks > 1 else 1
    for k in range(count):
        block = k + odd * (blocks - 1 - 2 * k)
        at = block * ((1 + inputs + hidden) * stride + width)
        unit = block * width
        z_x = load_many(gates, weights, at)
        n_bias = load(tiny, weights, at + stride)
        at += stride + width
        z_x = accumulate(zero, z_x, weights, at, stride, x, inputs, ahead)
        start = (z_x[0], z_x[1], n_bias)
        z_h = accumulate(zero, start, weights, at + inputs * stride, stride, h, hidden, ahead)
        r, renewed = sigmoid(z_h[0]), one_minus_sigmoid(z_h[1])
        n = tanh(fma(r, z_h[2], z_x[2]))
        # (1 - z) n + z h, as h + (1 - z) (n - h): a gate near 1 keeps all of its digits.
        old = load(tiny, h, unit)
        new = fma(renewed, sub(n, old), old)
        store(h_new, unit, flush_tiny(new, tiny))

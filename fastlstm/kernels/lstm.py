"""One fused LSTM step: twin of reference.lstm_step."""

from __future__ import annotations

from numba import njit

from fastlstm.kernels.activations import one_minus_sigmoid, sigmoid, tanh
from fastlstm.kernels.products import accumulate, load_many
from fastlstm.kernels.simd import (
    JIT,
    TINY,
    add,
    flush_tiny,
    fma,
    hidden_constant,
    load,
    mul,
    negate,
    splat,
    store,
)


@njit(**JIT)
def lstm_step(zero, inputs, hidden, blocks, width, ahead, weights, x, h, c, h_new, odd):
    """One step over every block of `width` units; `c` is updated in place, h goes to `h_new`.

    weights: blocks x [bias | inputs | hidden rows][gate i f g o][width]. The weights stream once;
    the four gates of a block stay in registers until its new h and c are stored.
    Odd steps walk the blocks backwards, so that what was read last is still in L1.
    """
    gates = zero[0]
    stride = 4 * width
    tiny = splat(gates[0], TINY)
    # Unrolled, two blocks are scheduled into each other and their gates spill.
    count = hidden_constant(blocks) if blocks > 1 else 1
    for n in range(count):
        block = n + odd * (blocks - 1 - 2 * n)
        at = block * (1 + inputs + hidden) * stride
        unit = block * width
        z = load_many(gates, weights, at)
        z = accumulate(zero, z, weights, at + stride, stride, x, inputs, ahead)
        z = accumulate(zero, z, weights, at + (1 + inputs) * stride, stride, h, hidden, ahead)
        i, g, o = sigmoid(z[0]), tanh(z[2]), sigmoid(z[3])
        # f c + i g, as c + (i g - (1 - f) c): a gate near 1 keeps all of its digits.
        forgotten = one_minus_sigmoid(z[1])
        cell = load(tiny, c, unit)
        cell = add(cell, fma(negate(forgotten), cell, mul(i, g)))
        # The next step reads the flushed cell; this one does not wait for it.
        store(c, unit, flush_tiny(cell, tiny))
        store(h_new, unit, mul(o, tanh(cell)))

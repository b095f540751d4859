"""One fused LSTM step: twin of reference.lstm_step."""

from __future__ import annotations

from numba import njit

from fastlstm.kernels.activations import gated_tanh, gated_tanh_flushed, one_minus_sigmoid
from fastlstm.kernels.products import accumulate, load_many
from fastlstm.kernels.simd import (
    JIT,
    add,
    flush_tiny,
    fma,
    hidden_constant,
    load,
    negate,
    store,
)


@njit(**JIT)
def lstm_step(
    zero, inputs, recurrent, blocks, width, ahead, peephole, ready, weights, z_x, x, h, c, y, odd
):
    """One step over every block of `width` units; `c` is updated in place, o tanh(c) goes to `y`.

    weights: blocks x [bias | peepholes i f o if any | input rows][gate i f g o][width], and after
    all of these blocks x [hidden rows][gate][width]: what a step of a span reads lies together.
    They stream once; the gates of a block stay in registers until its new c and y are stored.
    Odd steps walk the blocks backwards, so that what was read last is still in L1.
    Where `ready`, bias and input half are not taken here but from z_x: see span_product.
    """
    gates = zero[0]
    stride = 4 * width
    seen = 3 * width if peephole else 0
    part = (1 + inputs) * stride + seen
    below = blocks * part
    # Unrolled, two blocks are scheduled into each other and their gates spill.
    count = hidden_constant(blocks) if blocks > 1 else 1
    for n in range(count):
        block = n + odd * (blocks - 1 - 2 * n)
        at = block * part
        unit = block * width
        if ready:
            z = load_many(gates, z_x, block * stride)
        else:
            z = load_many(gates, weights, at)
            z = accumulate(zero, z, weights, at + stride + seen, stride, x, inputs, ahead)
        cell = load(gates[0], c, unit)
        if peephole:
            p = at + stride
            z_i = fma(load(gates[0], weights, p), cell, z[0])
            z_f = fma(load(gates[0], weights, p + width), cell, z[1])
            z = (z_i, z_f, z[2], z[3])
        row = below + block * recurrent * stride
        z = accumulate(zero, z, weights, row, stride, h, recurrent, ahead)
        written = gated_tanh(z[0], z[2])
        # f c + i g, as c + (i g - (1 - f) c): a gate near 1 keeps all of its digits.
        forgotten = one_minus_sigmoid(z[1])
        cell = add(cell, fma(negate(forgotten), cell, written))
        z_o = z[3]
        if peephole:
            z_o = fma(load(gates[0], weights, at + stride + 2 * width), cell, z_o)
        # The next step reads the flushed cell; this one does not wait for it.
        store(c, unit, flush_tiny(cell))
        store(y, unit, gated_tanh_flushed(z_o, cell))

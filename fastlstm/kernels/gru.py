"""One fused GRU step, for either place of the reset gate: twins of those in reference.py."""

from __future__ import annotations

from numba import njit

from fastlstm.kernels.activations import (
    ONE,
    one_minus_sigmoid_denominator,
    sigmoid_denominator,
    tanh_parts,
)
from fastlstm.kernels.products import accumulate, load_many
from fastlstm.kernels.simd import (
    JIT,
    TINY,
    add,
    div,
    fma,
    hidden_constant,
    load,
    magnitude,
    mul,
    negate,
    splat,
    store,
    sub,
    zero_where_less,
)


@njit(**JIT)
def renewed(old, z, n):
    """The new h, (1 - sigmoid(z)) tanh(n) + sigmoid(z) old, but 0 where that is under TINY.

    As old + (1 - z) (n - old), so that a gate near 1 keeps all of its digits, and in one division:
    with n = a / b and 1 - z = 1 / d that is old + (a - old b) / (b d).
    """
    a, b = tanh_parts(n)
    d = one_minus_sigmoid_denominator(z)
    new = add(old, div(fma(negate(old), b, a), mul(b, d)))
    # |new| d is no more than this. It is there long before new, for which the next step waits:
    # flushing new itself costs 2 ns.
    limit = fma(magnitude(old), sub(d, splat(d, ONE)), magnitude(n))
    return zero_where_less(new, limit, mul(d, splat(d, TINY)))


@njit(**JIT)
def gru_step(zero, inputs, hidden, blocks, width, ahead, ready, weights, z_x, x, h, h_new, odd):
    """One step, the reset gate after the matrix product; the new h goes to `h_new`.

    weights: blocks x [bias r z n | bias n of the hidden half | input rows][gate][width], and after
    all of these blocks x [hidden rows][gate][width].
    Odd steps walk the blocks backwards, so that what was read last is still in L1.
    Where `ready`, bias and input half are not taken here but from z_x: see span_product.
    """
    gates = zero[0]
    stride = 3 * width
    part = (1 + inputs) * stride + width
    like = gates[0]
    # Unrolled, two blocks are scheduled into each other and their gates spill.
    count = hidden_constant(blocks) if blocks > 1 else 1
    for k in range(count):
        block = k + odd * (blocks - 1 - 2 * k)
        at = block * part
        unit = block * width
        n_bias = load(like, weights, at + stride)
        if ready:
            z = load_many(gates, z_x, block * stride)
        else:
            z = load_many(gates, weights, at)
            z = accumulate(zero, z, weights, at + stride + width, stride, x, inputs, ahead)
        start = (z[0], z[1], n_bias)
        row = blocks * part + block * hidden * stride
        z_h = accumulate(zero, start, weights, row, stride, h, hidden, ahead)
        # Divided by what r is 1 over: the division comes to the same, the product after it goes.
        reset = div(z_h[2], sigmoid_denominator(z_h[0]))
        new = renewed(load(like, h, unit), z_h[1], add(z[2], reset))
        store(h_new, unit, new)


@njit(**JIT)
def gru_before_step(
    three,
    two,
    one,
    inputs,
    hidden,
    blocks,
    width,
    ahead,
    ready,
    weights,
    z_x,
    x,
    h,
    kept,
    h_new,
    odd,
):
    """One step, the reset gate before the matrix product; the new h goes to `h_new`, or over `h`.

    weights: blocks x [bias | input rows][r z n][width], and after all of these blocks x
    [hidden rows r z | hidden rows n][width];
    `three`, `two` and `one` are the zeros for rows of so many vectors. `kept` has room for r h,
    the sums of z and the input half of n, of blocks * width each: n waits for the r h of all units.
    """
    like = three[0][0]
    units = blocks * width
    inputs_at = 3 * width
    part = inputs_at + inputs * 3 * width
    one_at = hidden * 2 * width
    count = hidden_constant(blocks) if blocks > 1 else 1
    for k in range(count):
        block = k + odd * (blocks - 1 - 2 * k)
        at, unit = block * part, block * width
        if ready:
            z = load_many(three[0], z_x, block * 3 * width)
        else:
            z = load_many(three[0], weights, at)
            z = accumulate(three, z, weights, at + inputs_at, 3 * width, x, inputs, ahead)
        start = (z[0], z[1])
        row = blocks * part + block * hidden * 3 * width
        z_h = accumulate(two, start, weights, row, 2 * width, h, hidden, ahead)
        store(kept, unit, div(load(like, h, unit), sigmoid_denominator(z_h[0])))
        store(kept, units + unit, z_h[1])
        store(kept, 2 * units + unit, z[2])
    for k in range(count):
        block = k + odd * (blocks - 1 - 2 * k)
        unit = block * width
        row = blocks * part + block * hidden * 3 * width + one_at
        z_n = (load(like, kept, 2 * units + unit),)
        z_n = accumulate(one, z_n, weights, row, width, kept, hidden, ahead)
        new = renewed(load(like, h, unit), load(like, kept, units + unit), z_n[0])
        store(h_new, unit, new)

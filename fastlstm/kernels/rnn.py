"""One fused Elman step: twin of reference.rnn_step."""

from __future__ import annotations

from numba import njit

from fastlstm.kernels.dense import activate
from fastlstm.kernels.products import accumulate, load_many, store_many
from fastlstm.kernels.simd import JIT, TINY, load, splat, store, zero_where_less


@njit(**JIT)
def rnn_step(
    zero, inputs, hidden, groups, width, activation, ahead, ready, weights, z_x, x, h, h_new, odd
):
    """One step, in groups of as many blocks of `width` units as zero[0] has vectors.

    weights: groups x [bias | input rows][block of the group][width], and after all of these groups
    x [hidden rows][block][width]. A group shares each broadcast of x and h. Odd steps walk the
    groups backwards: what was read last is in L1.
    Where `ready`, bias and input half are not taken here but from z_x: see span_product.
    """
    vectors = zero[0]
    stride = len(vectors) * width
    tiny = splat(vectors[0], TINY)
    for n in range(groups):
        group = n + odd * (groups - 1 - 2 * n)
        at = group * (1 + inputs) * stride
        if ready:
            z = load_many(vectors, z_x, group * stride)
        else:
            z = load_many(vectors, weights, at)
            z = accumulate(zero, z, weights, at + stride, stride, x, inputs, ahead)
        row = (groups * (1 + inputs) + group * hidden) * stride
        z = accumulate(zero, z, weights, row, stride, h, hidden, ahead)
        store_many(h_new, group * stride, z)
        for k in range(group * stride, (group + 1) * stride, width):
            # tanh and relu of what is tiny are tiny: told from the sum, the flush costs no time.
            sums = load(tiny, h_new, k)
            store(h_new, k, zero_where_less(activate(activation, sums), sums, tiny))

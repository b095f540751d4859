"""tanh and sigmoid on vectors of float32, each with a stated and tested error bound.

Both stand on one exponential; a rational tanh is 3 ns shorter, but 6 ulp off (docs/kernels.md).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from fastlstm.kernels.simd import (
    JIT,
    add,
    clamp,
    div,
    fma,
    magnitude,
    minimum,
    mul,
    negate,
    power_of_two,
    splat,
    sub,
    with_sign,
)

F = np.float32

# exp(y) = 2^n exp(r), n the whole number nearest to y / ln 2. Adding 1.5 * 2^23 rounds to a whole
# number, because float32 has no digits left behind the point there.
LOG2_E = F(1.4426950408889634)
SHIFT = F(12582912.0)
# ln 2 in one float32 is off by 1.9e-9, which n * 1.9e-9 carries into r: 5e-8 at the ends of the
# range used here, where the result hardly depends on it.
LN_2 = F(0.6931471805599453)
# exp(r) - 1 = r + r^2 (C2 + C3 r + ... + C6 r^4) on |r| <= 0.3475: a minimax fit of the relative
# error made for this file, 1.3e-8 (docs/kernels.md has the method).
C2, C3, C4, C5, C6 = (
    F(0.499999981253),
    F(0.1666654235),
    F(0.0416672053998),
    F(0.00836669170328),
    F(0.00138824864022),
)
# Beyond this tanh rounds to 1 in float32: 1 - tanh(9.02) = 2.9e-8, half an ulp below 1.
TANH_LIMIT = F(18.04)  # of 2 x
# exp(-87) is the last power of e above the denormals.
SIGMOID_LIMIT = F(87)
# Greatest errors over every float32, in units of the last place of the true result, and absolute;
# tests/kernels/test_activations.py asserts them.
TANH_ERROR_ULP = 3.4
SIGMOID_ERROR_ULP = 1.6  # for x >= 0, where a gate is open
SIGMOID_CLOSED_ERROR_ULP = 5.6  # for x down to -87; below that the result is exp(-87), not less
ABSOLUTE_ERROR = 9.1e-8  # of all three
ONE, TWO = F(1), F(2)


@njit(**JIT)
def exp_parts(y):
    """The s and p with exp(y) = s + s p, s a power of two and |p| at most 0.42."""
    shifted = fma(y, splat(y, LOG2_E), splat(y, SHIFT))
    r = fma(sub(shifted, splat(y, SHIFT)), splat(y, -LN_2), y)
    # Estrin's scheme: fewer operations in series than Horner's, and a step of a small network
    # waits for two activations in a row.
    r2 = mul(r, r)
    r4 = mul(r2, r2)
    low = fma(r2, fma(r, splat(y, C3), splat(y, C2)), r)
    high = fma(r2, splat(y, C6), fma(r, splat(y, C5), splat(y, C4)))
    return power_of_two(shifted), fma(r4, high, low)


@njit(**JIT)
def tanh(x):
    """Hyperbolic tangent, lane by lane; its greatest error is TANH_ERROR_ULP. A NaN gives +-1."""
    y = minimum(magnitude(add(x, x)), splat(x, TANH_LIMIT))
    s, p = exp_parts(y)
    # tanh(x) = (exp(2x) - 1) / (exp(2x) + 1), with the numerator computed without cancellation,
    # for |x|: below 0 the same formula is less exact.
    e = fma(s, p, sub(s, splat(x, ONE)))
    return with_sign(div(e, add(e, splat(x, TWO))), x)


@njit(**JIT)
def sigmoid(x):
    """1 / (1 + exp(-x)), lane by lane; its greatest error is SIGMOID_ERROR_ULP. A NaN gives 1."""
    s, p = exp_parts(negate(clamp(x, splat(x, SIGMOID_LIMIT))))
    return div(splat(x, ONE), add(fma(s, p, s), splat(x, ONE)))


@njit(**JIT)
def one_minus_sigmoid(x):
    """1 / (1 + exp(x)), which keeps its digits where sigmoid is near 1.

    A forget gate of 0.99999 has lost two of its digits in float32, and an error there is a leak
    that ten thousand steps add up; what the gate forgets, 0.00001, has lost none.
    """
    s, p = exp_parts(clamp(x, splat(x, SIGMOID_LIMIT)))
    return div(splat(x, ONE), add(fma(s, p, s), splat(x, ONE)))

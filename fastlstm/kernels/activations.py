"""tanh and sigmoid on vectors of float32, each with a stated and tested error bound.

Both stand on one exponential; a rational tanh is 3 ns shorter, but 6 ulp off (docs/kernels.md).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from fastlstm.kernels.simd import (
    JIT,
    TINY,
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
    zero_where_less,
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
TANH_LIMIT = F(9.02)
# exp(-87) is the last power of e above the denormals.
SIGMOID_LIMIT = F(87)
# Greatest errors over every float32, in units of the last place of the true result, and absolute;
# tests/kernels/test_activations.py asserts them.
TANH_ERROR_ULP = 3.4
SIGMOID_ERROR_ULP = 1.6  # for x >= 0, where a gate is open
SIGMOID_CLOSED_ERROR_ULP = 5.6  # for x down to -87; below that the result is exp(-87), not less
ABSOLUTE_ERROR = 9.1e-8  # of all three
ONE, TWO = F(1), F(2)
# The coefficients for exp(2r), which the powers of two leave as exact as they are.
D2, D3, D4, D5, D6 = F(4) * C2, F(8) * C3, F(16) * C4, F(32) * C5, F(64) * C6


@njit(**JIT)
def power_parts(x, log2_base, ln_2, c1, c2, c3, c4, c5, c6):
    """The s and p with base^x = s + s p, s a power of two and |p| at most 0.42.

    log2_base is of the base, ln_2 the step of x that doubles the power, and c1 to c6 the
    coefficients of p in what is left of x.
    """
    shifted = fma(x, splat(x, log2_base), splat(x, SHIFT))
    r = fma(sub(shifted, splat(x, SHIFT)), splat(x, -ln_2), x)
    # Estrin's scheme: fewer operations in series than Horner's, and a step of a small network
    # waits for two activations in a row.
    r2 = mul(r, r)
    r4 = mul(r2, r2)
    low = fma(r2, fma(r, splat(x, c3), splat(x, c2)), mul(r, splat(x, c1)))
    high = fma(r2, splat(x, c6), fma(r, splat(x, c5), splat(x, c4)))
    return power_of_two(shifted), fma(r4, high, low)


@njit(**JIT)
def tanh_parts(x):
    """The numerator and the denominator of tanh(x), lane by lane. A NaN stays."""
    # tanh(x) = (exp(2x) - 1) / (exp(2x) + 1) for |x|: below 0 the same formula is less exact. The
    # 2 is in the constants. Computing the denominator beside the numerator, instead of from it,
    # would save 1 ns, but then their roundings no longer cancel: 2.8 ulp instead of 1.5 near 1.
    y = minimum(magnitude(x), splat(x, TANH_LIMIT))
    s, p = power_parts(y, TWO * LOG2_E, LN_2 / TWO, TWO, D2, D3, D4, D5, D6)
    e = fma(s, p, sub(s, splat(x, ONE)))
    return with_sign(e, x), add(e, splat(x, TWO))


@njit(**JIT)
def sigmoid_denominator(x):
    """1 + exp(-x), lane by lane: what sigmoid(x) is 1 over. A NaN stays."""
    return one_minus_sigmoid_denominator(negate(x))


@njit(**JIT)
def one_minus_sigmoid_denominator(x):
    """1 + exp(x), what 1 - sigmoid(x) is 1 over, which keeps its digits where sigmoid is near 1.

    A forget gate of 0.99999 has lost two of its digits in float32, and an error there is a leak
    that ten thousand steps add up; what the gate forgets, 0.00001, has lost none.
    """
    s, p = power_parts(clamp(x, splat(x, SIGMOID_LIMIT)), LOG2_E, LN_2, ONE, C2, C3, C4, C5, C6)
    return fma(s, p, add(s, splat(x, ONE)))


@njit(**JIT)
def tanh(x):
    """Hyperbolic tangent, lane by lane; its greatest error is TANH_ERROR_ULP. A NaN stays."""
    numerator, denominator = tanh_parts(x)
    return div(numerator, denominator)


@njit(**JIT)
def sigmoid(x):
    """1 / (1 + exp(-x)), lane by lane; its greatest error is SIGMOID_ERROR_ULP. A NaN stays."""
    return div(splat(x, ONE), sigmoid_denominator(x))


@njit(**JIT)
def one_minus_sigmoid(x):
    """1 / (1 + exp(x)), lane by lane, with the same errors as sigmoid."""
    return div(splat(x, ONE), one_minus_sigmoid_denominator(x))


@njit(**JIT)
def gated_tanh(gate, x):
    """sigmoid(gate) * tanh(x) in one division: the divider is what a small step waits for."""
    numerator, denominator = tanh_parts(x)
    return div(numerator, mul(denominator, sigmoid_denominator(gate)))


@njit(**JIT)
def gated_tanh_flushed(gate, x):
    """gated_tanh, but 0 in the lanes where sigmoid(gate) * |x|, which is no less, is under TINY.

    Told from what is there long before the result, so that a small step does not wait for it:
    flushing the quotient itself costs 2 ns.
    """
    numerator, denominator = tanh_parts(x)
    d = sigmoid_denominator(gate)
    numerator = zero_where_less(numerator, x, mul(d, splat(x, TINY)))
    return div(numerator, mul(denominator, d))

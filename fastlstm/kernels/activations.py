"""tanh and sigmoid on vectors, and exp for softmax, each with a stated and tested error bound."""

from __future__ import annotations

import numpy as np
from numba import njit

from fastlstm.kernels.simd import JIT, clamp, div, fma, mul, splat

F = np.float32

# tanh(x) = x P(x^2) / Q(x^2), both of degree 4: a minimax fit of the relative error on [0, 9.02]
# made for this file (2.1e-8 before the coefficients are rounded; docs/kernels.md has the method),
# then moved by a few units in the last place so that no float32 result exceeds 1. All
# coefficients are positive, so nothing cancels.
P1, P2, P3, P4 = F(0.13379661738872528), F(0.0034939635079354048), F(2.0582248907885514e-05), F(1.3317287717029558e-08)
Q1, Q2, Q3, Q4 = F(0.4671298563480377), F(0.025870803743600845), F(0.0003282974648755044), F(7.76130889335036e-07)
# From here on tanh rounds to 1 in float32 (1 - tanh(9.02) = 2.9e-8, half an ulp below 1), and the
# quotient at this very point is 1 exactly.
LIMIT = F(9.024996)
# Greatest errors over every float32, measured by tests/kernels/test_activations.py.
TANH_ERROR_ULP = 6.0  # ulp of the true result; at most 3.6e-7 absolute
SIGMOID_ERROR = 2.1e-7  # absolute; below x = -8 this is not small against the result itself
ONE, HALF = F(1), F(0.5)


@njit(**JIT)
def tanh(x):  # type: ignore[no-untyped-def]
    """tanh(x) lane by lane; see TANH_ERROR_ULP for its greatest error. A NaN gives 1."""
    x = clamp(x, splat(x, LIMIT))
    u = mul(x, x)
    # Estrin's scheme: half as many operations in series as Horner's, and a step of a small
    # network waits for two activations in a row.
    one = splat(x, ONE)
    u2 = mul(u, u)
    u4 = mul(u2, u2)
    p = fma(u2, fma(u, splat(x, P3), splat(x, P2)), fma(u, splat(x, P1), one))
    q = fma(u2, fma(u, splat(x, Q3), splat(x, Q2)), fma(u, splat(x, Q1), one))
    p = fma(u4, splat(x, P4), p)
    q = fma(u4, splat(x, Q4), q)
    return div(mul(x, p), q)


@njit(**JIT)
def sigmoid(x):  # type: ignore[no-untyped-def]
    """1 / (1 + exp(-x)) lane by lane, as (1 + tanh(x / 2)) / 2; see SIGMOID_ERROR."""
    half = splat(x, HALF)
    return fma(half, tanh(mul(half, x)), half)

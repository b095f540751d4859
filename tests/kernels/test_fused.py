"""The functions that save a division by taking two activations at once, against float64."""

import numpy as np
import pytest
from numba import njit

from fastlstm.kernels import activations, gru
from fastlstm.kernels.memory import pointer_to
from fastlstm.kernels.products import zero_sets
from fastlstm.kernels.simd import NATIVE_WIDTH, TINY, load, store

COUNT = 1 << 20


def pairwise(function):
    @njit
    def apply(a_address, b_address, y_address, count):
        a, b, y = pointer_to(a_address), pointer_to(b_address), pointer_to(y_address)
        like = zero_sets(NATIVE_WIDTH, 1, 1)[0][0]
        for k in range(0, count, NATIVE_WIDTH):
            store(y, k, function(load(like, a, k), load(like, b, k)))

    def run(a, b):
        y = np.empty_like(a)
        apply(a.ctypes.data, b.ctypes.data, y.ctypes.data, len(a))
        return y

    return run


def either_sign(rng, low, high):
    """float32 of every order of magnitude between two powers of ten."""
    size = 10 ** rng.uniform(low, high, COUNT)
    return (size * rng.choice([-1, 1], COUNT)).astype(np.float32)


def ulp(found, true):
    return np.abs(found - true) / np.spacing(np.abs(true).astype(np.float32))


@pytest.mark.parametrize("name", ["gated_tanh", "gated_tanh_flushed"])
def test_gated_tanh(name):
    rng = np.random.default_rng(0)
    gate = rng.uniform(-20, 20, COUNT).astype(np.float32)
    x = either_sign(rng, -8, 1.2)
    found = pairwise(getattr(activations, name))(gate, x)
    true = np.tanh(x.astype(np.float64)) / (1 + np.exp(-gate.astype(np.float64)))
    # The errors of both, and half a unit for rounding their denominators' product.
    opened = gate >= 0
    error = ulp(found, true)
    assert error[opened].max() <= activations.TANH_ERROR_ULP + activations.SIGMOID_ERROR_ULP + 0.5
    closed = activations.TANH_ERROR_ULP + activations.SIGMOID_CLOSED_ERROR_ULP + 0.5
    assert error[~opened].max() <= closed


def test_what_is_tiny_is_flushed_and_nothing_else():
    rng = np.random.default_rng(1)
    gate = rng.uniform(-80, 80, COUNT).astype(np.float32)
    x = either_sign(rng, -37, 1)
    found = pairwise(activations.gated_tanh_flushed)(gate, x)
    true = np.tanh(x.astype(np.float64)) / (1 + np.exp(-gate.astype(np.float64)))
    assert not found[np.abs(true) < 0.99 * TINY / 10].any()
    assert found[np.abs(true) > 1.01 * TINY].all()
    kept = found[found != 0]
    assert np.abs(kept).min() >= np.finfo(np.float32).tiny
    assert np.isnan(pairwise(activations.gated_tanh_flushed)(gate, x * np.float32(np.nan))).all()


def test_the_renewed_state_of_a_gru():
    rng = np.random.default_rng(2)
    z = rng.uniform(-90, 90, COUNT).astype(np.float32)
    n = either_sign(rng, -8, 1.2)
    old = np.float32(0.37)
    found = pairwise(njit(lambda z, n: gru.renewed(activations.splat(z, old), z, n)))(z, n)
    keep = 1 / (1 + np.exp(-z.astype(np.float64)))
    forget = 1 / (1 + np.exp(z.astype(np.float64)))
    true = forget * np.tanh(n.astype(np.float64)) + keep * np.float64(old)
    # tanh's own error, and four roundings of values up to 1 + old: of the numerator, the
    # denominators' product, the quotient and the sum.
    rounding = 4 * 2.0**-24 * (1 + old)
    assert np.abs(found - true).max() <= activations.ABSOLUTE_ERROR + rounding
    # A gate near 1 keeps all digits of what it takes away.
    nearly = z > 10
    change = found[nearly].astype(np.float64) - np.float64(old)
    assert np.abs(change - (true - np.float64(old))[nearly]).max() <= np.spacing(old)

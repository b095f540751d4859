"""tanh and sigmoid on vectors: the greatest errors that activations.py states, asserted."""

import numpy as np
import pytest
from numba import njit

from fastlstm.kernels import activations
from fastlstm.kernels.memory import pointer_to
from fastlstm.kernels.products import zero_sets
from fastlstm.kernels.simd import NATIVE_WIDTH, load, store

FUNCTIONS = {
    "tanh": activations.tanh,
    "sigmoid": activations.sigmoid,
    "one_minus_sigmoid": activations.one_minus_sigmoid,
}


def compiled(function):
    @njit
    def apply(x_address, y_address, count):
        x, y = pointer_to(x_address), pointer_to(y_address)
        like = zero_sets(NATIVE_WIDTH, 1, 1)[0][0]
        for k in range(0, count, NATIVE_WIDTH):
            store(y, k, function(load(like, x, k)))

    def run(x):
        padded = np.zeros(-(-len(x) // NATIVE_WIDTH) * NATIVE_WIDTH, np.float32)
        padded[: len(x)] = x
        y = np.empty_like(padded)
        apply(padded.ctypes.data, y.ctypes.data, len(padded))
        return y[: len(x)]

    return run


@pytest.fixture(scope="module")
def run():
    return {name: compiled(function) for name, function in FUNCTIONS.items()}


def exact(name, x):
    x = x.astype(np.float64)
    if name == "tanh":
        return np.tanh(x)
    return 1 / (1 + np.exp(-x if name == "sigmoid" else x))


def errors(name, x, found):
    """Greatest error in units of the last place of the true result, and absolute."""
    true = exact(name, x)
    distance = np.abs(found - true)
    return distance / np.spacing(np.abs(true).astype(np.float32)), distance


def check(name, x, found):
    ulp, absolute = errors(name, x, found)
    if name == "tanh":
        assert ulp.max() <= activations.TANH_ERROR_ULP
        assert np.abs(found).max() <= 1
    else:
        # Where the gate is open, to the ulp; where it closes, exp's own rounding comes in.
        opening = x >= 0 if name == "sigmoid" else x <= 0
        assert ulp[opening].max(initial=0) <= activations.SIGMOID_ERROR_ULP
        assert ulp[np.abs(x) <= 87].max(initial=0) <= activations.SIGMOID_CLOSED_ERROR_ULP
        assert found.min() > 0
        assert found.max() <= 1
    assert absolute.max() <= activations.ABSOLUTE_ERROR


def floats(start, stop, step):
    """Every `step`-th float32 whose bits lie in [start, stop)."""
    return np.arange(start, stop, step, dtype=np.uint32).view(np.float32)


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_sampled(run, name):
    with np.errstate(over="ignore"):
        for sign in (0, 1 << 31):
            x = floats(sign, sign + 0x7F800000, 997)
            check(name, x, run[name](x))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_every_float32(run, name):
    with np.errstate(over="ignore"):
        for sign in (0, 1 << 31):
            for start in range(sign, sign + 0x7F800000, 1 << 24):
                x = floats(start, min(start + (1 << 24), sign + 0x7F800000), 1)
                check(name, x, run[name](x))


def test_the_ends(run):
    x = np.array([0, 9.02, -9.02, 1e30, -1e30, np.inf, -np.inf, 1e-45, 1e-38], np.float32)
    found = run["tanh"](x)
    assert found[:7].tolist() == [0, 1, -1, 1, -1, 1, -1]
    # Where tanh(x) = x to the last digit, it is so even among the denormals.
    assert np.array_equal(found[7:], x[7:])
    assert run["sigmoid"](x)[:1].tolist() == [0.5]
    assert run["sigmoid"](x)[3] == 1
    assert run["sigmoid"](x)[4] < 1e-37


def test_not_a_number_stays(run):
    for function in run.values():
        assert np.isnan(function(np.array([np.nan, -np.nan], np.float32))).all()


def test_no_bias_near_one(run):
    """A gate's mean error, which a long memory adds up: under a fiftieth of an ulp."""
    x = np.linspace(1, 15, 2_000_000, dtype=np.float32)
    true = exact("sigmoid", x)
    ulp = (run["sigmoid"](x) - true) / np.spacing(true.astype(np.float32))
    assert abs(ulp.mean()) < 0.02

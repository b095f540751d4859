"""The activations alone, over an array that stays in the first level of cache."""

import numpy as np
import pytest
from measured import timed
from numba import njit

from fastlstm import reference
from fastlstm.kernels import activations
from fastlstm.kernels.memory import pointer_to
from fastlstm.kernels.packing import aligned
from fastlstm.kernels.products import zero_sets
from fastlstm.kernels.simd import NATIVE_WIDTH, load, store

COUNT = 4096
FUNCTIONS = {
    "tanh": (activations.tanh, np.tanh),
    "sigmoid": (activations.sigmoid, reference.sigmoid),
    "one_minus_sigmoid": (activations.one_minus_sigmoid, lambda x: reference.sigmoid(-x)),
}


def over_an_array(function):
    @njit
    def apply(x_address, y_address):
        x, y = pointer_to(x_address), pointer_to(y_address)
        like = zero_sets(NATIVE_WIDTH, 1, 1)[0][0]
        for k in range(0, COUNT, NATIVE_WIDTH):
            store(y, k, function(load(like, x, k)))

    return apply


@pytest.mark.parametrize("name", FUNCTIONS)
def test_activation(benchmark, name):
    function, exact = FUNCTIONS[name]
    apply = over_an_array(function)
    x, y = aligned(COUNT), aligned(COUNT)
    x[:] = np.random.default_rng(0).normal(0, 3, COUNT)
    addresses = x.ctypes.data, y.ctypes.data
    apply(*addresses)
    assert np.abs(y - exact(x.astype(np.float64))).max() <= activations.ABSOLUTE_ERROR
    timed(benchmark, lambda: apply(*addresses), COUNT)

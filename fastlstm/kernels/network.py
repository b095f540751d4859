"""A whole network as one compiled step, made from a Plan."""

from __future__ import annotations

from typing import Any

from numba import njit, types
from numba.core.ccallback import CFunc

from fastlstm.kernels.cache import KernelCache
from fastlstm.kernels.dense import affine_step, dense_dot_step, dense_step
from fastlstm.kernels.gru import gru_step
from fastlstm.kernels.lstm import lstm_step
from fastlstm.kernels.memory import get, offset, pointer_to, put
from fastlstm.kernels.packing import ALIGNMENT, LayerPlan, Plan
from fastlstm.kernels.products import zero_sets
from fastlstm.kernels.rnn import rnn_step
from fastlstm.kernels.simd import JIT

# network_step(memory, weights, parity, y): addresses of a stream's float32, of the packed weights
# and of where the output goes; parity is that of the number of steps before.
NETWORK_STEP = ((types.int64,) * 4, types.void)


def compile_network(plan: Plan) -> Any:
    """The network of a plan as machine code with an `address`, compiled or from the cache.

    Streams call it through that address (calls.py), so that it is all there is to compile for a
    new architecture; keep the returned object for as long as the address is used.
    """
    function: Any = CFunc(_network_step(plan), NETWORK_STEP, {}, {"error_model": "numpy"})
    function._cache = KernelCache("network_step", repr(plan))
    function.compile()
    return function


def _network_step(plan: Plan) -> Any:
    # One layer after the other, as nested calls: Numba cannot loop over functions.
    layers = _layer(plan.layers[0])
    for layer in plan.layers[1:]:
        layers = _chain(layers, _layer(layer))
    outputs = plan.outputs
    even, odd = plan.layers[-1].result

    def network_step(memory_address, weights, parity, y_address):
        memory, y = pointer_to(memory_address), pointer_to(y_address)
        layers(memory, pointer_to(weights), parity)
        result = offset(memory, odd if parity else even)
        for k in range(outputs):
            put(y, k, get(result, k))

    return network_step


def _chain(first: Any, second: Any) -> Any:
    @njit(**JIT)
    def both(memory, weights, parity):
        first(memory, weights, parity)
        second(memory, weights, parity)

    return both


def _layer(plan: LayerPlan) -> Any:
    """One layer's step with its sizes and offsets as constants."""
    inputs, outputs, width, parts = plan.inputs, plan.outputs, plan.width, plan.parts
    vectors, sets, ahead, activation = plan.vectors, plan.sets, plan.ahead, plan.activation
    at, cell = plan.weights, plan.cell
    source_even, source_odd = plan.source
    result_even, result_odd = plan.result
    padded = -(-inputs // ALIGNMENT) * ALIGNMENT

    @njit(**JIT)
    def source(memory, parity):
        return offset(memory, source_odd if parity else source_even)

    @njit(**JIT)
    def result(memory, parity):
        return offset(memory, result_odd if parity else result_even)

    if plan.kind == "LSTM":

        @njit(**JIT)
        def layer(memory, weights, parity):
            zero = zero_sets(width, vectors, sets)
            x, old, new = source(memory, parity), result(memory, 1 - parity), result(memory, parity)
            c = offset(memory, cell)
            w = offset(weights, at)
            lstm_step(zero, inputs, outputs, parts, width, ahead, w, x, old, c, new, parity)

    elif plan.kind == "GRU":

        @njit(**JIT)
        def layer(memory, weights, parity):
            zero = zero_sets(width, vectors, sets)
            x, old, new = source(memory, parity), result(memory, 1 - parity), result(memory, parity)
            w = offset(weights, at)
            gru_step(zero, inputs, outputs, parts, width, ahead, w, x, old, new, parity)

    elif plan.kind == "RNN":

        @njit(**JIT)
        def layer(memory, weights, parity):
            zero = zero_sets(width, vectors, sets)
            x, old, new = source(memory, parity), result(memory, 1 - parity), result(memory, parity)
            w = offset(weights, at)
            rnn_step(zero, inputs, outputs, parts, width, activation, ahead, w, x, old, new, parity)

    elif plan.kind == "Affine":

        @njit(**JIT)
        def layer(memory, weights, parity):
            zero = zero_sets(width, vectors, sets)
            x, y = source(memory, parity), result(memory, parity)
            affine_step(zero, padded, width, offset(weights, at), x, y)

    elif plan.dot:

        @njit(**JIT)
        def layer(memory, weights, parity):
            zero = zero_sets(width, vectors, sets)
            x, y = source(memory, parity), result(memory, parity)
            w = offset(weights, at)
            dense_dot_step(zero, padded, outputs, width, activation, w, x, y)

    else:

        @njit(**JIT)
        def layer(memory, weights, parity):
            zero = zero_sets(width, vectors, sets)
            x, y = source(memory, parity), result(memory, parity)
            w = offset(weights, at)
            dense_step(zero, inputs, outputs, parts, width, activation, ahead, w, x, y)

    return layer

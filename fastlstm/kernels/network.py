"""A whole network as machine code, made from a Plan: one step, and a run of many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from numba import njit, types
from numba.core.ccallback import CFunc

from fastlstm.kernels.cache import KernelCache
from fastlstm.kernels.layer_steps import span_of, step_of
from fastlstm.kernels.memory import get, offset, pointer_to, put
from fastlstm.kernels.simd import JIT

if TYPE_CHECKING:
    from fastlstm.kernels.plan import Plan

# network_step(memory, weights, parity, y): addresses of a stream's float32, of the packed weights
# and of where the output goes; parity is that of the number of steps before.
NETWORK_STEP = ((types.int64,) * 4, types.void)
# network_run(memory, weights, parity, x, x_stride, y, steps, scratch): the same for rows of x,
# x_stride float32 apart, to rows of y without gaps; scratch is room of the plan's scratch_size.
NETWORK_RUN = ((types.int64,) * 8, types.void)


class Network(NamedTuple):
    """Machine code with an `address` each; keep it for as long as an address is used."""

    step: Any
    run: Any


def compile_network(plan: Plan) -> Network:
    """The network of a plan as machine code, compiled or from the cache.

    Streams call it through its addresses (calls.py), so that it is all there is to compile for a
    new architecture.
    """
    return Network(
        _compiled(_network_step(plan), NETWORK_STEP, plan),
        _compiled(_network_run(plan), NETWORK_RUN, plan),
    )


def _compiled(function: Any, signature: Any, plan: Plan) -> Any:
    code: Any = CFunc(function, signature, {}, {"error_model": "numpy"})
    code._cache = KernelCache(function.__name__, repr(plan))
    code.compile()
    return code


def _network_step(plan: Plan) -> Any:
    layers = _steps_of(plan)
    outputs = plan.outputs
    even, odd = plan.layers[-1].result

    def network_step(memory_address, weights, parity, y_address):
        memory, y = pointer_to(memory_address), pointer_to(y_address)
        layers(memory, pointer_to(weights), parity)
        result = offset(memory, odd if parity else even)
        for k in range(outputs):
            put(y, k, get(result, k))

    return network_step


def _steps_of(plan: Plan) -> Any:
    # One layer after the other, as nested calls: Numba cannot loop over functions.
    layers = step_of(plan.layers[0])
    for layer in plan.layers[1:]:
        layers = _then(layers, step_of(layer))
    return layers


def _then(first: Any, second: Any) -> Any:
    @njit(**JIT)
    def both(memory, weights, parity):
        first(memory, weights, parity)
        second(memory, weights, parity)

    return both


def _network_run(plan: Plan) -> Any:
    return _run_by_span(plan) if plan.span else _run_by_step(plan)


def _run_by_step(plan: Plan) -> Any:
    layers = _steps_of(plan)
    inputs, outputs = plan.inputs, plan.outputs
    even, odd = plan.layers[-1].result

    def network_run(
        memory_address, weights_address, parity, x_address, x_stride, y_address, steps, scratch
    ):
        memory, weights = pointer_to(memory_address), pointer_to(weights_address)
        x, y = pointer_to(x_address), pointer_to(y_address)
        for t in range(steps):
            for k in range(inputs):
                put(memory, k, get(x, t * x_stride + k))
            side = (parity + t) & 1
            layers(memory, weights, side)
            result = offset(memory, odd if side else even)
            for k in range(outputs):
                put(y, t * outputs + k, get(result, k))

    return network_run


def _run_by_span(plan: Plan) -> Any:
    layers = span_of(plan.layers[0])
    for layer in plan.layers[1:]:
        layers = _then_over_span(layers, span_of(layer))
    inputs, outputs, length = plan.inputs, plan.outputs, plan.span
    first, last = plan.layers[0].span, plan.layers[-1].span
    copied, padded = first.source, first.source_size
    result, result_size = last.result, last.result_size

    def network_run(
        memory_address,
        weights_address,
        parity,
        x_address,
        x_stride,
        y_address,
        steps,
        scratch_address,
    ):
        memory, weights = pointer_to(memory_address), pointer_to(weights_address)
        x, y, scratch = pointer_to(x_address), pointer_to(y_address), pointer_to(scratch_address)
        for begin in range(0, steps, length):
            count = min(length, steps - begin)
            source = offset(x, begin * x_stride)
            if copied >= 0:
                for t in range(count):
                    row = offset(scratch, copied + t * padded)
                    for k in range(inputs):
                        put(row, k, get(source, t * x_stride + k))
                    # A first layer that reads whole vectors multiplies what is beyond by 0.
                    for k in range(inputs, padded):
                        put(row, k, 0)
            layers(memory, weights, (parity + begin) & 1, count, source, x_stride, scratch)
            for t in range(count):
                row, target = offset(scratch, result + t * result_size), (begin + t) * outputs
                for k in range(outputs):
                    put(y, target + k, get(row, k))

    return network_run


def _then_over_span(first: Any, second: Any) -> Any:
    @njit(**JIT)
    def both(memory, weights, parity, steps, x, x_stride, scratch):
        first(memory, weights, parity, steps, x, x_stride, scratch)
        second(memory, weights, parity, steps, x, x_stride, scratch)

    return both

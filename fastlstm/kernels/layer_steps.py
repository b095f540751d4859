"""One layer's step with its sizes and offsets as constants, and the same for a span of steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numba import njit

from fastlstm.kernels.dense import FLUSHED, dense_dot_step, dense_span, dense_step
from fastlstm.kernels.elementwise import (
    affine_step,
    difference_step,
    layer_norm_step,
    residual_step,
)
from fastlstm.kernels.gru import gru_before_step, gru_step
from fastlstm.kernels.lstm import lstm_step
from fastlstm.kernels.memory import get, offset, put
from fastlstm.kernels.products import zero_sets
from fastlstm.kernels.rnn import rnn_step
from fastlstm.kernels.simd import JIT
from fastlstm.kernels.span_products import span_product

if TYPE_CHECKING:
    from fastlstm.kernels.plan import LayerPlan


def step_of(plan: LayerPlan) -> Any:
    """layer(memory, weights, parity): one step, from buffer to buffer of a stream's memory."""
    take = _recurrent(plan, ready=False) if plan.kind in _RECURRENT else _plain(plan)
    source_even, source_odd = plan.source
    other_even, other_odd = plan.other
    result_even, result_odd = plan.result

    @njit(**JIT)
    def step(memory, weights, parity):
        x = offset(memory, source_odd if parity else source_even)
        other = offset(memory, other_odd if parity else other_even)
        old = offset(memory, result_even if parity else result_odd)
        new = offset(memory, result_odd if parity else result_even)
        take(memory, weights, parity, other, x, old, new)

    return step


def span_of(plan: LayerPlan) -> Any:
    """layer(memory, weights, parity, steps, x, x_stride, scratch): a span of at least one step.

    From the rows of x, or of the layer before in the scratch, to rows in the scratch. The state
    comes from the memory and goes back to it.
    """
    span = plan.span
    source_at, source_size = span.source, span.source_size
    if plan.kind == "Residual":
        return _residual_span(plan)
    if plan.kind in _RECURRENT:
        over = _recurrent_span(plan)
    elif plan.kind == "Dense" and not plan.dot:
        over = _dense_span(plan)
    else:
        over = _plain_span(plan)
    if source_at < 0:
        return over

    @njit(**JIT)
    def from_scratch(memory, weights, parity, steps, x, x_stride, scratch):
        over(memory, weights, parity, steps, offset(scratch, source_at), source_size, scratch)

    return from_scratch


_RECURRENT = ("LSTM", "GRU", "RNN")


def _recurrent(plan: LayerPlan, *, ready: bool) -> Any:
    """take(memory, weights, parity, half, x, old, new): one step from old h to new."""
    return {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}[plan.kind](plan, ready)


def _lstm(plan: LayerPlan, ready: bool) -> Any:
    inputs, outputs, width, parts = plan.inputs, plan.outputs, plan.width, plan.parts
    vectors, sets, ahead, peephole = plan.vectors, plan.sets, plan.ahead, plan.peephole
    at, cell, kept, hidden = plan.weights, plan.cell, plan.kept, plan.hidden

    @njit(**JIT)
    def bare(memory, weights, parity, half, x, old, new):
        zero = zero_sets(width, vectors, sets)
        c, w = offset(memory, cell), offset(weights, at)
        lstm_step(
            zero, inputs, outputs, parts, width, ahead, peephole, ready, w, half, x, old, c, new,
            parity,
        )  # fmt: skip

    if plan.projection is None:
        return bare
    p_width, p_vectors, p_sets, p_parts, p_at = plan.projection

    @njit(**JIT)
    def projected(memory, weights, parity, half, x, old, new):
        unprojected = offset(memory, kept)
        bare(memory, weights, parity, half, x, old, unprojected)
        zero = zero_sets(p_width, p_vectors, p_sets)
        w = offset(weights, p_at)
        dense_step(zero, hidden, outputs, p_parts, p_width, FLUSHED, 0, w, unprojected, new)

    return projected


def _gru(plan: LayerPlan, ready: bool) -> Any:
    inputs, hidden, width, parts = plan.inputs, plan.outputs, plan.width, plan.parts
    vectors, sets, ahead, at, kept = plan.vectors, plan.sets, plan.ahead, plan.weights, plan.kept

    @njit(**JIT)
    def after(memory, weights, parity, half, x, old, new):
        zero = zero_sets(width, vectors, sets)
        w = offset(weights, at)
        gru_step(zero, inputs, hidden, parts, width, ahead, ready, w, half, x, old, new, parity)

    @njit(**JIT)
    def before(memory, weights, parity, half, x, old, new):
        three, two, one = (
            zero_sets(width, vectors, sets), zero_sets(width, 2, sets), zero_sets(width, 1, sets)
        )  # fmt: skip
        w, room = offset(weights, at), offset(memory, kept)
        gru_before_step(
            three, two, one, inputs, hidden, parts, width, ahead, ready, w, half, x, old, room, new,
            parity,
        )  # fmt: skip

    return before if plan.reset_before else after


def _rnn(plan: LayerPlan, ready: bool) -> Any:
    inputs, hidden, width, parts = plan.inputs, plan.outputs, plan.width, plan.parts
    vectors, sets, ahead, activation = plan.vectors, plan.sets, plan.ahead, plan.activation
    at = plan.weights

    @njit(**JIT)
    def take(memory, weights, parity, half, x, old, new):
        zero = zero_sets(width, vectors, sets)
        w = offset(weights, at)
        rnn_step(
            zero, inputs, hidden, parts, width, activation, ahead, ready, w, half, x, old, new,
            parity,
        )  # fmt: skip

    return take


def _plain(plan: LayerPlan) -> Any:
    """take(memory, weights, parity, other, x, old, new) of any other layer."""
    return {"Dense": _dense, "Residual": _residual}.get(plan.kind, _elementwise)(plan)


def _dense(plan: LayerPlan) -> Any:
    inputs, outputs, width, parts = plan.inputs, plan.outputs, plan.width, plan.parts
    vectors, sets, ahead, activation = plan.vectors, plan.sets, plan.ahead, plan.activation
    at, lanes = plan.weights, plan.lanes

    @njit(**JIT)
    def dot(memory, weights, parity, other, x, old, new):
        zero = zero_sets(width, vectors, sets)
        dense_dot_step(zero, lanes, outputs, width, activation, offset(weights, at), x, new)

    @njit(**JIT)
    def dense(memory, weights, parity, other, x, old, new):
        zero = zero_sets(width, vectors, sets)
        w = offset(weights, at)
        dense_step(zero, inputs, outputs, parts, width, activation, ahead, w, x, new)

    return dot if plan.dot else dense


def _elementwise(plan: LayerPlan) -> Any:
    size, lanes, width = plan.inputs, plan.lanes, plan.width
    at, cell = plan.weights, plan.cell

    @njit(**JIT)
    def affine(memory, weights, parity, other, x, old, new):
        affine_step(zero_sets(width, 1, 1), lanes, width, offset(weights, at), x, new)

    @njit(**JIT)
    def layer_norm(memory, weights, parity, other, x, old, new):
        layer_norm_step(zero_sets(width, 1, 1), size, lanes, width, offset(weights, at), x, new)

    @njit(**JIT)
    def difference(memory, weights, parity, other, x, old, new):
        difference_step(zero_sets(width, 1, 1), lanes, width, x, offset(memory, cell), new)

    return {"Affine": affine, "LayerNorm": layer_norm, "Difference": difference}[plan.kind]


def _residual(plan: LayerPlan) -> Any:
    """As the others; what it adds comes from `other`."""
    size, lanes, width = plan.outputs, plan.lanes, plan.width
    at, reading = plan.weights, plan.reading

    @njit(**JIT)
    def take(memory, weights, parity, other, x, old, new):
        zero = zero_sets(width, 1, 1)
        residual_step(zero, reading, size, lanes, width, offset(weights, at), x, other, new)

    return take


def _recurrent_span(plan: LayerPlan) -> Any:
    span = plan.span
    result_at, size, half_at, half_size = (
        span.result, span.result_size, span.half, span.half_size
    )  # fmt: skip
    width, vectors, sets, tile = plan.width, plan.vectors, plan.sets, span.tile
    inputs, parts, part, skip, at = plan.inputs, plan.parts, plan.part, plan.skip, plan.weights
    result_even, result_odd = plan.result
    ready = half_at >= 0
    take = _recurrent(plan, ready=ready)

    @njit(**JIT)
    def over(memory, weights, parity, steps, x, x_stride, scratch):
        rows, halves = offset(scratch, result_at), offset(scratch, half_at if ready else 0)
        if ready:
            zero, empty = zero_sets(width, vectors, sets), zero_sets(width, vectors, tile)
            w = offset(weights, at)
            span_product(
                zero, empty, inputs, parts, width, part, skip, w, x, x_stride, halves, half_size,
                steps,
            )  # fmt: skip
        old = offset(memory, result_even if parity else result_odd)
        for t in range(steps):
            new = offset(rows, t * size)
            half = offset(halves, t * half_size)
            take(memory, weights, (parity + t) & 1, half, offset(x, t * x_stride), old, new)
            old = new
        last = offset(memory, result_odd if (parity + steps - 1) & 1 else result_even)
        for k in range(size):
            put(last, k, get(old, k))

    return over


def _dense_span(plan: LayerPlan) -> Any:
    span = plan.span
    result_at, size, tile = span.result, span.result_size, span.tile
    inputs, outputs, width, parts = plan.inputs, plan.outputs, plan.width, plan.parts
    vectors, sets, activation, at = plan.vectors, plan.sets, plan.activation, plan.weights

    @njit(**JIT)
    def over(memory, weights, parity, steps, x, x_stride, scratch):
        zero, empty = zero_sets(width, vectors, sets), zero_sets(width, vectors, tile)
        w, y = offset(weights, at), offset(scratch, result_at)
        dense_span(
            zero, empty, inputs, outputs, parts, width, activation, w, x, x_stride, y, size, steps
        )

    return over


def _plain_span(plan: LayerPlan) -> Any:
    result_at, size = plan.span.result, plan.span.result_size
    take = _plain(plan)

    @njit(**JIT)
    def over(memory, weights, parity, steps, x, x_stride, scratch):
        rows = offset(scratch, result_at)
        for t in range(steps):
            new = offset(rows, t * size)
            take(memory, weights, parity, memory, offset(x, t * x_stride), new, new)

    return over


def _residual_span(plan: LayerPlan) -> Any:
    span = plan.span
    result_at, size, source_at, source_size = (
        span.result, span.result_size, span.source, span.source_size
    )  # fmt: skip
    other_at, other_size = span.other, span.other_size
    take = _residual(plan)

    @njit(**JIT)
    def over(memory, weights, parity, steps, x, x_stride, scratch):
        rows, inputs = offset(scratch, result_at), offset(scratch, source_at)
        others, other_stride = x, x_stride
        if other_at >= 0:
            others, other_stride = offset(scratch, other_at), other_size
        for t in range(steps):
            new, row = offset(rows, t * size), offset(inputs, t * source_size)
            take(memory, weights, parity, offset(others, t * other_stride), row, new, new)

    return over

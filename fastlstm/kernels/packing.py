"""The plan of a network: where its weights, a stream's memory and the scratch of a run lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastlstm.kernels.blocks import (
    ALIGNMENT,
    Array,
    Spec,
    as_dense,
    blocks_of,
    is_dot,
    lanes_of,
    padded,
    reading_of,
    reads_vectors,
    row_size,
    shape_of,
    skip_of,
)
from fastlstm.kernels.dense import LINEAR, RELU, SIGMOID, SOFTMAX, TANH
from fastlstm.kernels.elementwise import EACH
from fastlstm.kernels.plan import LayerPlan, Plan, Projection, SpanPlan
from fastlstm.kernels.simd import REGISTERS

if TYPE_CHECKING:
    from collections.abc import Sequence

ACTIVATION = {"linear": LINEAR, "relu": RELU, "tanh": TANH, "sigmoid": SIGMOID, "softmax": SOFTMAX}
# Weights that come from the third level of cache are asked for 2 KiB ahead of their use; nearer
# ones come no sooner for it (docs/kernels.md). Not so a GRU's, whose rows are three vectors.
PREFETCH_ABOVE, PREFETCH_AHEAD = 512 * 1024, 512  # float32
# A layer of at least this many inputs takes its input half for a span of time steps at once; with
# fewer, the detour through memory costs more than it saves.
SPAN_INPUTS = 8
# Up to here a network runs step by step: all weights stay in the first level of cache, and the
# processor overlaps the end of one step, such as a Dense, with the beginning of the next.
SPAN_ABOVE = 12 * 1024  # float32
# A span's buffers should stay in the first level of cache beside the weights of a small layer, and
# a span is long enough to be worth its beginning. Every length is a multiple of every tile.
SPAN_STEP, SPAN_UP_TO, SPAN_FLOATS = 48, 96, 8 * 1024
# From the third level of cache weights come so slowly that more time steps should share them.
WIDE_TILE_ABOVE = 192  # inputs


class Packed(NamedTuple):
    """A plan with the weights in its layout and the memory of a stream that has seen nothing."""

    plan: Plan
    weights: Array
    memory: Array


def pack(specs: Sequence[Spec]) -> Packed:
    """Lay out a chain of layers for the kernels of this CPU."""
    weights = _Weights()
    memory = _Room()
    initial: dict[int, Array] = {}
    layers = []
    memory.take(specs[0].inputs)
    sources = [(0, 0)]
    spans = _Spans(specs)
    for k, (spec, span) in enumerate(zip(specs, spans.plans, strict=True)):
        shape = shape_of(spec)
        block = blocks_of(spec)
        first_weight = weights.add(block)
        projection = None
        if "weight_hr_l0" in spec.arrays:
            dense = as_dense(spec)
            projection = Projection(*shape_of(dense), weights.add(blocks_of(dense)))
        first = memory.take(row_size(spec))
        # One block reads all of the old h before it writes the new one, and so do two products in
        # a row; otherwise the new h would overwrite what the next block still reads.
        alone = shape.parts == 1 or projection is not None or spec.reset_before
        second = memory.take(row_size(spec)) if spec.initial and not alone else first
        units = padded(shape.width * shape.parts)
        cell = 0
        if spec.kind in ("LSTM", "Difference"):
            cell = memory.take(units if spec.kind == "LSTM" else row_size(spec))
        kept = 0
        if projection is not None or spec.reset_before:
            kept = memory.take(3 * units if spec.reset_before else units)
        places = (cell,) if spec.kind == "Difference" else (first, cell)
        for place, vector in zip(places, spec.initial, strict=False):
            initial[place] = vector
        layers.append(
            LayerPlan(
                spec.kind,
                spec.inputs,
                spec.outputs,
                spec.hidden,
                *shape,
                PREFETCH_AHEAD if block.size > PREFETCH_ABOVE and spec.kind != "GRU" else 0,
                ACTIVATION[spec.activation],
                first_weight,
                sources[k],
                sources[k - spec.back],
                reading_of(spec),
                (second, first),
                cell,
                kept,
                is_dot(spec),
                "peephole_l0" in spec.arrays,
                spec.reset_before,
                projection,
                skip_of(spec, shape) + spec.inputs * shape.vectors * shape.width,
                skip_of(spec, shape),
                lanes_of(spec),
                span,
            )
        )
        sources.append((second, first))
    output = memory.take(specs[-1].outputs)
    packed = weights.joined()
    by_span = len(packed) > SPAN_ABOVE
    plan = Plan(
        tuple(layers),
        specs[0].inputs,
        specs[-1].outputs,
        len(packed),
        memory.size,
        output,
        spans.length if by_span else 0,
        spans.scratch_size if by_span else 0,
    )
    first_memory = aligned(memory.size)
    for place, vector in initial.items():
        first_memory[place : place + len(vector)] = vector
    return Packed(plan, packed, first_memory)


class _Room:
    """Offsets of buffers that lie one after the other, each on a cache line."""

    def __init__(self) -> None:
        self.size = 0

    def take(self, count: int) -> int:
        begin = self.size
        self.size += padded(count)
        return begin


class _Weights:
    """Blocks of weights that lie one after the other, each on a cache line."""

    def __init__(self) -> None:
        self.room = _Room()
        self.blocks: list[Array] = []

    def add(self, block: Array) -> int:
        self.blocks.append(np.pad(block.ravel(), (0, padded(block.size) - block.size)))
        return self.room.take(block.size)

    def joined(self) -> Array:
        packed = aligned(self.room.size)
        np.concatenate(self.blocks, out=packed)
        return packed


class _Spans:
    """How time steps pass from layer to layer by spans: buffers in turn, and one for sums."""

    def __init__(self, specs: Sequence[Spec]) -> None:
        rows = [row_size(spec) for spec in specs]
        halves = [_half_size(spec) for spec in specs]
        turns = _turns(specs)
        copied = padded(specs[0].inputs) if _reads_beyond(specs) else 0
        per_step = max(2, 1 + max(turns)) * max(rows) + max(halves) + copied
        length = SPAN_FLOATS // per_step // SPAN_STEP * SPAN_STEP
        self.length = min(max(length, SPAN_STEP), SPAN_UP_TO)
        room = _Room()
        buffers = [room.take(self.length * max(rows)) for _ in range(1 + max(turns))]
        sums = room.take(self.length * max(halves))
        first = room.take(self.length * copied) if copied else -1
        # Where what goes into each layer begins, and how far apart its rows are.
        sources = [(first, copied or specs[0].inputs)]
        self.plans = []
        for k, spec in enumerate(specs):
            result = buffers[turns[k]], rows[k]
            half = sums if halves[k] else -1
            tile = _tile(shape_of(spec).vectors, spec.inputs)
            self.plans.append(
                SpanPlan(*sources[k], *sources[k - spec.back], *result, half, halves[k], tile)
            )
            sources.append(result)
        self.scratch_size = room.size


def _turns(specs: Sequence[Spec]) -> list[int]:
    """The buffer that each layer writes to: the first whose rows nobody reads any more.

    Two in turn, were it not for the rows that wait for the end of a residual connection.
    """
    last_reader = list(range(1, len(specs) + 1))
    for k, spec in enumerate(specs):
        writer = k - spec.back - 1
        if spec.back and writer >= 0:
            last_reader[writer] = max(last_reader[writer], k)
    turns: list[int] = []
    needed_until: list[int] = []
    for k, reader in enumerate(last_reader):
        # A layer that reads a buffer cannot write to it: its rows may be longer.
        free = [n for n, until in enumerate(needed_until) if until < k]
        if not free:
            free = [len(needed_until)]
            needed_until.append(0)
        needed_until[free[0]] = reader
        turns.append(free[0])
    return turns


def _reads_beyond(specs: Sequence[Spec]) -> bool:
    """Whether a layer reads whole vectors of the network's input.

    A caller's rows may end where memory does.
    """
    return reads_vectors(specs[0]) or any(
        spec.back == k > 0 and reading_of(spec) == EACH for k, spec in enumerate(specs)
    )


def _half_size(spec: Spec) -> int:
    """Float32 of the input half of one step; 0 where it is not taken for a span at once."""
    if spec.kind not in ("LSTM", "GRU", "RNN") or spec.inputs < SPAN_INPUTS:
        return 0
    shape = shape_of(spec)
    return shape.width * shape.vectors * shape.parts


def _tile(vectors: int, inputs: int) -> int:
    """Time steps whose sums fit the registers beside one row of weights and a broadcast."""
    registers = 10 if REGISTERS == 16 else 16 if inputs <= WIDE_TILE_ABOVE else 24
    fit = registers // vectors
    return max(n for n in (1, 2, 3, 4, 6, 8) if n <= fit)


def aligned(size: int, offset: int = 0) -> Array:
    """Zeros of float32 whose element number `offset` begins on a 64-byte boundary."""
    raw = np.zeros(size + ALIGNMENT, np.float32)
    skip = -(raw.ctypes.data // 4 + offset) % ALIGNMENT
    return raw[skip : skip + size]

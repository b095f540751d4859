"""PyTorch-ordered weights into the kernels' blocked layout, and the plan of a stream's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.kernels.dense import LINEAR, RELU, SIGMOID, SOFTMAX, TANH
from fastlstm.kernels.plan import LayerPlan, Plan, Projection, SpanPlan
from fastlstm.kernels.simd import NATIVE_WIDTH, REGISTERS

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = NDArray[np.float32]

ALIGNMENT = 16  # float32 in 64 bytes: a cache line, and the widest vector
ACTIVATION = {"linear": LINEAR, "relu": RELU, "tanh": TANH, "sigmoid": SIGMOID, "softmax": SOFTMAX}
# A Dense of up to this many outputs is a dot product each.
DOT_OUTPUTS = 4
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
# Four accumulators of each vector hide the adder's latency; beyond these sizes two are as fast or
# faster, and they are all that 16 registers hold beside the gates (docs/kernels.md).
FOUR_SETS_UP_TO = {"LSTM": 1 << 30, "GRU": 1 << 30, "RNN": 48, "Dense": 48, "Projection": 48}


class Spec(NamedTuple):
    """One layer as the kernels need it: arrays under PyTorch's names, absent biases as zeros.

    An LSTM has a projection or peepholes where their arrays are there.
    """

    kind: str
    inputs: int
    outputs: int
    arrays: dict[str, Array]
    activation: str = "linear"
    initial: tuple[Array, ...] = ()
    reset_before: bool = False  # a GRU's reset gate acts before the matrix product

    @property
    def hidden(self) -> int:
        """Units of a recurrent layer: its outputs, unless a projection comes between."""
        projection = self.arrays.get("weight_hr_l0")
        return self.outputs if projection is None else projection.shape[1]


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
    source = (0, 0)
    spans = _Spans(specs)
    for spec, span in zip(specs, spans.plans, strict=True):
        shape = _shape(spec)
        block = _PACKERS[spec.kind](spec, shape)
        first_weight = weights.add(block)
        projection = None
        if "weight_hr_l0" in spec.arrays:
            second = _shape(_as_dense(spec))
            projection = Projection(*second, weights.add(_dense(_as_dense(spec), second)))
        first = memory.take(_row_size(spec))
        # One block reads all of the old h before it writes the new one, and so do two products in
        # a row; otherwise the new h would overwrite what the next block still reads.
        alone = shape.parts == 1 or projection is not None or spec.reset_before
        second_place = memory.take(_row_size(spec)) if spec.initial and not alone else first
        units = _padded(shape.width * shape.parts)
        cell = memory.take(units) if spec.kind == "LSTM" else 0
        kept = 0
        if projection is not None or spec.reset_before:
            kept = memory.take(3 * units if spec.reset_before else units)
        for place, vector in zip((first, cell), spec.initial, strict=False):
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
                source,
                (second_place, first),
                cell,
                kept,
                _is_dot(spec),
                "peephole_l0" in spec.arrays,
                spec.reset_before,
                projection,
                _skip(spec, shape) + spec.inputs * shape.vectors * shape.width,
                _skip(spec, shape),
                span,
            )
        )
        source = (second_place, first)
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
        self.size += _padded(count)
        return begin


class _Weights:
    """Blocks of weights that lie one after the other, each on a cache line."""

    def __init__(self) -> None:
        self.room = _Room()
        self.blocks: list[Array] = []

    def add(self, block: Array) -> int:
        self.blocks.append(np.pad(block.ravel(), (0, _padded(block.size) - block.size)))
        return self.room.take(block.size)

    def joined(self) -> Array:
        packed = aligned(self.room.size)
        np.concatenate(self.blocks, out=packed)
        return packed


class _Spans:
    """How time steps pass from layer to layer by spans: two buffers in turn, and one for sums."""

    def __init__(self, specs: Sequence[Spec]) -> None:
        rows = [_row_size(spec) for spec in specs]
        halves = [_half_size(spec) for spec in specs]
        # These read whole vectors of their input, and a caller's rows may end where memory does.
        copied = _padded(specs[0].inputs) if _reads_vectors(specs[0]) else 0
        per_step = 2 * max(rows) + max(halves) + copied
        length = SPAN_FLOATS // per_step // SPAN_STEP * SPAN_STEP
        self.length = min(max(length, SPAN_STEP), SPAN_UP_TO)
        room = _Room()
        buffers = [room.take(self.length * max(rows)) for _ in range(2)]
        sums = room.take(self.length * max(halves))
        source = room.take(self.length * copied) if copied else -1
        size = copied or specs[0].inputs
        self.plans = []
        for k, spec in enumerate(specs):
            result = buffers[k % 2]
            half = sums if halves[k] else -1
            tile = _tile(_shape(spec).vectors, spec.inputs)
            self.plans.append(SpanPlan(source, size, result, rows[k], half, halves[k], tile))
            source, size = result, rows[k]
        self.scratch_size = room.size


def _row_size(spec: Spec) -> int:
    """Float32 of one output of the layer, padding included."""
    if "weight_hr_l0" in spec.arrays:
        spec = _as_dense(spec)
    shape = _shape(spec)
    return _padded(shape.width * shape.parts * _blocks_of(spec, shape))


def _half_size(spec: Spec) -> int:
    """Float32 of the input half of one step; 0 where it is not taken for a span at once."""
    if spec.kind not in ("LSTM", "GRU", "RNN") or spec.inputs < SPAN_INPUTS:
        return 0
    shape = _shape(spec)
    return shape.width * shape.vectors * shape.parts


def _tile(vectors: int, inputs: int) -> int:
    """Time steps whose sums fit the registers beside one row of weights and a broadcast."""
    registers = 10 if REGISTERS == 16 else 16 if inputs <= WIDE_TILE_ABOVE else 24
    fit = registers // vectors
    return max(n for n in (1, 2, 3, 4, 6, 8) if n <= fit)


def _as_dense(spec: Spec) -> Spec:
    """An LSTM's projection as the layer that it is: rows of outputs, without bias."""
    arrays = {
        "weight": spec.arrays["weight_hr_l0"],
        "bias": np.zeros(spec.outputs, np.float32),
    }
    return Spec("Projection", spec.hidden, spec.outputs, arrays)


def _reads_vectors(spec: Spec) -> bool:
    return spec.kind == "Affine" or _is_dot(spec)


def _skip(spec: Spec, shape: _Shape) -> int:
    """Float32 from a part's bias row to its input rows."""
    row = shape.vectors * shape.width
    if "peephole_l0" in spec.arrays:
        return row + 3 * shape.width
    if spec.kind == "GRU" and not spec.reset_before:
        return row + shape.width
    return row


def aligned(size: int, offset: int = 0) -> Array:
    """Zeros of float32 whose element number `offset` begins on a 64-byte boundary."""
    raw = np.zeros(size + ALIGNMENT, np.float32)
    skip = -(raw.ctypes.data // 4 + offset) % ALIGNMENT
    return raw[skip : skip + size]


class _Shape(NamedTuple):
    width: int
    vectors: int
    sets: int
    parts: int


_GATES = {"LSTM": 4, "GRU": 3}


def _shape(spec: Spec) -> _Shape:
    units = spec.hidden
    width = min(NATIVE_WIDTH, max(4, 1 << (units - 1).bit_length()))
    blocks = -(-units // width)
    if _is_dot(spec):
        # As wide as what wrote its input: a load wider than the store before it has to wait for it.
        width = min(NATIVE_WIDTH, max(4, 1 << (spec.inputs - 1).bit_length()))
        return _Shape(width, 1, 1, 1)
    if spec.kind == "Affine":
        return _Shape(NATIVE_WIDTH, 1, 1, 1)
    if spec.kind in _GATES:
        vectors, parts = _GATES[spec.kind], blocks
    else:
        # As many blocks share a broadcast as can without adding idle ones.
        vectors = min(range(1, min(4, blocks) + 1), key=lambda v: (-(-blocks // v) * v, -v))
        parts = -(-blocks // vectors)
    sets = 4 if REGISTERS == 32 and units <= FOUR_SETS_UP_TO[spec.kind] else 2
    return _Shape(width, vectors, sets, parts)


def _is_dot(spec: Spec) -> bool:
    return spec.kind == "Dense" and spec.outputs <= DOT_OUTPUTS


def _blocks_of(spec: Spec, shape: _Shape) -> int:
    if _reads_vectors(spec):
        return -(-spec.outputs // shape.width)
    return 1 if spec.kind in _GATES else shape.vectors


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _blocked(rows: Array, gates: int, shape: _Shape) -> Array:
    """(gates * units, columns) -> (parts, columns, gates, width), padded with zero units."""
    units, columns = len(rows) // gates, rows.shape[1]
    padded = np.zeros((gates, shape.parts * shape.width, columns), np.float32)
    padded[:, :units] = rows.reshape(gates, units, columns)
    return padded.reshape(gates, shape.parts, shape.width, columns).transpose(1, 3, 0, 2)


def _grouped(rows: Array, shape: _Shape) -> Array:
    """(units, columns) -> (groups, columns, vectors, width), padded with zero units."""
    padded = np.zeros((shape.parts * shape.vectors * shape.width, rows.shape[1]), np.float32)
    padded[: len(rows)] = rows
    grouped = padded.reshape(shape.parts, shape.vectors, shape.width, rows.shape[1])
    return grouped.transpose(0, 3, 1, 2)


def _column(bias: Array) -> Array:
    return bias[:, np.newaxis]


def _lstm(spec: Spec, shape: _Shape) -> Array:
    a = spec.arrays
    above = [_blocked(_column(a["bias_ih_l0"] + a["bias_hh_l0"]), 4, shape)]
    if "peephole_l0" in a:
        above.append(_blocked(_column(a["peephole_l0"]), 3, shape))
    above.append(_blocked(a["weight_ih_l0"], 4, shape))
    return _in_two(above, [_blocked(a["weight_hh_l0"], 4, shape)], shape)


def _gru(spec: Spec, shape: _Shape) -> Array:
    a, hidden = spec.arrays, spec.outputs
    bias = a["bias_ih_l0"].copy()
    w_x, w_h = _blocked(a["weight_ih_l0"], 3, shape), a["weight_hh_l0"]
    if spec.reset_before:
        bias += a["bias_hh_l0"]
        below = [_blocked(w_h[: 2 * hidden], 2, shape), _blocked(w_h[2 * hidden :], 1, shape)]
        return _in_two([_blocked(_column(bias), 3, shape), w_x], below, shape)
    bias[: 2 * hidden] += a["bias_hh_l0"][: 2 * hidden]
    # The hidden half of n has a bias of its own, because the reset gate multiplies it.
    n_bias = _blocked(_column(a["bias_hh_l0"][2 * hidden :]), 1, shape)
    above = [_blocked(_column(bias), 3, shape), n_bias, w_x]
    return _in_two(above, [_blocked(w_h, 3, shape)], shape)


def _in_two(above: Sequence[Array], below: Sequence[Array], shape: _Shape) -> Array:
    """The parts' biases and input rows, and after all of them their hidden rows.

    A step of a span reads the latter alone, and reads them a tenth to a fifth faster where they
    lie together.
    """
    return np.concatenate([_by_part(blocked, shape).ravel() for blocked in (above, below)])


def _by_part(blocked: Sequence[Array], shape: _Shape) -> Array:
    """Blocked arrays side by side in each part."""
    return np.concatenate([array.reshape(shape.parts, -1) for array in blocked], axis=1)


def _rnn(spec: Spec, shape: _Shape) -> Array:
    a = spec.arrays
    above = np.concatenate([_column(a["bias_ih_l0"] + a["bias_hh_l0"]), a["weight_ih_l0"]], axis=1)
    return _in_two([_grouped(above, shape)], [_grouped(a["weight_hh_l0"], shape)], shape)


def _dense(spec: Spec, shape: _Shape) -> Array:
    weight, bias = spec.arrays["weight"], spec.arrays["bias"]
    if not _is_dot(spec):
        return _grouped(np.concatenate([_column(bias), weight], axis=1), shape)
    rows = np.zeros((spec.outputs, _padded(spec.inputs)), np.float32)
    rows[:, : spec.inputs] = weight
    return np.concatenate([rows.ravel(), bias])


def _affine(spec: Spec, shape: _Shape) -> Array:
    rows = np.zeros((2, _padded(spec.inputs)), np.float32)
    rows[0, : spec.inputs] = spec.arrays["scale"]
    rows[1, : spec.inputs] = spec.arrays["shift"]
    return rows


_PACKERS: dict[str, Any] = {
    "LSTM": _lstm,
    "GRU": _gru,
    "RNN": _rnn,
    "Dense": _dense,
    "Affine": _affine,
}

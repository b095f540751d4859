"""PyTorch-ordered weights into the kernels' blocked layout, and the plan of a stream's memory.

A plan holds sizes and offsets alone, so models of one architecture share one compiled program.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.kernels.dense import LINEAR, RELU, SIGMOID, SOFTMAX, TANH
from fastlstm.kernels.simd import NATIVE_WIDTH, REGISTERS

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = NDArray[np.float32]

ALIGNMENT = 16  # float32 in 64 bytes: a cache line, and the widest vector
ACTIVATION = {"linear": LINEAR, "relu": RELU, "tanh": TANH, "sigmoid": SIGMOID, "softmax": SOFTMAX}
# A Dense of up to this many outputs is a dot product each.
DOT_OUTPUTS = 4
# Weights that do not fit the first level of cache are asked for 2 KiB ahead of their use: the
# processor's own prefetching leaves a fifth to a third of the second level's bandwidth unused.
# Not so for a GRU, whose rows are three vectors: there it costs 5 % (docs/kernels.md).
PREFETCH_ABOVE, PREFETCH_AHEAD = 18 * 1024, 512  # float32
# Four accumulators of each vector hide the adder's latency; beyond these sizes two are as fast or
# faster, and they are all that 16 registers hold beside the gates (docs/kernels.md).
FOUR_SETS_UP_TO = {"LSTM": 1 << 30, "GRU": 64, "RNN": 48, "Dense": 48}


class Spec(NamedTuple):
    """One layer as the kernels need it: arrays under PyTorch's names, absent biases as zeros."""

    kind: str
    inputs: int
    outputs: int
    arrays: dict[str, Array]
    activation: str = "linear"
    initial: tuple[Array, ...] = ()


@dataclass(frozen=True)
class LayerPlan:
    """Sizes and offsets of one layer; offsets count float32, in the weights or the memory."""

    kind: str
    inputs: int
    outputs: int
    width: int  # lanes of a block
    vectors: int  # vectors a row: gates of a block, or blocks of a group
    sets: int  # independent accumulators of each
    parts: int  # blocks, or groups
    ahead: int  # how far ahead of the reading weights are prefetched, 0 for not at all
    activation: int
    weights: int  # where its weights begin
    source: tuple[int, int]  # where its input lies after an even and after an odd step
    result: tuple[int, int]  # where its output goes in an even and in an odd step
    cell: int  # where c lies, LSTM only
    dot: bool  # a Dense of so few outputs that each is a dot product


@dataclass(frozen=True)
class Plan:
    """A whole network: what network.py compiles, and what a cached program is known by."""

    layers: tuple[LayerPlan, ...]
    inputs: int
    outputs: int
    weights_size: int
    memory_size: int
    output: int  # offset of the buffer that `Stream.output` shows


class Packed(NamedTuple):
    """A plan with the weights in its layout and the memory of a stream that has seen nothing."""

    plan: Plan
    weights: Array
    memory: Array


def pack(specs: Sequence[Spec]) -> Packed:
    """Lay out a chain of layers for the kernels of this CPU."""
    weights: list[Array] = []
    initial: dict[int, Array] = {}
    layers = []
    used = _padded(specs[0].inputs)
    source = (0, 0)
    for spec in specs:
        shape = _shape(spec)
        block = _PACKERS[spec.kind](spec, shape)
        size = _padded(shape.width * shape.parts * _blocks_of(spec, shape))
        first, used = used, used + size
        second = first
        # One block reads all of the old h before it writes the new one, so it needs no second
        # buffer; more blocks would overwrite what the next one still reads.
        if spec.initial and shape.parts > 1:
            second, used = used, used + size
        cell = 0
        if spec.kind == "LSTM":
            cell, used = used, used + size
        for place, vector in zip((first, cell), spec.initial, strict=False):
            initial[place] = vector
        layers.append(
            LayerPlan(
                spec.kind,
                spec.inputs,
                spec.outputs,
                *shape,
                PREFETCH_AHEAD if block.size > PREFETCH_ABOVE and spec.kind != "GRU" else 0,
                ACTIVATION[spec.activation],
                sum(map(len, weights)),
                source,
                (second, first),
                cell,
                _is_dot(spec),
            )
        )
        source = (second, first)
        weights.append(_to_cache_lines(block))
    output, used = used, used + _padded(specs[-1].outputs)
    memory = aligned(used)
    for place, vector in initial.items():
        memory[place : place + len(vector)] = vector
    packed = aligned(sum(map(len, weights)))
    np.concatenate(weights, out=packed)
    plan = Plan(tuple(layers), specs[0].inputs, specs[-1].outputs, len(packed), len(memory), output)
    return Packed(plan, packed, memory)


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
    width = min(NATIVE_WIDTH, max(4, 1 << (spec.outputs - 1).bit_length()))
    blocks = -(-spec.outputs // width)
    if spec.kind == "Affine" or _is_dot(spec):
        # These read their input by whole vectors, and every buffer is padded to a cache line.
        return _Shape(NATIVE_WIDTH, 1, 1, 1)
    if spec.kind in _GATES:
        vectors, parts = _GATES[spec.kind], blocks
    else:
        # As many blocks share a broadcast as can without adding idle ones.
        vectors = min(range(1, min(4, blocks) + 1), key=lambda v: (-(-blocks // v) * v, -v))
        parts = -(-blocks // vectors)
    sets = 4 if REGISTERS == 32 and spec.outputs <= FOUR_SETS_UP_TO[spec.kind] else 2
    return _Shape(width, vectors, sets, parts)


def _is_dot(spec: Spec) -> bool:
    return spec.kind == "Dense" and spec.outputs <= DOT_OUTPUTS


def _blocks_of(spec: Spec, shape: _Shape) -> int:
    if spec.kind == "Affine" or _is_dot(spec):
        return -(-spec.outputs // shape.width)
    return 1 if spec.kind in _GATES else shape.vectors


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _to_cache_lines(block: Array) -> Array:
    return np.pad(block.ravel(), (0, _padded(block.size) - block.size))


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
    rows = [_column(a["bias_ih_l0"] + a["bias_hh_l0"]), a["weight_ih_l0"], a["weight_hh_l0"]]
    return _blocked(np.concatenate(rows, axis=1), 4, shape)


def _gru(spec: Spec, shape: _Shape) -> Array:
    a, hidden = spec.arrays, spec.outputs
    bias = a["bias_ih_l0"].copy()
    bias[: 2 * hidden] += a["bias_hh_l0"][: 2 * hidden]
    # The hidden half of n has a bias of its own, because the reset gate multiplies it.
    n_bias = _blocked(_column(a["bias_hh_l0"][2 * hidden :]), 1, shape)
    products = _blocked(np.concatenate([a["weight_ih_l0"], a["weight_hh_l0"]], axis=1), 3, shape)
    parts = [_blocked(_column(bias), 3, shape), n_bias, products]
    return np.concatenate([part.reshape(shape.parts, -1) for part in parts], axis=1)


def _rnn(spec: Spec, shape: _Shape) -> Array:
    a = spec.arrays
    rows = [_column(a["bias_ih_l0"] + a["bias_hh_l0"]), a["weight_ih_l0"], a["weight_hh_l0"]]
    return _grouped(np.concatenate(rows, axis=1), shape)


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

"""PyTorch-ordered weights into the blocks that the kernels stream, and the shape of the blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.kernels.elementwise import EACH, ONE, PICKED
from fastlstm.kernels.simd import NATIVE_WIDTH, REGISTERS

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = NDArray[np.float32]

ALIGNMENT = 16  # float32 in 64 bytes: a cache line, and the widest vector
# A Dense of up to this many outputs is a dot product each.
DOT_OUTPUTS = 4
# Four accumulators of each vector hide the adder's latency; beyond these sizes two are as fast or
# faster, and they are all that 16 registers hold beside the gates (docs/kernels.md).
FOUR_SETS_UP_TO = {"LSTM": 1 << 30, "GRU": 1 << 30, "RNN": 48, "Dense": 48, "Projection": 48}
# One value out for each value in, in one pass over whole vectors or a few.
ELEMENTWISE = ("Affine", "LayerNorm", "Difference", "Residual")
_GATES = {"LSTM": 4, "GRU": 3}


class Spec(NamedTuple):
    """One layer as the kernels need it: arrays under PyTorch's names, absent biases as zeros.

    An LSTM has a projection or peepholes where their arrays are there. A LayerNorm's eps is an
    array of one value, and so are a Residual's columns, the bits of int32: as weights, they leave
    the plan alone, so that models that differ in nothing else share one program.
    """

    kind: str
    inputs: int
    outputs: int
    arrays: dict[str, Array]
    activation: str = "linear"
    initial: tuple[Array, ...] = ()
    reset_before: bool = False  # a GRU's reset gate acts before the matrix product
    back: int = 0  # a Residual adds what went into the layer this many before

    @property
    def hidden(self) -> int:
        """Units of a recurrent layer: its outputs, unless a projection comes between."""
        projection = self.arrays.get("weight_hr_l0")
        return self.outputs if projection is None else projection.shape[1]


class Shape(NamedTuple):
    """How a layer's units are cut into vectors; see LayerPlan."""

    width: int
    vectors: int
    sets: int
    parts: int


def shape_of(spec: Spec) -> Shape:
    """The blocks of one layer for the registers of this CPU."""
    # As wide as what wrote its input: a load wider than the store before it has to wait for it,
    # and would read lanes that nothing has written.
    if is_dot(spec):
        return Shape(_width(spec.inputs), 1, 1, 1)
    units = spec.hidden
    width = _width(units)
    if spec.kind in ELEMENTWISE:
        return Shape(width, 1, 1, 1)
    blocks = -(-units // width)
    if spec.kind in _GATES:
        vectors, parts = _GATES[spec.kind], blocks
    else:
        # As many blocks share a broadcast as can without adding idle ones.
        vectors = min(range(1, min(4, blocks) + 1), key=lambda v: (-(-blocks // v) * v, -v))
        parts = -(-blocks // vectors)
    sets = 4 if REGISTERS == 32 and units <= FOUR_SETS_UP_TO[spec.kind] else 2
    return Shape(width, vectors, sets, parts)


def _width(units: int) -> int:
    return min(NATIVE_WIDTH, max(4, 1 << (units - 1).bit_length()))


def is_dot(spec: Spec) -> bool:
    """Whether it is a Dense of so few outputs that each is a dot product."""
    return spec.kind == "Dense" and spec.outputs <= DOT_OUTPUTS


def reads_vectors(spec: Spec) -> bool:
    """Whether it reads its input in whole vectors; all others take one value after the other."""
    return spec.kind in ELEMENTWISE or is_dot(spec)


def lanes_of(spec: Spec) -> int:
    """Float32 that a layer of whole vectors reads of its input, those beyond it included."""
    return up_to(spec.inputs, shape_of(spec).width)


def row_size(spec: Spec) -> int:
    """Float32 of one output of the layer, padding included."""
    if "weight_hr_l0" in spec.arrays:
        spec = as_dense(spec)
    if reads_vectors(spec):
        return padded(max(spec.outputs, shape_of(spec).width))
    shape = shape_of(spec)
    return padded(shape.width * shape.parts * (1 if spec.kind in _GATES else shape.vectors))


def as_dense(spec: Spec) -> Spec:
    """An LSTM's projection as the layer that it is: rows of outputs, without bias."""
    arrays = {
        "weight": spec.arrays["weight_hr_l0"],
        "bias": np.zeros(spec.outputs, np.float32),
    }
    return Spec("Projection", spec.hidden, spec.outputs, arrays)


def reading_of(spec: Spec) -> int:
    """How a Residual finds the values that it adds; 0 for any other layer."""
    if spec.kind != "Residual":
        return 0
    columns = spec.arrays["columns"].view(np.int32)
    if np.array_equal(columns, np.arange(len(columns))):
        return EACH
    return ONE if (columns == columns[0]).all() else PICKED


def skip_of(spec: Spec, shape: Shape) -> int:
    """Float32 from a part's bias row to its input rows."""
    row = shape.vectors * shape.width
    if "peephole_l0" in spec.arrays:
        return row + 3 * shape.width
    if spec.kind == "GRU" and not spec.reset_before:
        return row + shape.width
    return row


def up_to(size: int, step: int) -> int:
    """`size`, or the next multiple of `step` above it."""
    return -(-size // step) * step


def padded(size: int) -> int:
    """`size` float32 and what is left of their last cache line."""
    return up_to(size, ALIGNMENT)


def blocks_of(spec: Spec) -> Array:
    """All weights of one layer in the order in which its kernel reads them."""
    block: Array = _PACKERS[spec.kind](spec, shape_of(spec))
    return block


def _blocked(rows: Array, gates: int, shape: Shape) -> Array:
    """(gates * units, columns) -> (parts, columns, gates, width), padded with zero units."""
    units, columns = len(rows) // gates, rows.shape[1]
    whole = np.zeros((gates, shape.parts * shape.width, columns), np.float32)
    whole[:, :units] = rows.reshape(gates, units, columns)
    return whole.reshape(gates, shape.parts, shape.width, columns).transpose(1, 3, 0, 2)


def _grouped(rows: Array, shape: Shape) -> Array:
    """(units, columns) -> (groups, columns, vectors, width), padded with zero units."""
    whole = np.zeros((shape.parts * shape.vectors * shape.width, rows.shape[1]), np.float32)
    whole[: len(rows)] = rows
    grouped = whole.reshape(shape.parts, shape.vectors, shape.width, rows.shape[1])
    return grouped.transpose(0, 3, 1, 2)


def _column(bias: Array) -> Array:
    return bias[:, np.newaxis]


def _lstm(spec: Spec, shape: Shape) -> Array:
    a = spec.arrays
    above = [_blocked(_column(a["bias_ih_l0"] + a["bias_hh_l0"]), 4, shape)]
    if "peephole_l0" in a:
        above.append(_blocked(_column(a["peephole_l0"]), 3, shape))
    above.append(_blocked(a["weight_ih_l0"], 4, shape))
    return _in_two(above, [_blocked(a["weight_hh_l0"], 4, shape)], shape)


def _gru(spec: Spec, shape: Shape) -> Array:
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


def _in_two(above: Sequence[Array], below: Sequence[Array], shape: Shape) -> Array:
    """The parts' biases and input rows, and after all of them their hidden rows.

    A step of a span reads the latter alone, and reads them a tenth to a fifth faster where they
    lie together.
    """
    return np.concatenate([_by_part(blocked, shape).ravel() for blocked in (above, below)])


def _by_part(blocked: Sequence[Array], shape: Shape) -> Array:
    """Blocked arrays side by side in each part."""
    return np.concatenate([array.reshape(shape.parts, -1) for array in blocked], axis=1)


def _rnn(spec: Spec, shape: Shape) -> Array:
    a = spec.arrays
    above = np.concatenate([_column(a["bias_ih_l0"] + a["bias_hh_l0"]), a["weight_ih_l0"]], axis=1)
    return _in_two([_grouped(above, shape)], [_grouped(a["weight_hh_l0"], shape)], shape)


def _dense(spec: Spec, shape: Shape) -> Array:
    weight, bias = spec.arrays["weight"], spec.arrays["bias"]
    if not is_dot(spec):
        return _grouped(np.concatenate([_column(bias), weight], axis=1), shape)
    return np.concatenate([_vectors(weight, spec), bias])


def _affine(spec: Spec, shape: Shape) -> Array:
    return _vectors(np.stack([spec.arrays["scale"], spec.arrays["shift"]]), spec)


def _layer_norm(spec: Spec, shape: Shape) -> Array:
    rows = np.stack([spec.arrays["weight"], spec.arrays["bias"]])
    return np.concatenate([_vectors(rows, spec), spec.arrays["eps"]])


def _difference(spec: Spec, shape: Shape) -> Array:
    return np.zeros(0, np.float32)


def _residual(spec: Spec, shape: Shape) -> Array:
    columns = spec.arrays["columns"]
    return columns[: {EACH: 0, ONE: 1}.get(reading_of(spec), len(columns))]


def _vectors(rows: Array, spec: Spec) -> Array:
    """Rows as long as the input, one after the other, each filled up with zeros."""
    beyond = lanes_of(spec) - spec.inputs
    return np.pad(rows, ((0, 0), (0, beyond))).ravel()


_PACKERS: dict[str, Any] = {
    "LSTM": _lstm,
    "GRU": _gru,
    "RNN": _rnn,
    "Dense": _dense,
    "Projection": _dense,
    "Affine": _affine,
    "LayerNorm": _layer_norm,
    "Difference": _difference,
    "Residual": _residual,
}

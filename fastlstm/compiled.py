"""What all streams of one Model share: machine code, packed weights, their first memory."""

from __future__ import annotations

import ctypes
import hashlib
import threading
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from fastlstm.kernels import calls
from fastlstm.kernels.blocks import Spec
from fastlstm.kernels.network import compile_network
from fastlstm.kernels.packing import aligned, pack
from fastlstm.model import (
    Affine,
    Array,
    Bidirectional,
    Dense,
    Difference,
    Layer,
    LayerNorm,
    Model,
    Residual,
)

if TYPE_CHECKING:
    from fastlstm.kernels.plan import Plan

HEADER_FLOATS = calls.HEADER_BYTES // 4


class Compiled:
    """What all streams of one Model share: machine code, packed weights, the first memory."""

    def __init__(self, model: Model) -> None:
        packed = pack([spec_of(model, k, layer) for k, layer in enumerate(model.layers)])
        self.plan = packed.plan
        self.weights = packed.weights
        self.initial = aligned(HEADER_FLOATS + len(packed.memory))
        self.initial[HEADER_FLOATS:] = packed.memory
        header = self.initial[:HEADER_FLOATS].view(np.int64)
        self.calls = calls.compiled_calls()
        self.network = _network(packed.plan)
        for word, value in (
            (calls.NETWORK, self.network.step.address),
            (calls.NETWORK_RUN, self.network.run.address),
            (calls.WEIGHTS, self.weights.ctypes.data),
            (calls.INPUTS, packed.plan.inputs),
            (calls.OUTPUTS, packed.plan.outputs),
            (calls.OUTPUT, packed.plan.output),
            (calls.ARRAY_TYPE, id(np.ndarray)),
            (calls.FLOAT_TYPE, id(float)),
            (calls.FLOAT32, _float32_word()),
        ):
            header[word // 8] = value
        self.digest = digest_of(model)
        self._scratches: list[Array] = []
        # Where the state vectors lie after an even and after an odd number of steps, as slices.
        self.states = tuple(
            (
                _state_place(packed.plan, s.layer, s.name, 1, s.size),
                _state_place(packed.plan, s.layer, s.name, 0, s.size),
            )
            for s in model.states
        )

    def take_scratch(self) -> Array:
        """The room that one `run` needs, to be given back for the next one.

        There are as many as threads were in `run` at once; a stream has none of its own, because
        most live streams only see single steps.
        """
        try:
            return self._scratches.pop()
        except IndexError:
            return aligned(self.plan.scratch_size)

    def give_scratch(self, scratch: Array) -> None:
        """Give back what take_scratch gave."""
        self._scratches.append(scratch)


_lock = threading.Lock()
_models: WeakKeyDictionary[Model, Compiled] = WeakKeyDictionary()


def compiled(model: Model) -> Compiled:
    # One thread compiles at a time: Numba's dispatchers are shared by all.
    with _lock:
        if model not in _models:
            _models[model] = Compiled(model)
        return _models[model]


@cache
def _network(plan: Plan) -> Any:
    return compile_network(plan)


def spec_of(model: Model, position: int, layer: Layer) -> Spec:
    initial = tuple(s.initial for s in model.states if s.layer == position)
    arrays = dict(layer.arrays)
    sizes = (layer.input_size, layer.output_size)
    if isinstance(layer, Dense):
        arrays.setdefault("bias", np.zeros(layer.output_size, np.float32))
        return Spec("Dense", *sizes, arrays, layer.activation)
    if isinstance(layer, Affine):
        return Spec("Affine", *sizes, arrays)
    if isinstance(layer, LayerNorm):
        arrays.setdefault("bias", np.zeros(layer.output_size, np.float32))
        arrays["eps"] = np.array([layer.eps], np.float32)
        return Spec("LayerNorm", *sizes, arrays)
    if isinstance(layer, Difference):
        return Spec("Difference", *sizes, arrays, initial=initial)
    if isinstance(layer, Residual):
        columns = np.array(layer.columns, np.int32).view(np.float32)
        return Spec("Residual", *sizes, {"columns": columns}, back=layer.back)
    assert not isinstance(layer, Bidirectional), "sequence.py cuts a model at these"
    zeros = np.zeros(len(layer.weight_ih_l0), np.float32)
    arrays.setdefault("bias_ih_l0", zeros)
    arrays.setdefault("bias_hh_l0", zeros)
    options = layer.options
    nonlinearity = options.get("nonlinearity", "linear")
    before = options.get("reset") == "before"
    return Spec(layer.kind, *sizes, arrays, nonlinearity, initial, before)


def _state_place(plan: Plan, layer: int, name: str, parity: int, size: int) -> slice:
    where = plan.layers[layer]
    start = HEADER_FLOATS + (where.result[parity] if name == "h" else where.cell)
    return slice(start, start + size)


def digest_of(model: Model) -> bytes:
    """16 bytes that tell one model's weights and structure from another's, on any machine."""
    sha = hashlib.sha256()
    for layer in model.layers:
        sha.update(f"{layer!r} ".encode())
        for name, array in sorted(layer.arrays.items()):
            sha.update(f"{name} {array.shape} ".encode() + array.astype("<f4").tobytes())
    return sha.digest()[:16]


class CallsByAddress:
    """push, step and run for a Python build whose arrays the kernels cannot read themselves."""

    def __init__(self, code: Compiled) -> None:
        self._code = code

    def run(self, x: Any, memory: Array, y: Array, scratch: Array) -> int:
        inputs = self._code.plan.inputs
        if type(x) is not np.ndarray or x.dtype != np.float32 or x.shape[1:] != (inputs,):
            return calls.NOT_PLAIN
        if not np.isfinite(x).all():
            return calls.NOT_FINITE
        x = np.ascontiguousarray(x)
        addresses = (array.ctypes.data for array in (memory, x, y, scratch))
        base, source, target, room = addresses
        return self._code.calls.run_rows(base, source, inputs, target, len(x), room)

    def step(self, x: Any, memory: Array, y: Array) -> int:
        if type(x) is not np.ndarray or x.ndim != 1:
            return calls.NOT_PLAIN
        scratch = self._code.take_scratch()
        try:
            return self.run(x[np.newaxis], memory, y, scratch)
        finally:
            self._code.give_scratch(scratch)

    def push(self, x: Any, memory: Array) -> int:
        return self.step(x, memory, np.empty(self._code.plan.outputs, np.float32))


def _word(address: int) -> int:
    return ctypes.c_int64.from_address(address).value


def _float32_word() -> int:
    """What tells float32 from other dtypes; unpickled arrays have a dtype object of their own."""
    dtype = id(np.dtype(np.float32)) + calls.OBJECT_HEADER + calls.DTYPE_WORD
    return _word(dtype) & calls.DTYPE_MASK


@cache
def fields_are_known() -> bool:
    """Whether arrays and floats of this Python build lie in memory as the kernels read them."""
    array = np.zeros(3, np.float32)
    value = 1.5
    fields = id(array) + calls.OBJECT_HEADER

    return (
        _word(fields - 8) == id(np.ndarray)
        and _word(fields + calls.DATA) == array.ctypes.data
        and _word(fields + calls.NDIM) & 0xFFFFFFFF == 1
        and _word(_word(fields + calls.DIMENSIONS)) == 3
        and _word(_word(fields + calls.STRIDES)) == 4
        and _word(fields + calls.DTYPE) == id(np.dtype(np.float32))
        # The characters of its kind, type and byte order, and 11, the type number of float32.
        and _float32_word() == int.from_bytes(b"ff=", "little") | 11 << 32
        and _word(id(value) + calls.OBJECT_HEADER - 8) == id(float)
        and ctypes.c_double.from_address(id(value) + calls.OBJECT_HEADER).value == value
    )

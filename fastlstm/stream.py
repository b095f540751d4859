"""Stream: one live sequence through a Model, in the compiled kernels. No torch in sight.

The hot path is `push`: one call into machine code that checks the sample, steps and returns.
Whatever that call declines goes through `_accept`, which is slow and says what was wrong.
"""

from __future__ import annotations

import struct
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from fastlstm.compiled import HEADER_FLOATS, CallsByAddress, compiled, fields_are_known
from fastlstm.errors import InputError, ModelError, SnapshotError, StreamBusyError
from fastlstm.kernels import calls
from fastlstm.kernels.packing import aligned
from fastlstm.model import Array, Model

if TYPE_CHECKING:
    from collections.abc import Iterator

Sample: TypeAlias = ArrayLike

# Looked up once: through the module and the type a fresh array costs 40 ns more.
_empty: Final = np.empty
_FLOAT32: Final = np.dtype(np.float32)

_SNAPSHOT: Final = struct.Struct("<8s16sQ")
_MAGIC: Final = b"FLSTM\x00\x00\x01"


class Stream:
    """One live sequence: feed it samples, it carries the state.

    Not for two threads at a time (that raises StreamBusyError), but any number of streams share
    one Model. Compiling happens here, in the constructor, never later; the machine code is kept
    on disk for the next process. A process that forks makes its streams after the fork.
    """

    __slots__ = (
        "__weakref__",
        "_calls",
        "_code",
        "_header",
        "_memory",
        "_model",
        "_output_size",
        "_push",
        "_run",
        "_step",
        "output",
    )

    #: (output_size,) float32, read-only: the last output. One buffer, overwritten by each push.
    output: Array

    def __init__(self, model: Model) -> None:
        if not isinstance(model, Model):
            raise ModelError(f"Stream: expected a fastlstm Model, found {type(model).__name__}")
        if model.bidirectional:
            raise ModelError(
                "Stream: this model has a bidirectional layer, whose output at any step depends on "
                "all samples to come, so it cannot follow a live sequence: run whole sequences "
                "with Model.run"
            )
        self._model = model
        self._code = compiled(model)
        self._memory = aligned(len(self._code.initial))
        self._memory[:] = self._code.initial
        self._header = self._memory[:HEADER_FLOATS].view(np.int64)
        self._output_size = model.output_size
        start = HEADER_FLOATS + self._code.plan.output
        output = self._memory[start : start + self._output_size]
        self.output = np.frombuffer(output.data.toreadonly(), np.float32)
        self._calls = self._code.calls
        by = self._calls if fields_are_known() else CallsByAddress(self._code)
        self._push, self._step, self._run = by.push, by.step, by.run

    @property
    def model(self) -> Model:
        """The model this stream runs."""
        return self._model

    @property
    def steps(self) -> int:
        """Samples taken since the start or the last reset."""
        return int(self._header[calls.STEPS // 8])

    @property
    def state(self) -> tuple[Array, ...]:
        """Copies of the state vectors, (hidden_size,) float32, in the order of Model.states."""
        with self._claimed():
            return self._copy_state()

    def push(self, x: Sample) -> None:
        """Take one sample: (input_size,) float32, or a plain float where input_size is 1.

        The result is in `output`. Other numbers and layouts are converted, which is slower.
        Raises InputError, the state as it was, for a wrong size or type, NaN or infinity.
        """
        if (status := self._push(x, self._memory)) and self._push(
            self._accept(x, status), self._memory
        ):
            raise StreamBusyError(_BUSY_MESSAGE)

    def step(self, x: Sample) -> Array:
        """As `push`, and return the output as a fresh array: (output_size,) float32."""
        y = _empty(self._output_size, _FLOAT32)
        if (status := self._step(x, self._memory, y)) and self._step(
            self._accept(x, status), self._memory, y
        ):
            raise StreamBusyError(_BUSY_MESSAGE)
        return y

    def run(self, x: ArrayLike) -> Array:
        """Take a block of samples: (time, input_size) -> (time, output_size) float32.

        The same state and the same bits as that many steps; zero steps are fine. Where input_size
        is 1, (time,) will do. Releases the GIL, so no other thread may write to x meanwhile.
        Raises InputError before the state changes.
        """
        if type(x) is np.ndarray and x.ndim == 2:
            y, status = self._run_rows(x)
            if status == calls.DONE:
                return y
        y, status = self._run_rows(self._block(x))
        if status != calls.DONE:
            raise StreamBusyError(_BUSY_MESSAGE)
        return y

    def _run_rows(self, x: Array) -> tuple[Array, int]:
        y = _empty((len(x), self._output_size), _FLOAT32)
        code = self._code
        scratch = code.take_scratch()
        try:
            return y, self._run(x, self._memory, y, scratch)
        finally:
            code.give_scratch(scratch)

    def forecast(self, steps: int) -> Array:
        """Closed loop, each output the next input: -> (steps, output_size) float32.

        The state moves on with the forecast; take a snapshot before to come back. Needs
        output_size == input_size and at least one sample taken before.
        """
        if not isinstance(steps, int | np.integer) or steps < 0:
            raise InputError(
                f"forecast: expected a whole number of steps of at least 0, found {steps!r}"
            )
        if self._model.input_size != self._output_size:
            raise InputError(
                f"forecast: feeds outputs back as inputs, but this model takes "
                f"{self._model.input_size} values and puts out {self._output_size}"
            )
        if not self.steps:
            raise InputError("forecast: expected at least one sample before it; push or run some")
        before = self.snapshot()
        y = np.empty((int(steps) + 1, self._output_size), np.float32)
        y[0] = self.output
        status = self._calls.forecast(self._memory.ctypes.data, y.ctypes.data, int(steps))
        if status == calls.IN_USE:
            raise StreamBusyError(_BUSY_MESSAGE)
        if not np.isfinite(y).all():
            self.restore(before)
            last = int(np.isfinite(y).all(axis=1).argmin())
            raise InputError(
                f"forecast: the output is not finite from step {last} on: fed back to itself, this "
                "model diverges; the state is unchanged"
            )
        return y[1:]

    def snapshot(self) -> bytes:
        """The whole state as a few bytes, restorable in another process or on another machine."""
        with self._claimed():
            vectors = [self.output.copy(), *self._copy_state()]
            head = _SNAPSHOT.pack(_MAGIC, self._code.digest, self.steps)
        body = head + b"".join(vector.astype("<f4").tobytes() for vector in vectors)
        return body + zlib.crc32(body).to_bytes(4, "little")

    def restore(self, snapshot: bytes | bytearray | memoryview) -> None:
        """Go back to a snapshot of the same model; a wrong one raises and changes nothing."""
        if not isinstance(snapshot, bytes | bytearray | memoryview):
            raise SnapshotError(
                f"snapshot: expected the bytes of snapshot(), found {type(snapshot).__name__}"
            )
        content = bytes(snapshot)
        sizes = [self._output_size, *(s.size for s in self._model.states)]
        expected = _SNAPSHOT.size + 4 * sum(sizes) + 4
        if not content.startswith(_MAGIC):
            raise SnapshotError("snapshot: not one of fastlstm, or of a version it cannot read")
        if content[8:24] != self._code.digest:
            raise SnapshotError("snapshot: taken from a model with other weights or layers")
        if len(content) != expected:
            raise SnapshotError(
                f"snapshot: expected {expected} bytes, found {len(content)}: it was cut or padded"
            )
        if zlib.crc32(content[:-4]).to_bytes(4, "little") != content[-4:]:
            raise SnapshotError("snapshot: its checksum does not match: it was damaged")
        steps = _SNAPSHOT.unpack_from(content)[2]
        if steps >= 2**63:
            raise SnapshotError(f"snapshot: {steps} steps are more than a stream can have taken")
        values = np.frombuffer(content[_SNAPSHOT.size : -4], "<f4").astype(np.float32)
        output, *states = np.split(values, np.cumsum(sizes)[:-1])
        with self._claimed():
            # All of it: beyond the states there may be a NaN, if the network overflowed since.
            self._memory[HEADER_FLOATS:] = self._code.initial[HEADER_FLOATS:]
            self._header[calls.STEPS // 8] = steps
            start = HEADER_FLOATS + self._code.plan.output
            self._memory[start : start + self._output_size] = output
            for place, vector in zip(self._state_places(), states, strict=True):
                self._memory[place] = vector

    def reset(self) -> None:
        """Begin a new sequence in the model's initial state; `output` becomes zeros."""
        with self._claimed():
            self._header[calls.STEPS // 8] = 0
            self._memory[HEADER_FLOATS:] = self._code.initial[HEADER_FLOATS:]

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Its memory holds addresses of this process, which would be followed in another one.
        raise TypeError(
            "a Stream cannot be copied or pickled: take its snapshot(), and restore() that in a "
            "new stream of the same model"
        )

    def _state_places(self) -> list[slice]:
        return [places[self.steps & 1] for places in self._code.states]

    def _copy_state(self) -> tuple[Array, ...]:
        return tuple(self._memory[place].copy() for place in self._state_places())

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        """Keep every other thread out; raises StreamBusyError if one is in."""
        address = self._memory.ctypes.data
        if not self._calls.claim(address):
            raise StreamBusyError(_BUSY_MESSAGE)
        try:
            yield
        finally:
            self._calls.release(address)

    def _accept(self, x: Any, status: int) -> Array:
        """The sample as the kernel takes it; raises what explains `status`."""
        if status == calls.IN_USE:
            raise StreamBusyError(_BUSY_MESSAGE)
        size = self._model.input_size
        array = _numbers(x, f"{size} float32 values" if size > 1 else "one number")
        if array.ndim == 0 and size == 1:
            array = array.reshape(1)
        if array.shape != (size,):
            hint = "; for a block of samples call run" if array.ndim == 2 else ""
            raise InputError(f"sample: expected shape ({size},), found {array.shape}{hint}")
        _check_finite(array, x)
        return array

    def _block(self, x: Any) -> Array:
        size = self._model.input_size
        array = _numbers(x, f"a block of shape (time, {size})")
        if array.ndim == 1 and size == 1:
            array = array[:, np.newaxis]
        if array.ndim != 2 or array.shape[1] != size:
            hint = "; for one sample call step or push" if array.ndim < 2 else ""
            raise InputError(f"run: expected shape (time, {size}), found {array.shape}{hint}")
        _check_finite(array, x)
        return array


_BUSY_MESSAGE = (
    "this stream is in use by another thread; give each thread its own stream of the model, "
    "or guard the stream with a lock"
)


def _numbers(x: Any, expected: str) -> Array:
    """`x` as a C-ordered float32 array; refuses what is no real number."""
    if np.ma.is_masked(x):
        raise InputError(f"expected {expected}, found masked values: fill or drop them")
    try:
        array = np.asarray(x)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected {expected}, found {type(x).__name__}: {error}") from None
    if array.dtype.kind not in "fiu":
        found = f"an array of {array.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
        raise InputError(f"expected {expected}, found {found}: convert it to float32 numbers")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32).reshape(array.shape)


def _check_finite(array: Array, given: Any) -> None:
    if np.isfinite(array).all():
        return
    where = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
    value = np.asarray(given).reshape(array.shape)[where]
    problem = "too large for float32" if np.isfinite(value) else "not a finite number"
    raise InputError(
        f"sample: {value} at index {where} is {problem}; the state is unchanged: "
        "drop or repair the value and go on"
    )

"""Where a module's output has its sequences and its steps, read off the elements that it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ReaderError
from fastlstm.readers.elements import Elements, Where

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from fastlstm.readers.places import Place


@dataclass(frozen=True)
class Arrangement:
    """The axes of an output: `batch` and `time`, each None where there is no such axis.

    `last`: it is that of the last step alone. `merged`: both are one first axis, batch or time
    before the other.
    """

    batch: int | None = None
    time: int | None = None
    last: bool = False
    merged: str = ""

    def applied(self, y: NDArray[Any], batch: int, time: int) -> NDArray[Any] | None:
        """(batch, time, outputs), or (batch, outputs) of the last step; None where y is not so."""
        if self.merged:
            if not y.ndim or len(y) != batch * time:
                return None
            shape = (batch, time, -1) if self.merged == "batch" else (time, batch, -1)
            found = y.reshape(shape)
            return found if self.merged == "batch" else found.swapaxes(0, 1)
        axes = [axis for axis in (self.batch, self.time) if axis is not None]
        counts = [batch] * (self.batch is not None) + [time] * (self.time is not None)
        if any(axis >= y.ndim for axis in axes) or [y.shape[axis] for axis in axes] != counts:
            return None
        if self.batch is None and batch != 1:
            return None
        moved = np.moveaxis(y, axes, range(len(axes)))
        return moved.reshape((batch, -1) if self.last else (batch, time, -1))


def arranged(value: Elements, origin: str) -> tuple[Arrangement, Place]:
    """The place of a network's output, and how the output is laid out.

    Raises ReaderError where it holds neither the values of each step nor those of the last.
    """
    trace = value.trace
    if any(trace.places[k].momentary for k in np.unique(trace.where(value.numbers).place)):
        from fastlstm.readers.unrolled import rolled

        value = rolled(value, origin)
    where = trace.where(value.numbers)
    for arrangement in _candidates(value.shape, trace.batch, trace.time):
        numbers = arrangement.applied(value.numbers, trace.batch, trace.time)
        if numbers is not None and _is_so(arrangement, trace.where(numbers), trace.time):
            return arrangement, trace.vectors(Elements(trace, numbers), origin).place
    steps = sorted(set(where.time.ravel().tolist()))
    raise ReaderError(
        f"{origin}: expected values of every step at its own place, or of the last step alone, "
        f"found shape {value.shape} of {trace.batch} sequences of {trace.time} steps, with values "
        f"of step {', '.join(map(str, steps))}, counted from 0: a Model's output at a step is made "
        "of that step and those before"
    )


def _is_so(arrangement: Arrangement, where: Where, time: int) -> bool:
    count = len(where.batch)
    if arrangement.last:
        batch, step = np.arange(count)[:, None], np.asarray(time - 1)
    else:
        batch, step = np.arange(count)[:, None, None], np.arange(time)[:, None]
    return bool((where.batch == batch).all() and (where.time == step).all())


def _candidates(shape: tuple[int, ...], batch: int, time: int) -> Iterator[Arrangement]:
    axes = range(len(shape))
    for b in axes:
        for t in axes:
            if b != t and shape[b] == batch and shape[t] == time:
                yield Arrangement(b, t)
    if shape and shape[0] == batch * time:
        yield Arrangement(merged="batch")
        yield Arrangement(merged="time")
    if batch == 1:
        yield from (Arrangement(None, t) for t in axes if shape[t] == time)
    yield from (Arrangement(b, None, last=True) for b in axes if shape[b] == batch)
    if batch == 1:
        yield Arrangement(last=True)

"""Sums, differences, products and scalings of traced tensors, as places.

What a Model has a layer for becomes one at once: Affine, Difference, a sum that may end a residual
connection. The rest is kept as Moments, the formulas of which an unrolled cell is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ReaderError
from fastlstm.model import Affine, Dense, Difference, LayerNorm
from fastlstm.readers.elements import Elements, Trace, Where, WrongLayout
from fastlstm.readers.places import (
    Argument,
    Layered,
    Moment,
    Place,
    Sum,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastlstm.model import Array
    from fastlstm.readers.elements import Numbers

    Floats = NDArray[np.floating[Any]]


def affine(
    value: Elements, scale: Floats | float | None, shift: Floats | float | None, origin: str
) -> Elements:
    """Scale a value and shift it by constants that broadcast against it, the same at every step.

    Raises ReaderError where a constant differs from step to step.
    """
    constants = [None if c is None else np.asarray(c) for c in (scale, shift)]
    shapes = [c.shape for c in constants if c is not None]
    shape = np.broadcast_shapes(value.shape, *shapes)
    value = value.moved(lambda a: np.broadcast_to(a, shape))
    try:
        return _each_scaled(value, constants, origin)
    except _Unequal:
        # One value of a step may stand in a vector twice, with another constant each time.
        for axis in range(value.numbers.ndim)[::-1]:
            found = _vectors_scaled(value, constants, axis, origin)
            if found is not None:
                return found
        raise


class _Unequal(ReaderError):
    """A constant that is not the same wherever its value stands."""


def _each_scaled(value: Elements, constants: list[Any], origin: str) -> Elements:
    """Every place in `value` scaled and shifted, column by column."""
    trace, shape = value.trace, value.shape
    where = trace.where(value.numbers)
    numbers = np.empty(shape, np.int64)
    for position in np.unique(where.place):
        here = where.place == position
        place, column = trace.places[position], where.column[here]
        vectors = [
            None
            if constant is None
            else _by_column(place, column, np.broadcast_to(constant, shape)[here], neutral, origin)
            for constant, neutral in zip(constants, (1.0, 0.0), strict=True)
        ]
        covered = len(np.unique(column)) == place.size
        made = _scaled(trace, place, vectors[0], vectors[1], covered, origin)
        numbers[here] = trace.numbers(made, where.batch[here], where.time[here], column)
    return Elements(trace, numbers)


def _vectors_scaled(
    value: Elements, constants: list[Any], axis: int, origin: str
) -> Elements | None:
    """The vectors along `axis` scaled and shifted as they stand; None where they are none."""
    vectors: list[Array | None] = []
    for constant in constants:
        if constant is None:
            vectors.append(None)
            continue
        rows = np.moveaxis(np.broadcast_to(constant, value.shape), axis, -1)
        rows = rows.reshape(-1, value.shape[axis])
        if (rows != rows[:1]).any() or (rows[0].astype(np.float32) != rows[0]).any():
            return None
        vectors.append(rows[0].astype(np.float32))
    trace = value.trace
    try:
        found = trace.vectors(value.last_axis(axis), origin)
    except ReaderError:
        return None
    made = _scaled(trace, found.place, vectors[0], vectors[1], True, origin)
    return trace.of(found, made).moved(lambda a: np.moveaxis(a, -1, axis))


def _by_column(place: Place, column: Numbers, values: Any, neutral: float, origin: str) -> Array:
    """One constant for each column of a place; `neutral` where the tensor has no such column."""
    found = np.full(place.size, neutral, np.float32)
    found[column] = values
    if (found[column] != values).any():
        raise _Unequal(
            f"{origin}: its constants are not the same float32 values at every step, which no "
            "layer of a Model has"
        )
    return found


def _scaled(
    trace: Trace,
    place: Place,
    scale: Array | None,
    shift: Array | None,
    covered: bool,
    origin: str,
) -> Place:
    """The place scaled and shifted; the Dense or Affine before it takes a mere shift in."""
    if scale is not None and (scale == 1).all():
        scale = None
    if shift is not None and not shift.any():
        shift = None
    if scale is None and shift is None:
        return place
    before = place.layer if isinstance(place, Layered) else None
    if scale is None and covered and isinstance(place, Layered):
        assert shift is not None
        if isinstance(before, Dense) and before.bias is None and before.activation == "linear":
            return trace.layered(place.parent, Dense(before.weight, shift), place.origin)
        if isinstance(before, Affine) and not before.shift.any():
            return trace.layered(place.parent, Affine(before.scale, shift), place.origin)
        if isinstance(before, LayerNorm) and before.bias is None:
            return trace.layered(
                place.parent, LayerNorm(before.weight, shift, before.eps), place.origin
            )
    if shift is None and covered and isinstance(place, Layered):
        assert scale is not None
        # A norm in plain formulas, whose weight is a product after it.
        if isinstance(before, LayerNorm) and before.bias is None and (before.weight == 1).all():
            return trace.layered(place.parent, LayerNorm(scale, None, before.eps), place.origin)
    ones, zeros = np.ones(place.size, np.float32), np.zeros(place.size, np.float32)
    layer = Affine(ones if scale is None else scale, zeros if shift is None else shift)
    return trace.layered(place, layer, origin)


def negative(value: Elements, origin: str) -> Elements:
    """Minus the value, which is exact."""
    return affine(value, -1.0, None, origin)


def add(a: Elements, b: Elements, origin: str) -> Elements:
    """The sum a + b, broadcast against each other."""
    return _combined("add", a, b, origin)


def subtract(a: Elements, b: Elements, origin: str) -> Elements:
    """The difference a - b: what changed since the last step where b is that, else a sum with -b.

    The deeper of the two is negated, so that the other may be what a connection begins with.
    """
    changed = _difference(a, b, origin)
    if changed is not None:
        return changed
    a, b = _broadcast(a, b)
    wa, wb = (v.trace.where(v.numbers) for v in (a, b))
    if not _at_one_step(a.trace, wa, wb):
        return _combined("sub", a, b, origin)
    if wa.place.max(initial=0) >= wb.place.max(initial=0):
        return negative(add(negative(a, origin), b, origin), origin)
    return add(negative(b, origin), a, origin)


def multiply(a: Elements, b: Elements, origin: str) -> Elements:
    """The product a * b: part of a cell's formula, or nothing that a Model has."""
    return _combined("mul", a, b, origin)


def divide(a: Elements, b: Elements, origin: str) -> Elements:
    """The quotient a / b: kept as a formula, like a product."""
    return _combined("div", a, b, origin)


def _broadcast(a: Elements, b: Elements) -> tuple[Elements, Elements]:
    shape = np.broadcast_shapes(a.shape, b.shape)
    first, second = (v.moved(lambda n: np.broadcast_to(n, shape)) for v in (a, b))
    return first, second


def _at_one_step(trace: Trace, wa: Where, wb: Where) -> bool:
    """Whether all pairs of elements are of the same sequence and step, none of a formula."""
    positions = np.unique(np.concatenate([wa.place.ravel(), wb.place.ravel()]))
    places = [trace.places[k] for k in positions]
    if any(place.momentary for place in places):
        return False
    return bool((wa.batch == wb.batch).all() and (wa.time == wb.time).all())


def _combined(operation: str, a: Elements, b: Elements, origin: str) -> Elements:
    trace = a.trace
    a, b = _broadcast(a, b)
    wa, wb = trace.where(a.numbers), trace.where(b.numbers)
    numbers = np.empty(a.shape, np.int64)
    pairs = wa.place * len(trace.places) + wb.place
    count = len(trace.places)
    for pair in np.unique(pairs):
        here = pairs == pair
        one, other = (Where(*(part[here] for part in where)) for where in (wa, wb))
        places = trace.places[pair // count], trace.places[pair % count]
        if operation == "add" and _at_one_step(trace, one, other):
            numbers[here] = _sum(trace, places, one, other, origin)
        else:
            numbers[here] = _moments(trace, operation, places, one, other, origin)
    return Elements(trace, numbers)


def _sum(
    trace: Trace, places: tuple[Place, Place], one: Where, other: Where, origin: str
) -> Numbers:
    """Elements of a Sum of two places, the columns of one of which decide those of the other."""
    base, source = places
    if not _decides(one.column, other.column):
        base, source, one, other = source, base, other, one
        if not _decides(one.column, other.column):
            raise ReaderError(
                f"{origin}: it adds the values of {base.origin} and {source.origin} crosswise, "
                "each to several, which no layer of a Model does"
            )
    present, first, index = np.unique(one.column, return_index=True, return_inverse=True)
    columns = tuple(int(k) for k in other.column[first])
    base = trace.selected(base, present.tolist(), origin)
    if base is source and columns == tuple(range(base.size)):
        made = _scaled(trace, base, np.full(base.size, 2, np.float32), None, True, origin)
    else:
        made = trace.place(
            ("sum", base, source, columns), lambda: Sum(base.size, origin, base, source, columns)
        )
    return trace.numbers(made, one.batch, one.time, index.reshape(one.column.shape))


def _decides(columns: Numbers, others: Numbers) -> bool:
    """Whether equal entries of `columns` always stand beside equal entries of `others`."""
    pairs = np.unique(np.stack([columns.ravel(), others.ravel()]), axis=1)
    return bool(len(np.unique(pairs[0])) == pairs.shape[1])


def _moments(
    trace: Trace,
    operation: str,
    places: tuple[Place, Place],
    one: Where,
    other: Where,
    origin: str,
) -> Numbers:
    """Elements of one Moment for each pair of time steps that is combined."""
    # A state that is fed in has no sequences of its own to tell apart.
    fed = [place.fed for place in places]
    if not any(fed) and (one.batch != other.batch).any():
        raise WrongLayout(f"{origin}: it combines values of different sequences of the batch")
    batch = np.maximum(one.batch, other.batch) if all(fed) else (other if fed[0] else one).batch
    numbers = np.empty(one.column.shape, np.int64)
    times = one.time * trace.time + other.time
    for time in np.unique(times):
        here = times == time
        pairs, index = np.unique(
            np.stack([one.column[here], other.column[here]]), axis=1, return_inverse=True
        )
        arguments = tuple(
            Argument(place, int(step), tuple(int(k) for k in columns))
            for place, step, columns in zip(places, divmod(time, trace.time), pairs, strict=True)
        )
        key = (operation, *((arg.place, arg.time, arg.columns) for arg in arguments))

        def make(arguments: Any = arguments) -> Place:
            return Moment(len(arguments[0].columns), origin, operation, arguments)

        made = trace.place(("moment", *key), make)
        numbers[here] = trace.numbers(made, batch[here], 0, index.reshape(-1))
    return numbers


def _difference(a: Elements, b: Elements, origin: str) -> Elements | None:
    """The Difference that a - b is, where b is the step before a; None where it is not."""
    trace = a.trace
    if a.shape != b.shape or not a.numbers.size:
        return None
    wa, wb = trace.where(a.numbers), trace.where(b.numbers)
    later = wa.time > 0
    same = (wa.place == wb.place) & (wa.batch == wb.batch) & (wa.column == wb.column)
    if not (later.any() and (same & (wb.time == wa.time - 1))[later].all()):
        return None
    start = trace.start(Elements(trace, b.numbers[~later]))
    if start is None:
        return None

    def changed(place: Place) -> Place:
        here = wa.place[~later] == trace.places.index(place)
        column, x0 = wa.column[~later][here], np.zeros(place.size, np.float32)
        x0[column] = start[here]
        if (x0[column] != start[here]).any():
            raise ReaderError(
                f"{origin}: what stands before its first step differs between the sequences of a "
                "batch; a Model has one start for all streams"
            )
        return trace.layered(place, Difference(place.size, x0 if x0.any() else None), origin)

    return trace.each_place(a, changed)

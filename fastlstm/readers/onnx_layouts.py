"""What the axes of an ONNX graph's inputs and of its result mean: sequences, steps, values."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ReaderError
from fastlstm.readers.elements import MOST_ELEMENTS, Elements, Trace, WrongLayout
from fastlstm.readers.places import Given, Layered, Place
from fastlstm.readers.unrolled import rolled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastlstm.model import Array
    from fastlstm.readers.elements import Numbers, Where
    from fastlstm.readers.onnx_guard import Opened
    from fastlstm.readers.onnx_node import Value

# The metadata entry that our own exporter writes.
CARD = "fastlstm"
# Axes of the series by their number, the likelier first. Where time is missing there is one step,
# where batch is missing one sequence, and where values is missing one value.
AXES: dict[int, tuple[tuple[str, ...], ...]] = {
    1: (("values",), ("time",)),
    2: (("batch", "values"), ("time", "values"), ("batch", "time"), ("time", "batch")),
    3: (("batch", "time", "values"), ("time", "batch", "values"), ("batch", "values", "time")),
}
# Sizes of dynamic axes. What holds for both pairs holds for all: a graph that counts on one size
# is another network at the other.
SIZES = ((2, 3), (3, 5))  # (batch, time)
MOST_INPUTS = 64
WHOLE_NUMBERS = ("INT32", "INT64")
MOST_STEPS = 100_000


@dataclass(frozen=True)
class Entry:
    """One input of the graph: each size is a number, or a name, or None where nothing is said."""

    name: str
    kind: str  # the name of its data type
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class Layout:
    """Which input is the series, what its axes are, and the sizes that a graph is traced with."""

    x: Entry
    axes: tuple[str, ...]
    batch: int
    time: int
    values: int
    dynamic: bool  # whether batch or time may have another size

    def arranged(self, x: Any) -> Any:
        """An array (batch, time, values) as the graph takes it."""
        order = ["batch", "time", "values"]
        missing = tuple(k for k, axis in enumerate(order) if axis not in self.axes)
        x = x.squeeze(missing)
        kept = [axis for axis in order if axis in self.axes]
        return x.transpose([kept.index(axis) for axis in self.axes])


def entries(opened: Opened) -> list[Entry]:
    """The graph's inputs without those that initializers give a value to."""
    from onnx import TensorProto

    names = {v: k for k, v in TensorProto.DataType.items()}
    found = []
    for info in opened.proto.graph.input:
        if info.name in opened.constants:
            continue
        if not info.type.HasField("tensor_type") or not info.type.tensor_type.HasField("shape"):
            raise ReaderError(f"input {info.name!r}: expected a tensor of a declared shape")
        sizes: list[int | str | None] = []
        for dim in info.type.tensor_type.shape.dim:
            if dim.HasField("dim_value"):
                if not 1 <= dim.dim_value <= MOST_ELEMENTS:
                    raise ReaderError(
                        f"input {info.name!r}: expected sizes of a real tensor, found "
                        f"{dim.dim_value}"
                    )
                sizes.append(dim.dim_value)
            else:
                sizes.append(dim.dim_param or None)
        kind = names.get(info.type.tensor_type.elem_type, "an unknown type")
        found.append(Entry(info.name, kind, tuple(sizes)))
    if len(found) > MOST_INPUTS:
        raise ReaderError(f"expected at most {MOST_INPUTS} inputs, found {len(found)}")
    return found


def layouts(opened: Opened, found: list[Entry], size: int = 0) -> Iterator[Layout]:
    """Every way that the graph may take its axes, with the dynamic ones of SIZES[size]."""
    series = [e for e in found if e.kind in ("FLOAT", "DOUBLE") and len(e.shape) in AXES]
    if not series:
        inputs = ", ".join(f"{e.name} ({e.kind} of {len(e.shape)} axes)" for e in found)
        raise ReaderError(
            "expected an input of float32 with one to three axes, the series, found "
            f"{inputs or 'no input'}"
        )
    any_yet = too_long = False
    for x in series:
        for axes in AXES[len(x.shape)]:
            sizes = dict(zip(("batch", "time"), SIZES[size], strict=True))
            real = {axis: sizes[axis] if axis in axes else 1 for axis in sizes}
            real["values"] = 1 if "values" not in axes else 0
            dynamic = False
            for axis, declared in zip(axes, x.shape, strict=True):
                if isinstance(declared, int):
                    real[axis] = declared
                elif axis == "values":
                    real[axis] = _values(opened)
                else:
                    dynamic = True
            if max(real["time"], real["batch"]) > MOST_STEPS:
                too_long = True
            elif real["values"]:
                any_yet = True
                yield Layout(x, axes, real["batch"], real["time"], real["values"], dynamic)
    if too_long and not any_yet:
        raise ReaderError(
            f"input {series[0].name!r}: expected at most {MOST_STEPS:,} steps or sequences, "
            f"found {series[0].shape}; export it with a dynamic size"
        )
    if not any_yet:
        raise ReaderError(
            f"input {series[0].name!r}: expected the number of values in one step as one of its "
            f"sizes, found {series[0].shape}"
        )


def _values(opened: Opened) -> int:
    """How many values the first layer takes, where the input does not say; 0 if none does."""
    places = {"LSTM": -1, "GRU": -1, "RNN": -1, "MatMul": 0, "Gemm": 0}
    for node in opened.proto.graph.node:
        weight = opened.constants.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type in places and weight is not None and weight.ndim > 1:
            return int(weight.shape[places[node.op_type]])
    return 0


def card(opened: Opened) -> dict[str, Any]:
    """What our own exporter says of the file; nothing where another wrote it."""
    text = next((p.value for p in opened.proto.metadata_props if p.key == CARD), None)
    if text is None:
        return {}
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ReaderError(f"its metadata entry {CARD!r} is not valid JSON: {error}") from None
    return about if isinstance(about, dict) else {}


def fed(opened: Opened, found: list[Entry], layout: Layout, trace: Trace) -> dict[str, Value]:
    """The inputs as they are traced: the series, states by their start, and full lengths."""
    starts = {}
    states = card(opened).get("states")
    for state in states if isinstance(states, list) else []:
        if isinstance(state, dict) and isinstance(state.get("initial"), list):
            starts[state.get("input")] = state["initial"]
    values: dict[str, Value] = {}
    for entry in found:
        if entry is layout.x:
            if layout.batch * layout.time * layout.values > MOST_ELEMENTS:
                raise ReaderError(
                    f"input {entry.name!r}: expected sizes of a real series, found {entry.shape}"
                )
            x = trace.input(layout.values)
            values[entry.name] = x.moved(layout.arranged)
            continue
        shape = _shape(entry, layout)
        if entry.kind in WHOLE_NUMBERS:
            if shape != (layout.batch,):
                raise ReaderError(
                    f"input {entry.name!r}: expected whole numbers only as the lengths of "
                    f"{layout.batch} sequences, found shape {entry.shape}"
                )
            kind = np.int32 if entry.kind == "INT32" else np.int64
            values[entry.name] = np.full(shape, layout.time, kind)
        elif entry.kind in ("FLOAT", "DOUBLE"):
            if math.prod(shape) > MOST_ELEMENTS:
                raise ReaderError(
                    f"input {entry.name!r}: expected a state of real size, found {entry.shape}"
                )
            start = _start(entry, shape, starts.get(entry.name))
            values[entry.name] = trace.given(entry.name, shape, start, _sequences(shape, layout))
        else:
            raise ReaderError(
                f"input {entry.name!r}: expected float32 for a state, or int32 for lengths, found "
                f"{entry.kind}"
            )
    return values


def _sequences(shape: tuple[int, ...], layout: Layout) -> int | None:
    """The axis of a state that runs over the sequences: the last but one, or the first."""
    likely = [k for k in (len(shape) - 2, 0) if 0 <= k < len(shape) - 1]
    return next((k for k in likely if shape[k] == layout.batch), None)


def _start(entry: Entry, shape: tuple[int, ...], initial: Any) -> Array | None:
    """Where a state begins, by the file's card."""
    if initial is None:
        return None
    try:
        start = np.asarray(initial, np.float32)
    except (TypeError, ValueError, OverflowError):
        start = np.zeros(0, np.float32)
    if start.shape != shape[-1:] or not np.isfinite(start).all():
        raise ReaderError(
            f"input {entry.name!r}: expected {shape[-1:]} finite values in its metadata entry "
            f"{CARD!r} to begin at, found others"
        )
    return np.broadcast_to(start, shape)


def _shape(entry: Entry, layout: Layout) -> tuple[int, ...]:
    """The sizes of another input: names that the series has too are as there, others batch."""
    real = {"batch": layout.batch, "time": layout.time, "values": layout.values}
    known = {
        declared: real[axis]
        for axis, declared in zip(layout.axes, layout.x.shape, strict=True)
        if isinstance(declared, str)
    }
    return tuple(
        size if isinstance(size, int) else known.get(size or "", layout.batch)
        for size in entry.shape
    )


# The result


@dataclass(frozen=True)
class Result:
    """The place that a graph puts out, and each element of its output as one of that place."""

    place: Place
    numbers: Numbers


def result(value: Elements, name: str) -> Result:
    """What the output `name` is: a place at every step or after the last, or a layer's states.

    Raises WrongLayout where its axes cannot be those that were assumed, and ReaderError.
    """
    trace = value.trace
    where = trace.where(value.numbers)
    # The values of one step are along the axes on which neither sequence nor step changes.
    inside = [k for k in range(len(value.shape)) if not _changes(where, k)]
    order = [k for k in range(len(value.shape)) if k not in inside] + inside
    sites = tuple(value.shape[k] for k in order[: len(order) - len(inside)])
    moved = value.moved(lambda a: a.transpose(order).reshape(*sites, -1))
    try:
        found = trace.vectors(moved, f"output {name!r}")
        _check_steps(trace, found.batch.ravel(), found.time.ravel(), name)
    except ReaderError:
        place = _whose(value)
        if place is None:
            raise
        return Result(place, value.numbers)
    numbers = trace.of(found, found.place).numbers
    numbers = numbers.reshape([value.shape[k] for k in order])
    return Result(found.place, numbers.transpose(np.argsort(order)))


def unlooped(values: list[Value], names: list[str]) -> list[Value]:
    """Outputs with the loops that are written out in them exchanged for recurrent places.

    All at once, because two loops become one layer only where they are seen together.
    """
    traced = [value for value in values if isinstance(value, Elements)]
    if not traced:
        return values
    trace = traced[0].trace
    flat = Elements(trace, np.concatenate([value.numbers.ravel() for value in traced]))
    places = [trace.places[k] for k in np.unique(trace.where(flat.numbers).place)]
    if not any(place.momentary and not isinstance(place, Given) for place in places):
        return values
    ends = np.cumsum([value.numbers.size for value in traced])[:-1]
    flat = rolled(flat, f"output {', '.join(map(repr, names))}")
    parts = iter(np.split(flat.numbers, ends))
    return [
        Elements(trace, next(parts).reshape(value.shape)) if isinstance(value, Elements) else value
        for value in values
    ]


def _changes(where: Where, axis: int) -> bool:
    return any(bool((part != part.take([0], axis)).any()) for part in (where.batch, where.time))


def _check_steps(trace: Trace, batch: Numbers, time: Numbers, name: str) -> None:
    """Refuse anything but every step of every sequence in order, or the last step of each."""
    sequences, steps = np.arange(trace.batch), np.arange(trace.time)
    orders = (
        (np.repeat(sequences, trace.time), np.tile(steps, trace.batch)),
        (np.tile(sequences, trace.time), np.repeat(steps, trace.batch)),
        (sequences, np.full(trace.batch, trace.time - 1)),
    )
    if any(np.array_equal(batch, b) and np.array_equal(time, t) for b, t in orders):
        return
    if len(np.unique(batch)) < trace.batch:
        raise WrongLayout(f"output {name!r}: it holds some sequences of the batch only")
    raise ReaderError(
        f"output {name!r}: expected it at every step in order, or at the last step, found the "
        f"steps {np.unique(time).tolist()[:8]} of {trace.time}: a Model puts out a value for each "
        "step as it comes"
    )


def _whose(value: Elements) -> Place | None:
    """The recurrent place whose final hidden states these are, of one direction or both."""
    trace = value.trace
    for place in list(trace.places):
        if not isinstance(place, Layered) or not place.recurrent:
            continue
        finals = [
            trace.final(place, k).numbers
            for k, state in enumerate(place.layer.states)
            if state.name.startswith("h")
        ]
        if np.isin(value.numbers, np.concatenate([f.ravel() for f in finals])).all():
            return place
    return None

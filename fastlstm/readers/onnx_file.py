"""An ONNX file into a Model: the graph is traced node by node, then run and compared.

A graph that computes anything else than a chain of layers is refused, never approximated.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import MissingExtraError, ModelError, ReaderError
from fastlstm.model import Affine, Layer, Model
from fastlstm.readers import chain, onnx_check, onnx_guard, onnx_layouts, onnx_norms
from fastlstm.readers.elements import Elements, WrongLayout
from fastlstm.readers.onnx_node import Statistic, TooLarge
from fastlstm.readers.onnx_projection import stands_for
from fastlstm.readers.onnx_tracing import Run, traced
from fastlstm.readers.places import (
    Activated,
    Carried,
    Given,
    Joined,
    Place,
    Selected,
    Sum,
    layer_key,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fastlstm.readers.onnx_guard import Opened
    from fastlstm.readers.onnx_layouts import Entry, Layout, Result

MOST_IN_MATRICES = 2**28


def read(
    source: str | Path | bytes,
    *,
    output: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Model:
    """The Model that computes what the graph of an ONNX file computes, sequence by sequence.

    `source` is the file's path, or its bytes. Read are LSTM, GRU and RNN nodes with every attribute
    that a Model can express, Gemm and MatMul with weights, activations, LayerNormalization,
    BatchNormalization, sums, scalings, and whatever moves values around them; the series may come
    batch first or time first. A Scan and a loop that is written out step by step are read where
    their steps are a cell that a Model has. A reverse direction alone becomes one half of a
    Bidirectional whose other half is 0. A division by a constant and a BatchNormalization are
    rounded once to float32.

    States that the graph takes as inputs begin where a file of our own says, else at zeros; int32
    lengths are taken as full, because a Model runs each sequence at its own length. A graph that
    gives the last step only is accepted: the Model then gives that output at every step. One that
    gives nothing but the final hidden states of a layer, in both directions say, becomes a Model
    that ends in that layer, whose state they are.

    `output` names the output to read where the graph has several; without it the first one is, and
    the others must be states or values on the way to it. `metadata` becomes the Model's; without it
    a file of our own keeps what it had.

    The graph is traced twice, at different sizes of its dynamic axes, and then run in float64 by
    onnx's reference evaluator and compared with fastlstm.reference; one that takes lengths, for
    sequences of other lengths too. What that evaluator lacks is traced only: relu RNNs,
    input_forget and, in older releases of onnx, directions.

    Raises ReaderError, which names the node, for anything that a Model cannot express and for a
    file that is damaged, missing or hostile, and MissingExtraError without onnx.
    """
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise MissingExtraError("onnx", "onnx", "reading an ONNX file") from None
    where = f"{os.fspath(source)}: " if isinstance(source, str | os.PathLike) else ""
    try:
        return _read(onnx_guard.opened(source), output, metadata)
    except (ReaderError, ModelError) as error:
        raise ReaderError(f"{where}{error}") from None
    # What a damaged file can still bring about after all the checks.
    except (
        ArithmeticError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise ReaderError(
            f"{where}expected a graph of layers, found one that cannot be followed "
            f"({type(error).__name__}: {error})"
        ) from error


def _read(opened: Opened, output: str | None, metadata: Mapping[str, Any] | None) -> Model:
    outputs = [info.name for info in opened.proto.graph.output]
    if not outputs:
        raise ReaderError("expected a graph with an output, found none")
    if output is not None and output not in outputs:
        raise ReaderError(f"expected output to be one of {', '.join(outputs)}, found {output!r}")
    wanted = outputs if output is None else [output]
    entries = onnx_layouts.entries(opened)
    refusal: ReaderError | None = None
    for number, layout in enumerate(onnx_layouts.layouts(opened, entries)):
        try:
            found, layers, run = _followed(opened, entries, layout, wanted)
            if layout.dynamic:
                again = list(onnx_layouts.layouts(opened, entries, size=1))[number]
                _same_elsewhere(opened, entries, again, wanted, layers)
        except TooLarge:
            raise
        except (ReaderError, ModelError) as error:
            if refusal is None or isinstance(refusal, WrongLayout) > isinstance(error, WrongLayout):
                refusal = error if isinstance(error, ReaderError) else ReaderError(str(error))
            continue
        if metadata is None:
            kept = onnx_layouts.card(opened).get("metadata")
            metadata = kept if isinstance(kept, dict) else {}
        model = Model(layers, metadata)
        onnx_check.check(opened, entries, layout, run, found, wanted[0], model)
        return model
    assert refusal is not None
    raise refusal


def _followed(
    opened: Opened, entries: list[Entry], layout: Layout, wanted: list[str]
) -> tuple[Result, tuple[Layer, ...], Run]:
    """The graph traced in one layout: what its output is, and the layers that lead there."""
    run, values = traced(opened, entries, layout, wanted)
    values = onnx_layouts.unlooped(values, wanted)
    first, *others = values
    if isinstance(first, Statistic) and first.kind == "mean":
        first = onnx_norms.mean(first, f"output {wanted[0]!r}")
        run.rounded.append(wanted[0])
    if not isinstance(first, Elements):
        raise ReaderError(
            f"output {wanted[0]!r}: expected a value of the network, found one that does not "
            "depend on the input"
        )
    found = onnx_layouts.result(first, wanted[0])
    on_the_way = _on_the_way(found.place)
    _check_size(on_the_way)
    layers = chain.layers(found.place)
    if not layers:  # nothing at all: a scaling by 1
        size = found.place.size
        layers = (Affine(np.ones(size, np.float32), np.zeros(size, np.float32)),)
    for name, value in zip(wanted[1:], others, strict=True):
        _check_other(name, value, wanted[0], on_the_way)
    return found, layers, run


def _same_elsewhere(
    opened: Opened,
    entries: list[Entry],
    layout: Layout,
    wanted: list[str],
    layers: tuple[Layer, ...],
) -> None:
    """Raise ReaderError where sequences of other sizes go through another network."""
    try:
        _, others, _ = _followed(opened, entries, layout, wanted)
    except (TooLarge, WrongLayout):
        raise
    except (ReaderError, ModelError) as error:
        raise ReaderError(
            f"it declares a dynamic size, but not every size goes through the same network: {error}"
        ) from None
    if [layer_key(layer) for layer in layers] != [layer_key(layer) for layer in others]:
        raise ReaderError(
            "it declares a dynamic size, but sequences of another size go through other layers or "
            "weights"
        )


def _on_the_way(place: Place) -> set[Place]:
    """All places that lead to `place`, itself included."""
    found: set[Place] = set()
    rest = [place]
    while rest:
        place = rest.pop()
        if place in found:
            continue
        found.add(place)
        if isinstance(place, Sum):
            rest += [place.base, place.other]
        elif isinstance(place, Joined):
            rest += [part for part, _ in place.parts]
        elif (parent := getattr(place, "parent", None)) is not None:
            rest.append(parent)
    return found


def _check_size(places: set[Place]) -> None:
    """Refuse what a chain would need more memory for than any real network takes."""
    total = 0
    for place in places:
        if isinstance(place, Activated | Selected | Joined):
            # As a Dense layer of its own it is a whole matrix.
            total += place.size * getattr(place, "parent", place).size
    if total > MOST_IN_MATRICES:
        raise ReaderError(
            f"expected a network of real size, found one that needs matrices of {total:,} values "
            "for its activations and selections"
        )


def _check_other(name: str, value: Any, first: str, on_the_way: set[Place]) -> None:
    """Refuse a further output that is no state and no value on the way to the first."""
    if not isinstance(value, Elements):
        return
    trace = value.trace
    for position in np.unique(trace.where(value.numbers).place):
        place = trace.places[position]
        if isinstance(place, Given):
            continue
        owner = place.parent if isinstance(place, Carried) else place
        while owner in stands_for(trace):
            owner = stands_for(trace)[owner]
        if owner not in on_the_way:
            raise ReaderError(
                f"output {name!r}: it comes from {place.origin}, which is not on the way to the "
                f"first output {first!r}; a Model has one result: say which by output="
            )

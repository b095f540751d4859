"""A cell called once for each step, its state handed from call to call, as one recurrent place."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ReaderError
from fastlstm.readers.elements import Elements, Trace
from fastlstm.readers.places import Carried, Layered, layer_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fastlstm.model import Array

    # A state as a cell is given it: traced, or a constant; None stands for zeros.
    State = Elements | NDArray[np.floating[Any]] | None


def call(
    trace: Trace, x: Elements, states: Sequence[State], layer: Any, origin: str
) -> list[Elements]:
    """One call of a cell: x (batch, inputs), or (inputs,) alone, and its states -> the new states.

    `layer` is the recurrent layer that the cell would be, without an initial state. At the first
    step the states are constants or fed in by the caller; after it they must be those of the same
    cell after the step before. Raises ReaderError where they are not.
    """
    vectors = trace.vectors(x, origin)
    times = np.unique(vectors.time)
    if len(times) != 1:
        raise ReaderError(
            f"{origin}: expected values of one step for one call of a cell, found several steps"
        )
    time = int(times[0])
    names = [state.name for state in layer.states]
    if time == 0:
        begins = initial(layer, dict(zip(names, states, strict=True)), origin)
        place = trace.layered(vectors.place, begins, origin)
    else:
        place = _before(trace, states[0], origin)
        if place.parent is not vectors.place or _key(place.layer) != _key(layer):
            raise ReaderError(
                f"{origin}: expected the state of the same cell after the step before, found that "
                f"of {place.origin}"
            )
        for name, state in zip(names, states, strict=True):
            expected = place if name == "h" else trace.carried(place, name)
            numbers = trace.numbers(
                expected, vectors.batch[..., None], time - 1, np.arange(expected.size)
            )
            if not isinstance(state, Elements) or not np.array_equal(state.numbers, numbers):
                raise ReaderError(
                    f"{origin}: expected its state {name} to be its own after step {time - 1}, "
                    "found other values: what happens to the state between two steps is beyond a "
                    "Model"
                )
    return [
        trace.of(vectors, place if name == "h" else trace.carried(place, name)) for name in names
    ]


def _key(layer: Any) -> Any:
    return layer_key(layer, initial=False)


def _before(trace: Trace, state: State, origin: str) -> Layered:
    """The recurrent place whose state this is."""
    if isinstance(state, Elements) and state.numbers.size:
        place = trace.places[int(trace.where(state.numbers).place.ravel()[0])]
        if isinstance(place, Carried):
            place = place.parent
        if isinstance(place, Layered) and place.recurrent:
            return place
    raise ReaderError(
        f"{origin}: expected the state of the same cell after the step before, found other values: "
        "a Model hands a cell's state on as it is"
    )


def initial(layer: Any, states: dict[str, State], origin: str) -> Any:
    """`layer` beginning at the constant `states`, each (..., size) with equal rows.

    A state that the caller feeds in begins where Trace.given was told. Raises ReaderError for
    values of the network.
    """
    found: dict[str, Array] = {}
    for name, state in states.items():
        if state is None:
            continue
        if isinstance(state, Elements):
            start = state.trace.start(state)
            if start is None:
                where = state.trace.where(state.numbers)
                places = {state.trace.places[k] for k in np.unique(where.place)}
                names = ", ".join(sorted(place.origin for place in places))
                raise ReaderError(
                    f"{origin}: its initial state comes from {names}: a Model begins at constants"
                )
            state = start
        rows = np.asarray(state).reshape(-1, np.shape(state)[-1])
        if (rows != rows[:1]).any():
            raise ReaderError(
                f"{origin}: its initial state {name} differs between the sequences of a batch; a "
                "Model has one for all streams"
            )
        if rows[0].any():
            found[f"{name}0"] = rows[0].astype(np.float32)
    if not found:
        return layer
    arrays = {f.name: getattr(layer, f.name) for f in fields(layer)}
    return type(layer)(**{**arrays, **found})

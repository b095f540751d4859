"""A place into the chain of layers that leads to it: what a Model holds, or a refusal.

Branches must come together again by a sum with an earlier place of the same chain: a Residual.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastlstm.errors import ReaderError
from fastlstm.model import Dense, Layer, Residual
from fastlstm.readers.places import (
    Activated,
    Carried,
    Columns,
    Given,
    Input,
    Joined,
    Layered,
    Moment,
    Place,
    Selected,
    Sum,
    selection,
)


@dataclass(frozen=True)
class _Link:
    """One layer of the chain and the place it leads to; a Residual names its source instead."""

    place: Place
    layer: Layer | None
    source: Place | None = None
    columns: Columns = ()


def layers(place: Place) -> tuple[Layer, ...]:
    """The layers from the network's input to `place`. Raises ReaderError by origin."""
    links = _merged(_links(place))
    # The place after each layer; the input stands before the first.
    reached: dict[Place | None, int] = {_start(place): 0}
    found: list[Layer] = []
    for link in links:
        layer = link.layer
        if layer is None:
            assert link.source is not None
            layer = Residual(len(found) - reached[link.source], link.columns)
        found.append(layer)
        reached[link.place] = len(found)
    return tuple(found)


def _links(place: Place) -> list[_Link]:
    """The links to `place`; walked without recursion along the chain, which may be long."""
    links: list[_Link] = []
    while True:
        match place:
            case Input():
                return links[::-1]
            case Layered(parent=parent, layer=layer):
                links.append(_Link(place, layer))
            case Activated(parent=parent, activation=kind):
                eye = np.eye(place.size, dtype=np.float32)
                links.append(_Link(place, Dense(eye, None, kind)))
            case Selected(parent=parent, columns=columns):
                links.append(_Link(place, Dense(selection(parent.size, columns))))
            case Sum():
                parent, source, columns = _connection(place)
                links.append(_Link(place, None, source, columns))
            case _:
                raise ReaderError(f"{place.origin}: {_reason(place)}")
        place = parent


def _connection(place: Sum) -> tuple[Place, Place, Columns]:
    """Inner chain, source and columns of a sum, whichever of its two sides is the source."""
    inner, other = _ancestors(place.base), _ancestors(place.other)
    source, columns = _unselected(place.other, place.columns)
    if source in inner:
        return place.base, source, columns
    if sorted(place.columns) == list(range(place.other.size)):
        back = tuple(int(k) for k in np.argsort(place.columns))
        if back == tuple(range(len(back))):
            source, columns = _unselected(place.base, back)
            if source in other:
                return place.other, source, columns
    raise ReaderError(
        f"{place.origin}: it adds the outputs of two branches, {place.base.origin} and "
        f"{place.other.origin}, neither of which leads to the other; a Model adds to a chain only "
        "what went into one of its layers"
    )


def _unselected(place: Place, columns: Columns) -> tuple[Place, Columns]:
    """Columns of a selection as columns of what it selects from."""
    while isinstance(place, Selected):
        columns = tuple(place.columns[k] for k in columns)
        place = place.parent
    return place, columns


def _ancestors(place: Place) -> set[Place]:
    """The places of the chain that leads to `place`, itself included."""
    found = {place}
    while not isinstance(place, Input):
        match place:
            case Layered(parent=parent) | Activated(parent=parent) | Selected(parent=parent):
                place = parent
            case Sum():
                place = _connection(place)[0]
            case _:
                break
        found.add(place)
    return found


def _start(place: Place) -> Place | None:
    """The network's input, where the chain that leads to `place` begins."""
    return next((p for p in _ancestors(place) if isinstance(p, Input)), None)


def _merged(links: list[_Link]) -> list[_Link]:
    """An activation joins the Dense before it, unless a connection begins between the two."""
    sources = {link.source for link in links}
    found: list[_Link] = []
    for link in links:
        before = found[-1] if found else None
        if (
            isinstance(link.place, Activated)
            and before is not None
            and isinstance(before.layer, Dense)
            and before.layer.activation == "linear"
            and before.place not in sources
        ):
            dense = Dense(before.layer.weight, before.layer.bias, link.place.activation)
            found[-1] = _Link(link.place, dense)
        else:
            found.append(link)
    return found


def _reason(place: Place) -> str:
    match place:
        case Joined(parts=parts):
            names = ", ".join(dict.fromkeys(part.origin for part, _ in parts))
            return (
                f"it puts values of different places side by side ({names}), which no layer of a "
                "Model does"
            )
        case Moment(operation=operation):
            return (
                f"its formula ({operation} of two values of the network) is none of the cells that "
                "a Model has"
            )
        case Carried(name=name):
            return f"the state {name} is used as an output, which no layer of a Model hands on"
        case Given(name=name):
            return f"the given state {name} is used as a value of the sequence"
        case _:
            return "no layer of a Model computes this"

"""A place into the chain of layers that leads to it: what a Model holds, or a refusal.

Branches must come together again, by a sum or side by side, and all but one of them be so simple
that they can be carried along the chain to that point: a connection from an earlier place, or one
linear layer on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fastlstm.errors import ReaderError
from fastlstm.model import Affine, Array, Dense, Layer, Residual
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
from fastlstm.readers.widening import widened


@dataclass(frozen=True)
class _Link:
    """One layer of the chain and the place it leads to; a Residual names its source instead."""

    place: Place
    layer: Layer | None
    source: Place | None = None
    columns: Columns = ()


@dataclass(frozen=True)
class _Shortcut:
    """matrix @ source + bias: a branch that can be carried along from its source."""

    source: Place
    matrix: Array
    bias: Array | None = None


def layers(place: Place) -> tuple[Layer, ...]:
    """The layers from the network's input to `place`. Raises ReaderError by origin."""
    try:
        start, links = _Chains().to(place)
    except RecursionError:
        raise ReaderError(
            f"{place.origin}: expected a network of real depth, found more connections within each "
            "other than can be followed"
        ) from None
    # The place after each layer; the input stands before the first.
    reached: dict[Place, int] = {start: 0}
    found: list[Layer] = []
    for link in _merged(links):
        layer = link.layer
        if layer is None:
            assert link.source is not None
            layer = Residual(len(found) - reached[link.source], link.columns)
        found.append(layer)
        reached[link.place] = len(found)
    return tuple(found)


class _Chains:
    """The chains to places: each the network's input and the links from it, found once."""

    def __init__(self) -> None:
        self.known: dict[Place, tuple[Place, list[_Link]]] = {}

    def to(self, place: Place) -> tuple[Place, list[_Link]]:
        """Recursion is as deep as there are connections; along a chain, which may be long, none."""
        if place not in self.known:
            self.known[place] = self._to(place)
        return self.known[place]

    def _to(self, place: Place) -> tuple[Place, list[_Link]]:
        links: list[_Link] = []
        while True:
            match place:
                case Input():
                    return place, links[::-1]
                case Layered(parent=parent, layer=layer):
                    links.append(_Link(place, layer))
                case Activated(parent=parent, activation=kind):
                    eye = np.eye(place.size, dtype=np.float32)
                    links.append(_Link(place, Dense(eye, None, kind)))
                case Selected(parent=parent, columns=columns):
                    links.append(_Link(place, Dense(selection(parent.size, columns))))
                case Sum() | Joined():
                    made = self._connected if isinstance(place, Sum) else self._side_by_side
                    start, before = made(place)  # type: ignore[arg-type]
                    return start, before + links[::-1]
                case _:
                    raise ReaderError(f"{place.origin}: {_reason(place)}")
            place = parent

    def _connected(self, place: Sum) -> tuple[Place, list[_Link]]:
        """The chain to a sum, whichever of its two sides is carried along the other."""
        sides = [(place.base, place.other)]
        if place.columns == tuple(range(place.other.size)):
            sides.append((place.other, place.base))
        for inner, other in sides:
            start, links = self.to(inner)
            source, columns = _unselected(other, place.columns)
            if source is inner:
                # Each value with another of the same step: a sum of two, rounded once as by `+`.
                both = np.eye(place.size, dtype=np.float32) + selection(place.size, columns)
                return start, [*links, _Link(place, Dense(both))]
            if source is start or any(link.place is source for link in links):
                return start, [*links, _Link(place, None, source, columns)]
        for inner, other in sides:
            start, links = self.to(inner)
            shortcut = _shortcut(other, start, links)
            if shortcut is not None:
                wide = _wide(shortcut)
                size = shortcut.source.size
                end = _Link(place, None, wide.place, tuple(size + k for k in place.columns))
                return start, [*_inserted(links, shortcut.source, wide), end]
        raise ReaderError(
            f"{place.origin}: it adds the outputs of two branches, {place.base.origin} and "
            f"{place.other.origin}, and neither is an earlier value of the other's chain, or one "
            "linear layer on such a value, which a Model could carry along"
        )

    def _side_by_side(self, place: Joined) -> tuple[Place, list[_Link]]:
        """The chain to several places side by side: all but one are carried along its chain."""
        places = list(dict.fromkeys(part for part, _ in place.parts))
        for main in places:
            start, links = self.to(main)
            shortcuts = {p: _shortcut(p, start, links) for p in places if p is not main}
            if all(shortcut is not None for shortcut in shortcuts.values()):
                break
        else:
            names = ", ".join(dict.fromkeys(part.origin for part in places))
            raise ReaderError(
                f"{place.origin}: it puts the outputs of branches side by side ({names}), more "
                "than one of which is neither an earlier value of the others' chain nor one "
                "linear layer on such a value, which a Model could carry along"
            )
        ends = []
        for other, shortcut in shortcuts.items():
            assert shortcut is not None
            # One more value, always 0, for what comes from elsewhere.
            wide = _wide(shortcut, zeros=1)
            links = _inserted(links, shortcut.source, wide)
            first, zero = shortcut.source.size, wide.place.size - 1
            columns = tuple(first + k if part is other else zero for part, k in place.parts)
            ends.append(_Link(Place(place.size, place.origin), None, wide.place, columns))
        spread = np.zeros((place.size, main.size), np.float32)
        for row, (part, column) in enumerate(place.parts):
            if part is main:
                spread[row, column] = 1
        spreading = _Link(Place(place.size, place.origin), Dense(spread))
        # Only the last of the sums leads to `place`.
        ends[-1] = replace(ends[-1], place=place)
        return start, [*links, spreading, *ends]


def _shortcut(place: Place, start: Place, links: list[_Link]) -> _Shortcut | None:
    """`place` as one linear layer on a place of the chain, or that place itself."""
    if place is start or any(link.place is place for link in links):
        return _Shortcut(place, np.eye(place.size, dtype=np.float32))
    if isinstance(place, Selected):
        found = _shortcut(place.parent, start, links)
        if found is None:
            return None
        rows = list(place.columns)
        bias = None if found.bias is None else found.bias[rows]
        return _Shortcut(found.source, found.matrix[rows], bias)
    if not isinstance(place, Layered):
        return None
    layer = place.layer
    reached = [start, *(link.place for link in links)]
    source, columns = place.parent, tuple(range(place.parent.size))
    if source not in reached:
        # A half of a Bidirectional, say: the zeros for the rest are exact.
        source, columns = _unselected(source, columns)
    if source not in reached:
        return None
    if isinstance(layer, Dense) and layer.activation == "linear":
        matrix, bias = layer.weight, layer.bias
    elif isinstance(layer, Affine):
        matrix, bias = np.diag(layer.scale), layer.shift
    else:
        return None
    if source is not place.parent:
        narrow, matrix = matrix, np.zeros((len(matrix), source.size), np.float32)
        matrix[:, list(columns)] = narrow
    return _Shortcut(source, matrix, bias)


def _wide(shortcut: _Shortcut, zeros: int = 0) -> _Link:
    """The source's values, the shortcut's beside them, and zeros: each exact in float32."""
    size, source = len(shortcut.matrix), shortcut.source
    eye = np.eye(source.size, dtype=np.float32)
    weight = np.concatenate([eye, shortcut.matrix, np.zeros((zeros, source.size), np.float32)])
    bias = None
    if shortcut.bias is not None:
        bias = np.zeros(len(weight), np.float32)
        bias[source.size : source.size + size] = shortcut.bias
    return _Link(Place(len(weight), source.origin), Dense(weight, bias))


def _inserted(links: list[_Link], source: Place, wide: _Link) -> list[_Link]:
    """The chain with `wide` after `source`, whose first values the next layer takes."""
    after = 1 + next((k for k, link in enumerate(links) if link.place is source), -1)
    before, rest = links[:after], links[after:]
    extra = wide.place.size - source.size
    layer = widened(rest[0].layer, extra) if rest else None
    if layer is not None:
        return [*before, wide, replace(rest[0], layer=layer), *rest[1:]]
    back = Dense(selection(wide.place.size, tuple(range(source.size))))
    return [*before, wide, _Link(Place(source.size, source.origin), back), *rest]


def _unselected(place: Place, columns: Columns) -> tuple[Place, Columns]:
    """Columns of a selection as columns of what it selects from."""
    while isinstance(place, Selected):
        columns = tuple(place.columns[k] for k in columns)
        place = place.parent
    return place, columns


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

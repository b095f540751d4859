"""A whole sequence through a Model in the compiled kernels, bidirectional layers included.

A bidirectional layer is two streams, one of them fed from the end; what lies between two such
layers is one stream. So the kernels know of one direction only.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from fastlstm.model import Array, Bidirectional, Model
from fastlstm.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike


class Result(NamedTuple):
    """Outputs (time, output_size), and the state after the last step in Model.states' order."""

    output: Array
    state: tuple[Array, ...]


class _Piece(NamedTuple):
    """Part of a model: a chain that runs forward, or with `backward` one bidirectional layer."""

    forward: Model
    backward: Model | None = None


def run(model: Model, x: ArrayLike) -> Result:
    """All of x (time, input_size) from the initial state. Raises InputError for bad input."""
    output: ArrayLike = x
    state: list[Array] = []
    for piece in pieces(model):
        forward = Stream(piece.forward)
        y = forward.run(output)
        state += forward.state
        if piece.backward is not None:
            backward = Stream(piece.backward)
            # As in the forward run: the order of time is the only difference.
            reverse = backward.run(np.asarray(output)[::-1])[::-1]
            state += backward.state
            y = np.concatenate([y, reverse], axis=1)
        output = y
    return Result(np.asarray(output), tuple(state))


def pieces(model: Model) -> tuple[_Piece, ...]:
    """The chains of one direction that `model` consists of, made once for each model."""
    if not model.bidirectional:
        return (_Piece(model),)
    if model not in _pieces:
        _pieces[model] = tuple(_cut(model))
    return _pieces[model]


_pieces: WeakKeyDictionary[Model, tuple[_Piece, ...]] = WeakKeyDictionary()


def _cut(model: Model) -> Iterator[_Piece]:
    for both_ways, layers in groupby(model.layers, lambda k: isinstance(k, Bidirectional)):
        if not both_ways:
            yield _Piece(Model(tuple(layers)))
            continue
        for layer in layers:
            assert isinstance(layer, Bidirectional)
            yield _Piece(Model((layer.forward,)), Model((layer.backward,)))

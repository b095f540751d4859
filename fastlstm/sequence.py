"""A whole sequence through a Model in the compiled kernels, bidirectional layers included.

A bidirectional layer is two streams, one of them fed from the end; what lies between two such
layers is one stream. So the kernels know of one direction only. A residual connection from one of
these pieces to another is added in between.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from fastlstm.model import Array, Bidirectional, Model, Residual
from fastlstm.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike


class Result(NamedTuple):
    """Outputs (time, output_size), and the state after the last step in Model.states' order."""

    output: Array
    state: tuple[Array, ...]


class _Piece(NamedTuple):
    """The layers of a model from `begin` on that run together.

    A chain that runs forward, with `backward` one bidirectional layer, or with `residual` the end
    of a connection that began in another piece.
    """

    begin: int
    forward: Model | None = None
    backward: Model | None = None
    residual: Residual | None = None
    wanted: bool = False  # what goes in is added again, by a later piece


def run(model: Model, x: ArrayLike) -> Result:
    """All of x (time, input_size) from the initial state. Raises InputError for bad input."""
    output: ArrayLike = x
    state: list[Array] = []
    inputs: dict[int, Array] = {}
    for piece in pieces(model):
        source = output
        if piece.forward is not None:
            forward = Stream(piece.forward)
            y = forward.run(source)
            state += forward.state
        if piece.backward is not None:
            backward = Stream(piece.backward)
            # As in the forward run: the order of time is the only difference.
            reverse = backward.run(np.asarray(source)[::-1])[::-1]
            state += backward.state
            y = np.concatenate([y, reverse], axis=1)
        if piece.residual is not None:
            added = inputs[piece.begin - piece.residual.back][:, piece.residual.columns]
            # As the kernels have it: what overflows is infinite, without a warning.
            with np.errstate(over="ignore", invalid="ignore"):
                y = np.asarray(source) + added
        if piece.wanted:
            # What the user gave may be a list, or without its second axis; by now it was accepted.
            size = model.layers[piece.begin].input_size
            inputs[piece.begin] = np.asarray(source, np.float32).reshape(-1, size)
        output = y
    return Result(np.asarray(output), tuple(state))


def chains(model: Model) -> tuple[Model, ...]:
    """The chains of one direction that `model` consists of: what has to be compiled for it."""
    found = ((piece.forward, piece.backward) for piece in pieces(model))
    return tuple(chain for pair in found for chain in pair if chain is not None)


def pieces(model: Model) -> tuple[_Piece, ...]:
    """What `run` runs one after the other, made once for each model."""
    if not model.bidirectional:
        return (_Piece(0, model),)
    if model not in _pieces:
        _pieces[model] = tuple(_cut(model))
    return _pieces[model]


_pieces: WeakKeyDictionary[Model, tuple[_Piece, ...]] = WeakKeyDictionary()


def _cut(model: Model) -> Iterator[_Piece]:
    cuts = _cuts(model)
    residuals = _across(model, cuts)
    wanted = {k - residual.back for k, residual in residuals.items()}
    for begin, end in pairwise(sorted(cuts)):
        first = model.layers[begin]
        piece = _Piece(begin, wanted=begin in wanted)
        if begin in residuals:
            yield piece._replace(residual=residuals[begin])
        elif isinstance(first, Bidirectional):
            yield piece._replace(forward=Model((first.forward,)), backward=Model((first.backward,)))
        else:
            yield piece._replace(forward=Model(model.layers[begin:end]))


def _cuts(model: Model) -> set[int]:
    """Where the pieces begin, and where the last one ends."""
    cuts = {0, len(model.layers)}
    for k, layer in enumerate(model.layers):
        if isinstance(layer, Bidirectional):
            cuts |= {k, k + 1}
    while True:
        # A cut where a connection begins may lie within another one, which is then across too.
        residuals = _across(model, cuts).items()
        more = {cut for k, residual in residuals for cut in (k - residual.back, k, k + 1)}
        if more <= cuts:
            return cuts
        cuts |= more


def _across(model: Model, cuts: set[int]) -> dict[int, Residual]:
    """The residual connections that begin in another piece than they end, by their end."""
    return {
        k: layer
        for k, layer in enumerate(model.layers)
        if isinstance(layer, Residual) and any(k - layer.back < cut <= k for cut in cuts)
    }

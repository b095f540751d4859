"""The plain models that the bench times: recurrent layers with the weights torch would draw."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm.model import GRU, LSTM, RNN, Dense, Model

CELLS: dict[str, Any] = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}


def plain_model(
    cell: str, hidden: int, *, inputs: int = 1, layers: int = 1, outputs: int | None = 1
) -> Model:
    """`layers` layers of `hidden` units, and a Dense to `outputs` unless that is None."""
    rng = np.random.default_rng(hidden)
    kind = CELLS[cell]
    rows = kind.gates * hidden

    def draw(*shape: int) -> Any:
        # As torch.nn.LSTM begins.
        return rng.uniform(-1, 1, shape).astype(np.float32) / np.float32(hidden**0.5)

    chain: list[Any] = []
    for position in range(layers):
        wide = hidden if position else inputs
        chain.append(kind(draw(rows, wide), draw(rows, hidden), draw(rows), draw(rows)))
    if outputs is not None:
        chain.append(Dense(draw(outputs, hidden), draw(outputs)))
    return Model(tuple(chain))

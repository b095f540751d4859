"""The check that every exporter passes before its file is written, and how the file is written.

The target runs whole, one step at a time and in pieces, its state carried; the reference judges.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fastlstm import reference, whole_file
from fastlstm.errors import ExportError, UnsupportedError
from fastlstm.model import Bidirectional
from fastlstm.verify import judge, truth

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fastlstm.model import Model

# (steps, seed): the check vector that the model file holds, and a longer stream.
STREAMS = ((16, 0), (64, 1))


class Session(Protocol):
    """One live sequence in a foreign runtime, batch 1, with its state carried from call to call.

    Of a bidirectional model every `run` is a whole sequence, to be begun by `reset`, and `step`
    raises UnsupportedError.
    """

    def reset(self) -> None:
        """Go back to the model's initial state."""

    def step(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """One step: x (I,) float32 -> a fresh (O,)."""

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """A block of steps: x (time, I) float32 -> (time, O)."""

    def state(self) -> tuple[NDArray[np.float32], ...]:
        """Copies of the state vectors, each (H,), in the order of Model.states."""


@dataclass(frozen=True)
class Replay:
    """How many steps were replayed, and the figures of the one that came nearest to its bound."""

    steps: int
    max_abs_error: float
    bound: float


@dataclass(frozen=True)
class Exported:
    """A file that passed its check. `snippet` is Python that runs it with the foreign runtime."""

    path: Path
    target: str
    steps: int
    max_abs_error: float
    bound: float
    snippet: str


def replay(model: Model, session: Session, target: str) -> Replay:
    """Run the model's check streams through `session`; raise ExportError unless all are right."""
    # What is bidirectional cannot be cut.
    ways = dict([*WAYS.items()][:1]) if model.bidirectional else WAYS
    rows = []
    for steps, seed in STREAMS:
        true = truth(model, reference.check_input(model, steps, seed))
        for way, run in ways.items():
            row = judge(f"{target}, {way}", _from_start(session, run), true)
            if row.verdict != "ok":
                raise ExportError(
                    f"{row.road}: over {steps} steps expected the reference's outputs within "
                    f"{row.bound:.2e} and its final state within {row.state_bound:.2e}, found "
                    f"errors of {row.max_abs_error:.2e} and {row.state_error:.2e}"
                    f"{f' ({row.note})' if row.note else ''}; nothing was written"
                )
            rows.append(row)
    nearest = max(rows, key=lambda row: row.max_abs_error / row.bound)
    return Replay(sum(row.steps for row in rows), nearest.max_abs_error, nearest.bound)


def _from_start(session: Session, run: Callable[[Session, Any], Any]) -> Any:
    def road(x: NDArray[np.float32]) -> tuple[Any, Any]:
        session.reset()
        return run(session, x), session.state()

    return road


def _stepped(session: Session, x: NDArray[np.float32]) -> Any:
    return np.stack([session.step(row) for row in x])


def _in_pieces(session: Session, x: NDArray[np.float32]) -> Any:
    pieces = (x[:5], x[5:6], x[6:11])
    return np.concatenate([*map(session.run, pieces), _stepped(session, x[11:])])


WAYS: dict[str, Callable[[Session, Any], Any]] = {
    "as one sequence": lambda session, x: session.run(x),
    "one step at a time": _stepped,
    "in pieces": _in_pieces,
}


def need_no_future(model: Model, road: str) -> None:
    """Raise UnsupportedError where one step of `model` would depend on samples after it."""
    for k, layer in enumerate(model.layers):
        if isinstance(layer, Bidirectional):
            raise UnsupportedError(
                f"{road}: layer {k} (Bidirectional) needs the whole sequence: its backward half "
                "begins at the last sample, which has not come yet when a step is taken; run "
                "whole sequences, or train without the backward half"
            )


def check_place(path: str | Path) -> Path:
    """The path, if a file can be put there; raises ExportError before any long work is done."""
    path = Path(path)
    if path.is_dir():
        raise ExportError(f"{path}: expected the name of a file, found a folder")
    if not path.parent.is_dir():
        raise ExportError(f"{path}: cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ExportError(f"{path}: cannot be written: no permission in the folder {path.parent}")
    return path


def put(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; raises ExportError where that fails."""
    try:
        whole_file.write(path, data)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror or error}") from None

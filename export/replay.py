"""The check that every exporter passes before its file is written, and how the file is written.

The target runs whole, one step at a time and in pieces, its state carried, and where it takes
batches several sequences at once; the reference judges.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fastlstm import reference, whole_file
from fastlstm.errors import ExportError, UnsupportedError
from fastlstm.model import Bidirectional
from fastlstm.verify import Truth, Yardstick, judge, truth

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fastlstm.model import Model
    from fastlstm.verify import Row

    Floats = NDArray[np.float32]

# (steps, seed): the check vector that the model file holds, and a longer stream.
STREAMS = ((16, 0), (64, 1))
# A batch of different sequences, with the seed of its first one, and how many of their steps
# count where a target is told: all, some, one, none.
BATCH, BATCH_STEPS, BATCH_SEED = 7, 16, 2
LENGTHS = (9, 16, 1, 0, 12, 5, 16)


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


class Batch(Protocol):
    """Several sequences in one call of a foreign runtime, each from the model's initial state."""

    def __call__(self, x: Floats, lengths: NDArray[np.int32] | None) -> tuple[Floats, list[Floats]]:
        """X (batch, time, I) -> outputs (batch, time, O) and states (batch, H) in Model's order.

        `lengths` (batch,) says how many steps of each sequence count, None that all do.
        """


@dataclass(frozen=True)
class Replay:
    """How many steps were replayed in which ways, and the figures that came nearest to a bound."""

    steps: int
    max_abs_error: float
    bound: float
    ways: tuple[str, ...]


@dataclass(frozen=True)
class Exported:
    """A file that passed its check. `snippet` is Python that runs it with the foreign runtime.

    `ways` says how the steps were replayed, `opset` is that of an ONNX file and 0 elsewhere.
    `rounding` is by how much the outputs of a file with float16 weights differ at most from those
    of the model as it was given.
    """

    path: Path
    target: str
    steps: int
    max_abs_error: float
    bound: float
    snippet: str
    ways: tuple[str, ...] = ()
    opset: int = 0
    rounding: float = 0.0


def replay(
    model: Model,
    session: Session,
    target: str,
    *,
    batch: Batch | None = None,
    lengths: bool = False,
) -> Replay:
    """Run the model's check streams through `session`; raise ExportError unless all are right.

    Where there is a `batch`, it takes 7 different sequences at once, and with `lengths` others of
    0 to 16 steps, whose outputs must be exactly 0 after their ends.
    """
    # What is bidirectional cannot be cut.
    ways = dict([*WAYS.items()][:1]) if model.bidirectional else WAYS
    yardstick = Yardstick(model)
    rows = []
    for steps, seed in STREAMS:
        true = truth(model, reference.check_input(model, steps, seed))
        for way, run in ways.items():
            road = _from_start(session, run)
            rows.append(_right(judge(f"{target}, {way}", road, true, yardstick)))
    told = [*ways]
    if batch is not None:
        for counts in (None, LENGTHS) if lengths else (None,):
            way = f"{BATCH} sequences at once"
            if counts is not None:
                way = f"{BATCH} sequences of {min(counts)} to {max(counts)} steps at once"
            rows.append(_at_once(yardstick, batch, f"{target}, {way}", counts))
            told.append(way)
    nearest = max(rows, key=lambda row: row.max_abs_error / row.bound)
    steps = sum(row.steps for row in rows)
    return Replay(steps, nearest.max_abs_error, nearest.bound, tuple(told))


def _right(row: Row) -> Row:
    if row.verdict != "ok":
        raise ExportError(
            f"{row.road}: over {row.steps} steps expected the reference's outputs within "
            f"{row.bound:.2e} and its final state within {row.state_bound:.2e}, found "
            f"errors of {row.max_abs_error:.2e} and {row.state_error:.2e}"
            f"{f' ({row.note})' if row.note else ''}; nothing was written"
        )
    return row


def _at_once(yardstick: Yardstick, batch: Batch, road: str, counts: tuple[int, ...] | None) -> Row:
    """One batch, each sequence against the reference of its own steps."""
    model = yardstick.model
    seeds = range(BATCH_SEED, BATCH_SEED + BATCH)
    # Beyond a sequence's end stands what a runtime would go on with if it did not heed the length.
    x = np.stack([reference.check_input(model, BATCH_STEPS, seed) for seed in seeds])
    steps = counts or (BATCH_STEPS,) * BATCH
    y, ends = batch(x, None if counts is None else np.array(counts, np.int32))
    true = [truth(model, row[:n]) for row, n in zip(x, steps, strict=True)]
    # One yardstick for the batch, as for all steps of a stream: how far plain float32 is at its
    # worst. At the end of one short sequence it may happen to be almost exact.
    together = Truth(
        x.reshape(-1, model.input_size),
        np.concatenate([one.output for one in true]),
        tuple(np.stack(vectors) for vectors in zip(*(one.state for one in true), strict=True)),
        max(one.bound for one in true),
        max(one.state_bound for one in true),
    )
    if y.shape[:2] != x.shape[:2]:
        raise ExportError(
            f"{road}: expected outputs {(*x.shape[:2], model.output_size)}, found {y.shape}; "
            "nothing was written"
        )
    parts = [row[:n] for row, n in zip(y, steps, strict=True)]
    row = _right(judge(road, lambda _: (np.concatenate(parts), ends), together, yardstick))
    rest = max(float(np.abs(row[n:]).max(initial=0)) for row, n in zip(y, steps, strict=True))
    if not rest == 0:
        raise ExportError(
            f"{road}: expected outputs of exactly 0 after each sequence's end, found {rest:.2e}; "
            "nothing was written"
        )
    return replace(row, steps=sum(steps))


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

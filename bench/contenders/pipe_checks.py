"""What the answer to a timed turn must be: times that can be, and the outputs of the model.

A check gives None, or what was expected and what was found.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.verify import FLOOR, REDUCED, Yardstick, truth

from .contender import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fastlstm.model import Model

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]
    Times = NDArray[np.int64]
    Complaint = tuple[str, str]

# The clocks of two processes may run this differently.
CLOCKS = 1.01
# Half of the last digit of a number with nine.
PRINTED = 5e-9
# A program computes again what it computed before: its own outputs stand in for the reference's
# where its precision has no bound, and may differ by this part of the greatest.
SAME = 1e-4
# Turns come again with the same samples, each round, so what is right is worked out once.
REMEMBERED = 32


def times_in_a_row(times: Times, total_ns: int, passed_ns: int) -> Complaint | None:
    """Nothing took longer by the program's clock than by this side's, which saw all of it."""
    claimed = total_ns + int(times.sum())
    if claimed > passed_ns * CLOCKS:
        return f"times of at most the {passed_ns:,} ns that passed here", f"{claimed:,} ns"
    return None


def times_on_schedule(late_ns: Times, due_ns: Times, passed_ns: int) -> Complaint | None:
    """Calls are done one after the other, and all of them before the program answers.

    A program that times a call from when it began, and not from when it was due, says of a call
    that had to wait that it was done before the one that it waited for.
    """
    done = due_ns[: len(late_ns)] + late_ns
    if back := np.flatnonzero(np.diff(done) < 0).tolist():
        before, k = done[back[0]], back[0] + 1
        return (
            f"call {k} done no earlier than call {k - 1}, at {before:,} ns: a call that had to "
            "wait is timed from when it was due",
            f"{done[k]:,} ns",
        )
    if done[-1] > passed_ns * CLOCKS:
        return (
            f"an answer after the last call was done, at {done[-1]:,} ns",
            f"one after {passed_ns:,} ns",
        )
    return None


@dataclass(frozen=True)
class _Right:
    """What calls put out: (steps, values), each within `bound`."""

    outputs: Doubles
    bound: float


class OutputCheck:
    """Holds the last outputs of a timed turn, and their sums over it, against those of the model.

    They are the reference's, within the bound of fastlstm.verify. A program whose precision has
    none is held to what it puts out itself when it is not timed.
    """

    def __init__(self, model: Model, precision: str) -> None:
        """Of `model`; costs nothing yet."""
        self._model = model
        self._reduced = precision in REDUCED
        self._yardstick = Yardstick(model)
        self._known: dict[bytes, _Right] = {}

    def __call__(
        self,
        kind: str,
        blocks: Floats,
        calls: int,
        last: Doubles,
        total: Doubles,
        untimed: Callable[[str, Floats], Doubles],
    ) -> Complaint | None:
        """Of the first `calls` of `blocks` (calls, block, I), or (calls, streams, I) of a batch.

        `untimed` makes the same calls without a clock: (steps, values).
        """
        right = self._right(kind, blocks, untimed)
        outputs = right.outputs[: calls * (1 if kind == BATCH else blocks.shape[1])]
        complaint = _compare(outputs, right.bound, last, total)
        if complaint is None or self._reduced:
            return complaint
        # A few steps may happen to be almost exact in plain float32; many are not.
        return _compare(outputs, max(right.bound, self._yardstick.bounds[0]), last, total)

    def _right(
        self, kind: str, blocks: Floats, untimed: Callable[[str, Floats], Doubles]
    ) -> _Right:
        key = hashlib.blake2b(np.ascontiguousarray(blocks).tobytes())
        key.update(f"{kind} {blocks.shape}".encode())
        right = self._known.pop(key.digest(), None)
        if right is None and self._reduced:
            outputs = untimed(kind, blocks)
            right = _Right(outputs, FLOOR + SAME * float(np.abs(outputs).max()))
        elif right is None:
            right = self._by_reference(kind, blocks)
        self._known[key.digest()] = right
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        return right

    def _by_reference(self, kind: str, blocks: Floats) -> _Right:
        streams = blocks.swapaxes(0, 1) if kind == BATCH else [blocks.reshape(-1, blocks.shape[2])]
        true = [truth(self._model, x) for x in streams]
        outputs = np.concatenate([one.output for one in true], axis=1)
        return _Right(outputs, max(one.bound for one in true))


def _compare(outputs: Doubles, bound: float, last: Doubles, total: Doubles) -> Complaint | None:
    steps, exact = len(outputs), outputs.sum(axis=0)
    for name, found, true, allowed in (
        ("last", last, outputs[-1], bound),
        ("sum", total, exact, steps * bound),
    ):
        limit: Any = allowed + PRINTED * np.abs(true)
        # Written so that a NaN is wrong.
        if wrong := np.flatnonzero(~(np.abs(found - true) <= limit)).tolist():
            k = wrong[0]
            return (
                f"{name}= of the outputs of {steps} timed steps, at place {k} {true[k]:.9g} within "
                f"{limit[k]:.2g}",
                f"{found[k]:.9g}, so that what was timed is not the model",
            )
    return None

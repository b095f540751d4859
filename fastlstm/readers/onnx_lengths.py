"""Lengths in an ONNX graph: what holds a state from a sequence's end on, and nodes that heed them.

Our exporter writes graphs that are right where sequence_lens is passed over; both are read here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from fastlstm.model import Array

# What a further input that is 1 after a sequence's end adds to the gates i and f of an LSTM, less
# or more: c = f * c + i * g is c then.
HOLD = 1e9


def holds(column: Array, others: Iterable[Array]) -> bool:
    """Whether the weights of an input hold an LSTM's c where that input is 1.

    `column` (4 * units,) and `others` (4 * units, ..), its other weights and biases, are in
    PyTorch's order, i f g o. Units whose own weights are all 0 have no c to be held.
    """
    i, f, g, o = np.split(column, 4)
    held = f == HOLD
    if not held.any() or (i != -f).any() or g.any() or o.any() or f[~held].any():
        return False
    return not any(
        array.reshape(4, len(held), *array.shape[1:])[:, ~held].any() for array in others
    )


def shorter(batch: int, time: int) -> NDArray[np.int32]:
    """Lengths (batch,) of sequences of which each is shorter than `time`, which is 2 or more."""
    return np.asarray([time - 1 - k % (time - 1) for k in range(batch)], np.int32)


def heeding() -> list[Any]:
    """LSTM, GRU and RNN of onnx's reference evaluator, which pass over sequence_lens, heeding it.

    For ReferenceEvaluator(new_ops=..). Lengths are 1 or more.
    """
    from onnx.reference.ops import op_gru, op_lstm, op_rnn

    bases = {"LSTM": op_lstm.LSTM, "GRU": op_gru.GRU, "RNN": op_rnn.RNN_14}
    return [
        type(kind, (base,), {"op_domain": "", "_run": _by_row(base, 2 if kind == "LSTM" else 1)})
        for kind, base in bases.items()
    ]


def _by_row(base: Any, states: int) -> Any:
    """The node's `_run`, sequence by sequence where it has lengths."""

    def run(self: Any, x: Any, w: Any, r: Any, b: Any = None, *more: Any, **options: Any) -> Any:
        lengths, *rest = more or [None]
        if lengths is None:
            return base._run(self, x, w, r, b, None, *rest, **options)
        batch_first = bool(options.get("layout"))
        time, batch = (1, 0) if batch_first else (0, 1)
        found = []
        for row, length in enumerate(lengths):
            part = x.take([row], batch).take(range(length), time)
            given = [s if s is None else s.take([row], batch) for s in rest[:states]]
            y, *ends = base._run(self, part, w, r, b, None, *given, *rest[states:], **options)
            pads = [(0, 0)] * y.ndim
            pads[time] = (0, x.shape[time] - length)
            found.append((np.pad(y, pads), *ends))
        y, *ends = zip(*found, strict=True)
        axis = 0 if batch_first else 2
        return (
            np.concatenate(y, axis),
            *(np.concatenate(end, 0 if batch_first else 1) for end in ends),
        )

    return run

"""torch's Cells, eager: torch.lstm_cell and kin, which nn.LSTMCell and kin call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.export.runtimes import version_of
from fastlstm.export.torch_sessions import TorchCellSession

from .contender import BATCH, STEP, Contender
from .installed import needs_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fastlstm.model import Model

    Floats = NDArray[np.float32]

NAME = "torch cells"


class CellSession(TorchCellSession):
    """See TorchCellSession; its inference mode is made once and entered at each call."""

    def __init__(self, model: Model) -> None:
        """Raises UnsupportedError for a bidirectional model."""
        super().__init__(model)
        mode = self.torch.inference_mode()
        once: Any = lambda: mode  # noqa: E731
        self.inference = once

    def batch(self, streams: int) -> CellStreams:
        """See Session."""
        return CellStreams(self.model, self.call, streams)

    def close(self) -> None:
        """Nothing to let go of."""


class CellStreams:
    """So many streams as one batch; `call(x (streams, I), states)` -> y and the new states."""

    def __init__(self, model: Model, call: Callable[[Any, Any], Any], streams: int) -> None:
        """A buffer for their samples, whose memory NumPy and torch share."""
        import torch

        self.model, self.call, self.count = model, call, streams
        self.x = torch.zeros(streams, model.input_size)
        self.samples = self.x.numpy()
        self.tensor, self.inference = torch.tensor, torch.inference_mode()
        self.reset()

    def reset(self) -> None:
        """See Streams."""
        self.carried = [
            self.tensor(np.tile(state.initial, (self.count, 1))) for state in self.model.states
        ]

    def step(self, x: Floats) -> Floats:
        """See Streams."""
        self.samples[:] = x
        with self.inference:
            y, *self.carried = self.call(self.x, self.carried)
        return y.numpy()  # type: ignore[no-any-return]


CELLS = Contender(
    NAME,
    "one thread, inference mode, nn.LSTMCell's own call for each layer",
    CellSession,
    needs_of("torch cells, by step"),
    version_of("torch"),
    frozenset((STEP, BATCH)),
)
CONTENDERS = (CELLS,)

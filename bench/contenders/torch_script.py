"""TorchScript: Cells traced for a step, nn.LSTM and kin traced for a sequence, both frozen."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.export.replay import need_no_future
from fastlstm.export.runtimes import version_of
from fastlstm.export.torch_sessions import WARM_UP, TorchCellSession, TorchScriptSession
from fastlstm.export.torchscript_module import no_legacy_warnings

from .contender import Contender
from .installed import needs_of
from .torch_cells import CellStreams

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fastlstm.model import Model

    Floats = NDArray[np.float32]

NAME = "TorchScript"


class ScriptSession:
    """One stream; both modules carry the same state, so that steps and blocks may be mixed."""

    def __init__(self, model: Model) -> None:
        """Trace, freeze, and warm up both."""
        import torch

        self.model = model
        self.whole = TorchScriptSession(model)
        self.inference = torch.inference_mode()
        self.x = self.whole.x[0]
        if not model.bidirectional:
            self.cells = traced_cells(model)
            for _ in range(WARM_UP):
                self.timed_step(np.zeros(model.input_size, np.float32))
        self.reset()

    def reset(self) -> None:
        """See Session."""
        self.whole.reset()

    def timed_step(self, x: Floats) -> Floats:
        """One sample: x (I,) -> a fresh (O,)."""
        whole = self.whole
        whole.sample[:] = x
        with self.inference:
            y, *whole.carried = self.cells(self.x, whole.carried)
        return y.numpy()[0]  # type: ignore[no-any-return]

    def step(self, x: Floats) -> Floats:
        """As `timed_step`; raises UnsupportedError for a bidirectional model."""
        need_no_future(self.model, NAME)
        return self.timed_step(x)

    def run(self, x: Floats) -> Floats:
        """A block of samples: x (time, I) -> (time, O)."""
        return self.whole.run(x)

    def batch(self, streams: int) -> CellStreams:
        """See Session."""
        need_no_future(self.model, NAME)
        return CellStreams(self.model, self.cells, streams)

    def close(self) -> None:
        """Nothing to let go of."""


def traced_cells(model: Model) -> Callable[[Any, Any], Any]:
    """A step of torch's Cells: x (batch, I), states -> [y, *states]; any batch.

    The traced nn.LSTM takes 1.5 times as long for a single step.
    """
    import torch

    cells = TorchCellSession(model)

    class Cells(torch.nn.Module):
        def forward(self, x: Any, *states: Any) -> Any:
            return cells.call(x, states)

    # More than one stream, so that no size is taken for the constant 1.
    x = torch.zeros(2, model.input_size)
    states = [torch.zeros(2, state.size) for state in model.states]
    with no_legacy_warnings(), torch.no_grad():
        # Of sizes that are read while it is traced, which are the layers' own and never change.
        warnings.filterwarnings("ignore", category=torch.jit._trace.TracerWarning)
        traced: Any = torch.jit.trace(Cells().eval(), (x, *states))  # type: ignore[no-untyped-call]
        frozen: Any = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
    return lambda x, states: frozen(x, *states)


SCRIPT = Contender(
    NAME,
    "one thread, inference mode, frozen; a step by traced Cells, a sequence by traced nn.LSTM",
    ScriptSession,
    needs_of("TorchScript, by step"),
    version_of("torch"),
)
CONTENDERS = (SCRIPT,)

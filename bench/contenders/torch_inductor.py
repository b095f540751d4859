"""One step compiled by Inductor, in this process and ahead of time, its results in given memory.

The step of fastlstm.export.inductor_package, whose outputs and new states are written over buffers
that are bound once. Both are compiled for one stream, and a block is a loop of steps.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ExportError, UnsupportedError
from fastlstm.export.inductor_package import cell_step
from fastlstm.export.runtimes import version_of
from fastlstm.export.torch_sessions import WARM_UP
from fastlstm.export.torchscript_module import no_legacy_warnings

from .contender import STEP, Contender
from .installed import needs_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fastlstm.model import Model

    from .contender import Streams

    Floats = NDArray[np.float32]


class _InPlaceSession:
    """One stream over the buffers x, y and the states; subclasses say what a step is."""

    name: str
    call: Callable[[], Any]

    def __init__(self, model: Model) -> None:
        """Buffers whose memory NumPy and torch share."""
        import torch

        self.model = model
        self.states = [torch.zeros(1, state.size) for state in model.states]
        self.arguments = [
            torch.zeros(1, model.input_size),
            torch.zeros(1, model.output_size),
            *self.states,
        ]
        self.sample, self.y = (buffer.numpy()[0] for buffer in self.arguments[:2])

    def reset(self) -> None:
        """See Session."""
        for buffer, state in zip(self.states, self.model.states, strict=True):
            buffer.numpy()[0] = state.initial

    def timed_step(self, x: Floats) -> Floats:
        """One sample: x (I,) -> (O,), a buffer."""
        self.sample[:] = x
        self.call()
        return self.y  # type: ignore[no-any-return]

    def step(self, x: Floats) -> Floats:
        """As `timed_step`, a fresh array."""
        return self.timed_step(x).copy()

    def run(self, x: Floats) -> Floats:
        """A block of samples: x (time, I) -> (time, O)."""
        y = np.empty((len(x), self.model.output_size), np.float32)
        for t, sample in enumerate(x):
            y[t] = self.timed_step(sample)
        return y

    def batch(self, streams: int) -> Streams:
        """Compiled for one stream: raises UnsupportedError."""
        raise UnsupportedError(f"{self.name}: compiled for one stream at a time")

    def close(self) -> None:
        """Nothing to let go of."""


class CompileSession(_InPlaceSession):
    """torch.compile of the step; compiles when it is made."""

    name = "torch.compile"

    def __init__(self, model: Model) -> None:
        """Takes about ten seconds the first time, less from Inductor's cache on disk."""
        module = _in_place(model)
        super().__init__(model)
        import torch

        # Dynamo keeps what it compiled with the code object: each model gets its own.
        forward = type(module).forward
        own = FunctionType(forward.__code__.replace(), forward.__globals__, "step")
        options: dict[str, Any] = {}
        if hasattr(torch.compiler, "skip_all_guards_unsafe"):
            # One stream always calls with the same buffers, so that no guard can fail.
            options["guard_filter_fn"] = torch.compiler.skip_all_guards_unsafe
        # Without fullgraph, whose bookkeeping takes 4 us of 36 a call; a test holds that there is
        # one graph.
        with no_legacy_warnings():
            compiled: Any = torch.compile(MethodType(own, module), dynamic=False, options=options)
        arguments, mode = self.arguments, torch.inference_mode()

        def call() -> None:
            with mode:
                compiled(*arguments)

        self.call = call
        with no_legacy_warnings():
            for _ in range(WARM_UP):
                self.step(np.zeros(model.input_size, np.float32))
        self.reset()


class AheadSession(_InPlaceSession):
    """An AOTInductor package of the step, called through its loader: a flat list in."""

    name = "AOTInductor"

    def __init__(self, model: Model) -> None:
        """Compiles a package in a temporary folder (about ten seconds)."""
        module = _in_place(model)
        super().__init__(model)
        import torch

        try:
            with (
                tempfile.TemporaryDirectory(prefix="fastlstm-") as folder,
                no_legacy_warnings(),
                torch.no_grad(),
            ):
                program = torch.export.export(module, tuple(self.arguments), strict=False)
                path = str(Path(folder) / "model.pt2")
                torch._inductor.aoti_compile_and_package(program, package_path=path)
                # No lock for threads that are not there.
                package: Any = torch._inductor.aoti_load_package(path, run_single_threaded=True)
        except Exception as error:  # the compiler and everything under it may raise anything
            reason = (str(error).strip().splitlines() or ["no reason given"])[0]
            raise ExportError(
                f"{self.name} could not compile the model: {type(error).__name__}: {reason}"
            ) from None
        self.package = package
        arguments, run = self.arguments, package.loader.boxed_run
        # It empties the list that it is given.
        self.call = lambda: run([*arguments])
        self.reset()


def _in_place(model: Model) -> Any:
    """A module: forward(x (1, I), y (1, O), *states (1, H)) -> None, all but x overwritten.

    Raises UnsupportedError for a bidirectional model.
    """
    step = cell_step(model)
    from torch import nn

    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step = step

        def forward(self, x: Any, y: Any, *states: Any) -> None:
            found, *after = self.step(x, *states)
            y.copy_(found)
            for state, value in zip(states, after, strict=True):
                state.copy_(value)

    return InPlace().eval()


COMPILE = Contender(
    CompileSession.name,
    "one thread, inference mode, Inductor's default mode, no guards, results in given buffers",
    CompileSession,
    needs_of("torch.compile, by step"),
    version_of("torch"),
    frozenset((STEP,)),
    builds=True,
)
AHEAD = Contender(
    AheadSession.name,
    "one thread, called through the package's loader without its lock, results in given buffers",
    AheadSession,
    needs_of("AOTInductor, by step"),
    version_of("torch"),
    frozenset((STEP,)),
    builds=True,
)
CONTENDERS = (COMPILE, AHEAD)

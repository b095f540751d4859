"""A Model as TorchScript: legacy, for C++ and Python programs that already load such files.

PyTorch no longer develops TorchScript; new programs should take ONNX or the AOTInductor package.
"""

from __future__ import annotations

import io
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastlstm.errors import MissingExtraError

from .replay import Exported, check_place, put, replay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch

    from fastlstm.model import Model

SNIPPET = """\
import torch
module = torch.jit.load({path!r})
x = torch.zeros(1, 10, {inputs})  # (batch, time, input_size), batch and time as you like
y, state = module(x, module.initial_state(x))
"""
MORE = "y, state = module(x, state)  # the ten steps after them\n"


def write(model: Model, path: str | Path) -> Exported:
    """Trace, load the traced bytes again, replay them, then write them to `path`."""
    path = check_place(path)
    buffer = io.BytesIO()
    scripted = to_torchscript(model)
    import torch

    with no_legacy_warnings():
        torch.jit.save(scripted, buffer)
        buffer.seek(0)
        loaded: Any = torch.jit.load(buffer)  # type: ignore[no-untyped-call]
    from .torch_sessions import TorchScriptSession

    done = replay(model, TorchScriptSession(model, loaded), "TorchScript")
    put(path, buffer.getvalue())
    snippet = SNIPPET.format(path=str(path), inputs=model.input_size)
    if not model.bidirectional:
        snippet += MORE
    return Exported(
        path, "torchscript", done.steps, done.max_abs_error, done.bound, snippet, done.ways
    )


def to_torchscript(model: Model) -> torch.jit.ScriptModule:
    """The traced twin of `model`, with batch and time dynamic.

    forward(x, state) -> (y, state): x (batch, time, input_size), y (batch, time, output_size),
    state a flat tuple of (batch, H) in the order of Model.states. initial_state(x) gives the state
    at the start of a stream for as many sequences as x has. Of a bidirectional model x is a whole
    sequence.
    """
    try:
        import torch

        from fastlstm.train.network import Network
    except ImportError:
        raise MissingExtraError("torch", "train", "exporting to TorchScript") from None
    network = Network.from_model(model).requires_grad_(False)
    # More than one sequence and step, so that no size is taken for the constant 1.
    x = torch.zeros(2, 3, model.input_size)
    with no_legacy_warnings(), torch.no_grad():
        inputs: dict[str, Any] = {
            "forward": (x, network.initial_state(x)),
            "initial_state": (x,),
        }
        traced: torch.jit.ScriptModule = torch.jit.trace_module(  # type: ignore[no-untyped-call]
            network, inputs
        )
    return traced


@contextmanager
def no_legacy_warnings() -> Iterator[None]:
    """Quiet about TorchScript's age, which the docstrings here tell, and about torch's own imports.

    Inductor needs it too: torch builds a part of itself as TorchScript, and its export still asks
    for tree leaves in a way that it warns others of.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is ", DeprecationWarning)
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
        yield

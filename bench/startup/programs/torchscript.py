"""A program that ships one TorchScript file and runs it, frozen, one thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


def load(path: str) -> Callable[[Any], Any]:
    """A step: x (I,) float32 -> (O,), the state carried."""
    torch.set_num_threads(1)
    # For the rest of the process: a `with` in each step would be part of its time.
    torch.inference_mode().__enter__()
    # oneDNN's LSTM prepares itself anew at each call: a single step is twice as fast without it.
    torch.backends.mkldnn.set_flags(False)  # type: ignore[no-untyped-call]
    whole = torch.jit.load(path).eval()  # type: ignore[no-untyped-call]
    state = whole.initial_state(torch.zeros(1, 1, 1))
    module = torch.jit.freeze(whole)

    def step(x: Any) -> Any:
        nonlocal state
        y, state = module(torch.from_numpy(x).reshape(1, 1, -1), state)
        return y.numpy().reshape(-1)

    return step

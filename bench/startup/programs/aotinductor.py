"""A program that ships one AOTInductor package of machine code and runs it, one thread.

Loaded by torch's documented call, whose imports take longer than the loading; a C++ program would
not pay for them. Run through the package's loader, flat lists in and out: its own call sorts the
arguments into trees and back, which takes longer than a small network.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
import torch._inductor

if TYPE_CHECKING:
    from collections.abc import Callable


def load(path: str) -> Callable[[Any], Any]:
    """A step: x (I,) float32 -> (O,), the state carried."""
    torch.set_num_threads(1)
    # For the rest of the process: a `with` in each step would be part of its time.
    torch.inference_mode().__enter__()
    package = torch._inductor.aoti_load_package(path)
    card = json.loads(package.get_metadata()["fastlstm"])
    carried = [torch.tensor([state["initial"]]) for state in card["states"]]
    call, row = package.loader.boxed_run, torch.zeros(1, card["input_size"])
    sample = row.numpy()[0]

    def step(x: Any) -> Any:
        nonlocal carried
        sample[:] = x
        y, *carried = call([row, *carried])
        return y.numpy()[0]

    return step

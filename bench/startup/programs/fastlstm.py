"""A program that ships one .safetensors file and streams it with fastlstm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fastlstm

if TYPE_CHECKING:
    from collections.abc import Callable


def load(path: str) -> Callable[[Any], Any]:
    """A step: x (I,) float32 -> a fresh (O,), the state carried."""
    return fastlstm.load(path).stream().step

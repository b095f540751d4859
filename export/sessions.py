"""Every foreign runtime as one live stream behind the same four methods: reset, step, run, state.

The roads of `verify`, the contenders of `bench` and the replay of every exporter are these.
"""

from .onnx_sessions import OnnxBindingSession, OnnxSession
from .replay import Session
from .torch_sessions import (
    AotiSession,
    InductorSession,
    TorchCellSession,
    TorchScriptSession,
    TorchSession,
)

__all__ = [
    "AotiSession",
    "InductorSession",
    "OnnxBindingSession",
    "OnnxSession",
    "Session",
    "TorchCellSession",
    "TorchScriptSession",
    "TorchSession",
]

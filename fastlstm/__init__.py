"""fastlstm: train a recurrent network, keep it as one small file, run it anywhere.

Importing it brings NumPy, Numba and safetensors, and nothing else; `fastlstm.export`,
`fastlstm.train` and `fastlstm.bench` are imported when they are first named.
"""

from __future__ import annotations

import importlib
from typing import Any

from fastlstm import reference
from fastlstm.errors import (
    CacheError,
    ExportError,
    FastLSTMError,
    InputError,
    MissingExtraError,
    ModelError,
    ModelFileError,
    ReaderError,
    SnapshotError,
    StreamBusyError,
    UnsupportedError,
)
from fastlstm.model import (
    GRU,
    LSTM,
    RNN,
    Affine,
    Bidirectional,
    Dense,
    Difference,
    LayerNorm,
    Model,
    Residual,
)
from fastlstm.model_file import load
from fastlstm.readers.onnx_file import read as from_onnx
from fastlstm.readers.torch_module import read as from_torch
from fastlstm.stream import Stream
from fastlstm.verify import verify
from fastlstm.warmup import warmup

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Affine",
    "Bidirectional",
    "CacheError",
    "Dense",
    "Difference",
    "ExportError",
    "FastLSTMError",
    "InputError",
    "LayerNorm",
    "MissingExtraError",
    "Model",
    "ModelError",
    "ModelFileError",
    "ReaderError",
    "Residual",
    "SnapshotError",
    "Stream",
    "StreamBusyError",
    "UnsupportedError",
    "from_onnx",
    "from_torch",
    "load",
    "reference",
    "verify",
    "warmup",
]


_ON_DEMAND = ("bench", "export", "train")


def __getattr__(name: str) -> Any:
    if name in _ON_DEMAND:
        return importlib.import_module(f"fastlstm.{name}")
    raise AttributeError(f"module 'fastlstm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ON_DEMAND])

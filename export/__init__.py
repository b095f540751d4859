"""A Model written for another runtime: ONNX, TorchScript (legacy) and AOTInductor.

Every exporter replays the model through its target before a file is written, and writes it whole.
The target's library is imported only when its exporter is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .replay import Exported

if TYPE_CHECKING:
    from pathlib import Path

    from fastlstm.model import Model

__all__ = ["Exported", "inductor", "onnx", "torchscript"]


def onnx(model: Model, path: str | Path) -> Exported:
    """Write `model` as an .onnx file: states as inputs and outputs, batch and time dynamic.

    A bidirectional model takes whole sequences. Raises ExportError, and leaves an older file as it
    was, if ONNX Runtime does not compute the reference's numbers; UnsupportedError for a
    projection, which ONNX's LSTM lacks; MissingExtraError without onnx and onnxruntime.
    """
    from . import onnx_graph

    return onnx_graph.write(model, path)


def torchscript(model: Model, path: str | Path) -> Exported:
    """Write `model` as TorchScript, for programs that already load it; PyTorch calls it legacy.

    Raises ExportError and MissingExtraError as `onnx` does.
    """
    from . import torchscript_module

    return torchscript_module.write(model, path)


def inductor(model: Model, path: str | Path) -> Exported:
    """Write one step of `model` as an AOTInductor package (.pt2): machine code for this CPU.

    Raises ExportError and MissingExtraError as `onnx` does, ExportError without a C++ compiler, and
    UnsupportedError for a bidirectional model, which has no single steps.
    """
    from . import inductor_package

    return inductor_package.write(model, path)

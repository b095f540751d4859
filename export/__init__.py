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


def onnx(model: Model, path: str | Path, *, lengths: bool = False, half: bool = False) -> Exported:
    """Write `model` as an .onnx file: states as inputs and outputs, batch and time dynamic.

    `lengths` adds an input of that name, (batch,) int32: the real steps of each sequence of a
    padded batch; without it there is none, because a live stream would pay for it at each step.
    `half` stores the weights as float16, for a file half as big; arithmetic stays float32, the
    check is against the model with these weights, and `rounding` of the result says how far its
    outputs are from the given model's. A bidirectional model takes whole sequences.

    Raises ExportError, and leaves an older file as it was, if ONNX Runtime does not compute the
    reference's numbers, or with `half` for a weight beyond float16's range; MissingExtraError
    without onnx and onnxruntime.
    """
    from . import onnx_graph

    return onnx_graph.write(model, path, lengths=lengths, half=half)


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

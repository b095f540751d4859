"""Every runtime that an exported ONNX file is proven on."""

from __future__ import annotations

from .opencv_runtime import opencv
from .python_runtimes import onnx_runtime, openvino, reference_evaluator

RUNTIMES = (onnx_runtime, reference_evaluator, openvino, opencv)

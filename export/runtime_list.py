"""Every runtime that an exported ONNX file is proven on."""

from __future__ import annotations

from .javascript_runtimes import node_runtime, web_runtime
from .opencv_runtime import opencv
from .python_runtimes import onnx_runtime, openvino, reference_evaluator

RUNTIMES = (onnx_runtime, reference_evaluator, openvino, opencv, node_runtime, web_runtime)

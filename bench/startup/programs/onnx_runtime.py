"""A program that ships one .onnx file and runs it with ONNX Runtime's plain `run`, one thread."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable


def load(path: str) -> Callable[[Any], Any]:
    """A step: x (I,) float32 -> a fresh (O,), the state carried."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # For one small step, malloc is faster than the arena and its plans.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    states = json.loads(session.get_modelmeta().custom_metadata_map["fastlstm"])["states"]
    fed_back = [state["input"] for state in states]
    outputs = ["y", *(state["output"] for state in states)]
    feed = {state["input"]: np.array([state["initial"]], np.float32) for state in states}

    def step(x: Any) -> Any:
        feed["x"] = x.reshape(1, 1, -1)
        y, *carried = session.run(outputs, feed)
        feed.update(zip(fed_back, carried, strict=True))
        return y.reshape(-1)

    return step

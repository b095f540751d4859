"""A program that ships one .onnx file and runs it with OpenVINO, one thread.

Shapes are made static for one sequence of one step, and inputs are memory shared with NumPy: a
step takes a quarter to a half of what it does with the file's own shapes and plain arguments.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino

if TYPE_CHECKING:
    from collections.abc import Callable

# Without the hints a CPU with bfloat16 units may compute in bfloat16.
PROPERTIES = {
    "INFERENCE_PRECISION_HINT": "f32",
    "EXECUTION_MODE_HINT": "ACCURACY",
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": "1",
}


def load(path: str) -> Callable[[Any], Any]:
    """A step: x (I,) float32 -> a fresh (O,), the state carried."""
    core = openvino.Core()
    network = core.read_model(path)
    card = json.loads(network.get_rt_info(["framework", "fastlstm"]).astype(str))
    inputs = {"x": np.zeros((1, 1, card["input_size"]), np.float32)}
    for state in card["states"]:
        inputs[state["input"]] = np.array([state["initial"]], np.float32)
    network.reshape({name: list(array.shape) for name, array in inputs.items()})
    request = core.compile_model(network, "CPU", PROPERTIES).create_infer_request()
    for name, array in inputs.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    sample = inputs["x"][0, 0]
    y = request.get_tensor("y").data
    carried = [
        (inputs[state["input"]], request.get_tensor(state["output"]).data)
        for state in card["states"]
    ]

    def step(x: Any) -> Any:
        sample[:] = x
        request.infer()
        for before, after in carried:
            before[:] = after
        return y.flatten()

    return step

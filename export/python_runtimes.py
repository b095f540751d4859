"""The runtimes that are Python packages: ONNX Runtime, ONNX's reference evaluator, OpenVINO.

Each is imported only when a graph is loaded into it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .runtimes import Runtime, not_installed, refusal, version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Feeds = Mapping[str, NDArray[Any]]
    Results = dict[str, NDArray[Any]]

ONNX_RUNTIME = "ONNX Runtime"
EVALUATOR = "ONNX reference evaluator"
OPENVINO = "OpenVINO"

# Without the hints a CPU with bfloat16 units may compute in bfloat16, and a stream of one is spread
# over all cores.
OPENVINO_PROPERTIES = {
    "INFERENCE_PRECISION_HINT": "f32",
    "EXECUTION_MODE_HINT": "ACCURACY",
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": "1",
}


class _InProcess:
    """A runner around one call; whatever the runtime raises from there is its refusal."""

    def __init__(self, runtime: str, call: Callable[[Feeds], Results]) -> None:
        self.runtime, self.call = runtime, call

    def run(self, feeds: Feeds) -> Results:
        """See Runner."""
        try:
            return self.call(feeds)
        except Exception as error:  # a foreign runtime may raise anything
            raise refusal(self.runtime, error) from error

    def close(self) -> None:
        """Nothing to let go of."""


def _in_process(name: str, prepare: Callable[[bytes], Callable[[Feeds], Results]]) -> Any:
    """A `load` from `prepare`; what it raises is a refusal."""

    def load(data: bytes) -> _InProcess:
        try:
            return _InProcess(name, prepare(data))
        except Exception as error:  # a foreign runtime may raise anything
            raise refusal(name, error) from error

    return load


def _onnx_runtime(data: bytes) -> Callable[[Feeds], Results]:
    from .onnx_sessions import start

    session = start(data)
    names = [value.name for value in session.get_outputs()]

    def call(feeds: Feeds) -> Results:
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))

    return call


def _evaluator(data: bytes) -> Callable[[Feeds], Results]:
    import onnx
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(onnx.load_from_string(data))
    names = list(session.output_names)

    def call(feeds: Feeds) -> Results:
        # Its sigmoid of a saturated gate overflows on the way to 0, which NumPy would warn of.
        with np.errstate(all="ignore"):
            found = session.run(names, dict(feeds))
        return dict(zip(names, found, strict=True))

    return call


def _openvino(data: bytes) -> Callable[[Feeds], Results]:
    import openvino

    core = openvino.Core()
    network = core.compile_model(core.read_model(data), "CPU", OPENVINO_PROPERTIES)
    request = network.create_infer_request()
    names = [output.get_any_name() for output in network.outputs]

    def call(feeds: Feeds) -> Results:
        found = request.infer(dict(feeds), share_inputs=False)
        return {name: np.array(found[name]) for name in names}

    return call


onnx_runtime = Runtime(
    ONNX_RUNTIME,
    _in_process(ONNX_RUNTIME, _onnx_runtime),
    not_installed("onnxruntime"),
    version_of("onnxruntime", "onnxruntime-gpu"),
    "Python wheel; CPU provider, one thread, every graph optimisation",
)
reference_evaluator = Runtime(
    EVALUATOR,
    _in_process(EVALUATOR, _evaluator),
    not_installed("onnx"),
    version_of("onnx"),
    "onnx.reference.ReferenceEvaluator of the onnx package, in NumPy",
)
openvino = Runtime(
    OPENVINO,
    _in_process(OPENVINO, _openvino),
    not_installed("openvino"),
    version_of("openvino"),
    "Python wheel; CPU device, float32 precision hint, accuracy mode, one thread, one stream",
)

"""OpenVINO: the state inside the network, shapes fixed, sample and output in memory it shares.

One compiled network for each length of a block and each number of streams, made when first met.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastlstm.export import onnx_graph
from fastlstm.export.card import state_names
from fastlstm.export.python_runtimes import OPENVINO, OPENVINO_PROPERTIES, openvino
from fastlstm.export.replay import need_no_future
from fastlstm.export.runtimes import not_installed, refusal

from .contender import Contender

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fastlstm.model import Model

    Floats = NDArray[np.float32]


class Request:
    """A network for so many steps of so many streams a call, and the one request of it.

    `samples` (steps, streams, I) is what it reads; `outputs` (steps, streams, O) what it writes.
    """

    def __init__(self, model: Model, data: bytes, *, bare: bool, steps: int, streams: int) -> None:
        """Compile; raises UnsupportedError, in OpenVINO's words, where it refuses the graph."""
        import openvino
        from openvino.passes import MakeStateful, Manager

        self.streams = streams
        names = [state_names(state) for state in model.states]
        # ONNX's axis of directions stands before the streams in the bare graph.
        axes = (1,) if bare else ()
        lead = (steps, streams) if bare else (streams, steps)
        shapes = {"x": [*lead, model.input_size]}
        for (name, _), state in zip(names, model.states, strict=True):
            shapes[name] = [*axes, streams, state.size]
        try:
            core = openvino.Core()
            network = core.read_model(data)
            network.reshape(shapes)
            if names:
                manager = Manager()
                manager.register_pass(MakeStateful(dict(names)))
                manager.run_passes(network)
            compiled = core.compile_model(network, "CPU", OPENVINO_PROPERTIES)
            request = compiled.create_infer_request()
            x = np.zeros(shapes["x"], np.float32)
            y = np.zeros(tuple(compiled.output("y").shape), np.float32)
            request.set_tensor("x", openvino.Tensor(x, shared_memory=True))
            request.set_tensor("y", openvino.Tensor(y, shared_memory=True))
            found = {variable.name: variable for variable in request.query_state()}
        except Exception as error:  # a foreign runtime may raise anything
            raise refusal(OPENVINO, error) from error
        self.compiled, self.infer, self.tensor = compiled, request.infer, openvino.Tensor
        self.variables = [found[before + after] for before, after in names]
        self.shapes = [shapes[name] for name, _ in names]
        y = y.reshape(*lead, model.output_size)
        self.samples: Floats = x if bare else x.swapaxes(0, 1)
        self.outputs: Floats = y if bare else y.swapaxes(0, 1)

    def states(self) -> list[Floats]:
        """Copies of the state vectors, each (streams, H)."""
        return [v.state.data.reshape(self.streams, -1).copy() for v in self.variables]

    def begin(self, states: Sequence[Floats]) -> None:
        """Go on from these states, each (streams, H)."""
        for variable, shape, state in zip(self.variables, self.shapes, states, strict=True):
            variable.state = self.tensor(np.ascontiguousarray(state.reshape(shape)))


class OpenVinoSession:
    """One stream; its state moves from request to request where the length of a block changes."""

    def __init__(self, model: Model) -> None:
        """Compile for single steps, or of a bidirectional model nothing yet."""
        self.model = model
        # OpenVINO computes the peepholes of the LSTM node wrong, which only the bare graph has.
        arrays = (name for layer in model.layers for name in layer.arrays)
        self.bare = not any(name.startswith("peephole") for name in arrays)
        self.data = onnx_graph.build(model, bare=self.bare).SerializeToString()
        self.requests: dict[int, Request] = {}
        self.at: Request | None = None
        if not model.bidirectional:
            one = self._request(1)
            self.one, self.infer = one, one.infer
            self.sample: Floats = one.samples[0, 0]
            self.y: Floats = one.outputs[0, 0]
            self.at = one
        self.reset()

    def reset(self) -> None:
        """See Session."""
        self.pending = [state.initial[None] for state in self.model.states]
        if self.at is not None:
            self.at.begin(self.pending)

    def _request(self, steps: int) -> Request:
        if steps not in self.requests:
            self.requests[steps] = self._compiled(steps, 1)
        return self.requests[steps]

    def _compiled(self, steps: int, streams: int) -> Request:
        return Request(self.model, self.data, bare=self.bare, steps=steps, streams=streams)

    def _move(self, request: Request) -> None:
        """Go on in another request."""
        request.begin(self.pending if self.at is None else self.at.states())
        self.at = request

    def timed_step(self, x: Floats) -> Floats:
        """One sample: x (I,) -> (O,), a buffer."""
        if self.at is not self.one:
            self._move(self.one)
        self.sample[:] = x
        self.infer(None, share_outputs=True)
        return self.y

    def step(self, x: Floats) -> Floats:
        """As `timed_step`, a fresh array; raises UnsupportedError for a bidirectional model."""
        need_no_future(self.model, OPENVINO)
        return self.timed_step(x).copy()

    def run(self, x: Floats) -> Floats:
        """A block of samples: x (time, I) -> (time, O). Compiles for a length not met before."""
        request = self._request(len(x))
        if self.at is not request:
            self._move(request)
        request.samples[:, 0] = x
        request.infer(None, share_outputs=True)
        return request.outputs[:, 0].copy()

    def batch(self, streams: int) -> OpenVinoStreams:
        """See Session."""
        need_no_future(self.model, OPENVINO)
        return OpenVinoStreams(self.model, self._compiled(1, streams))

    def close(self) -> None:
        """Nothing to let go of."""


class OpenVinoStreams:
    """So many streams as one batch."""

    def __init__(self, model: Model, request: Request) -> None:
        """Over a request for one step of all of them."""
        self.model, self.request, self.infer = model, request, request.infer
        self.samples: Floats = request.samples[0]
        self.y: Floats = request.outputs[0]
        self.reset()

    def reset(self) -> None:
        """See Streams."""
        count = len(self.samples)
        self.request.begin([np.tile(state.initial, (count, 1)) for state in self.model.states])

    def step(self, x: Floats) -> Floats:
        """See Streams; the result is a buffer."""
        self.samples[:] = x
        self.infer(None, share_outputs=True)
        return self.y


OPEN_VINO = Contender(
    OPENVINO,
    "one thread, CPU device, float32 precision hint, accuracy mode, one stream; shapes "
    "fixed, the state in the network, the output read in place",
    OpenVinoSession,
    not_installed("onnx", "openvino"),
    openvino.version,
)
CONTENDERS = (OPEN_VINO,)

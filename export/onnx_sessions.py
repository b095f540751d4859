"""ONNX Runtime as a Session: by plain `run` calls, and by IOBinding over buffers of its own.

Both on one thread that never spins, on the CPU provider, with every graph optimisation.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import MissingExtraError

from . import onnx_graph
from .onnx_nodes import LENGTHS
from .replay import need_no_future

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastlstm.model import Model

    Floats = NDArray[np.float32]
    # A graph in memory, its bytes, or a file; None builds the leanest graph of the model.
    Graph = Any | bytes | str | Path | None


def start(graph: Any) -> Any:
    """An onnxruntime.InferenceSession for one latency-bound stream."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "onnx", "running ONNX") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # One step makes a handful of small buffers: malloc beats the arena and its plans by 0.5 us of
    # 5, and a sequence call does not notice.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.log_severity_level = 3
    if isinstance(graph, str | Path):
        source: str | bytes = str(graph)
    else:
        source = graph if isinstance(graph, bytes) else graph.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


class _Ort:
    """What both sessions share: the runtime's session, its names, and which axis is time."""

    def __init__(self, model: Model, graph: Graph = None) -> None:
        """`graph` is a file, its bytes or a ModelProto; None builds onnx_graph's bare one."""
        self.model, self.bidirectional = model, model.bidirectional
        self.session = start(onnx_graph.build(model, bare=True) if graph is None else graph)
        inputs = self.session.get_inputs()
        self.inputs = [value.name for value in inputs]
        self.lengths = self.inputs[-1] == LENGTHS
        self.outputs = [value.name for value in self.session.get_outputs()]
        self.time_first = inputs[0].shape[0] == "time"
        # (1, batch, H) in the bare graph, (batch, H) in the written one.
        self.states = self.inputs[1 : len(inputs) - self.lengths]
        self.shapes = [
            (1,) * (len(value.shape) - 1) + (value.shape[-1],)
            for value in inputs[1 : 1 + len(self.states)]
        ]

    def initial(self) -> list[Floats]:
        states = onnx_graph.initial_states(self.model)
        return [states[n].reshape(s) for n, s in zip(self.states, self.shapes, strict=True)]

    def counts(self, steps: int) -> tuple[NDArray[np.int32], ...]:
        """What a graph that wants lengths is fed besides, for one sequence without padding."""
        return (np.array([steps], np.int32),) if self.lengths else ()

    def laid_out(self, x: Floats) -> Floats:
        """X (time, I) as the graph takes it."""
        return x[:, None] if self.time_first else x[None]


class OnnxSession(_Ort):
    """ONNX Runtime by its plain `run`: arrays in, arrays out, the state fed back by name."""

    def __init__(self, model: Model, graph: Graph = None) -> None:
        """See _Ort: None is the leanest graph."""
        super().__init__(model, graph)
        self.size = model.output_size
        self.one_step = self.counts(1)
        self.reset()

    def reset(self) -> None:
        """Go back to the model's initial state."""
        self.carried = self.initial()

    def step(self, x: Floats) -> Floats:
        """One step: x (I,) -> a fresh (O,)."""
        if self.bidirectional:
            need_no_future(self.model, "ONNX Runtime by step")
        fed = (x.reshape(1, 1, -1), *self.carried, *self.one_step)
        feed = dict(zip(self.inputs, fed, strict=True))
        y, *self.carried = self.session.run(self.outputs, feed)
        return y.reshape(-1)  # type: ignore[no-any-return]

    def run(self, x: Floats) -> Floats:
        """A block of steps: x (time, I) -> (time, O)."""
        if not len(x):
            return np.empty((0, self.size), np.float32)
        fed = (self.laid_out(x), *self.carried, *self.counts(len(x)))
        y, *self.carried = self.session.run(self.outputs, dict(zip(self.inputs, fed, strict=True)))
        return y.reshape(len(x), self.size)  # type: ignore[no-any-return]

    def batch(
        self, x: Floats, lengths: NDArray[np.int32] | None = None
    ) -> tuple[Floats, list[Floats]]:
        """Sequences from the initial state, beside the live one: x (batch, time, I), time >= 1.

        Gives outputs (batch, time, O) and states (batch, H); `lengths` (batch,) are for a graph
        that has such an input, where None takes all steps.
        """
        count, steps = x.shape[:2]
        states = [np.repeat(s.reshape(1, -1), count, axis=0) for s in self.initial()]
        fed: list[Any] = [x.swapaxes(0, 1) if self.time_first else x]
        fed += [s[None] for s in states] if self.time_first else states
        if self.lengths:
            fed.append(np.full(count, steps, np.int32) if lengths is None else lengths)
        y, *ends = self.session.run(self.outputs, dict(zip(self.inputs, fed, strict=True)))
        if self.time_first:
            y = y.reshape(steps, count, self.size).swapaxes(0, 1)
        return y, [end.reshape(count, -1) for end in ends]

    def state(self) -> tuple[Floats, ...]:
        """Copies of the state vectors, each (H,), in the order of Model.states."""
        return tuple(vector.reshape(-1).copy() for vector in self.carried)


class OnnxBindingSession(_Ort):
    """ONNX Runtime at its fastest: buffers bound once, two bindings whose states change places.

    The values of one step lie in memory that NumPy and the runtime share, so that a step copies
    its input in and its output out and allocates nothing else.
    """

    def __init__(self, model: Model, graph: Graph = None) -> None:
        """See _Ort: None is the leanest graph."""
        super().__init__(model, graph)
        self.size = model.output_size
        # Two sets of state buffers: a step reads one and writes the other.
        self.buffers = [[np.zeros(s, np.float32) for s in self.shapes] for _ in range(2)]
        self.values = [[self._value(array) for array in buffers] for buffers in self.buffers]
        self.bound: dict[int, tuple[Floats, Floats, list[Any]]] = {}
        self.fed: list[Any] = []  # the memory of lengths, for as long as bindings read it
        self.x, self.y, (self.now, self.next) = self._bind(1)
        self.x, self.y = self.x.reshape(-1), self.y.reshape(-1)
        self.call = self.session.run_with_iobinding
        self.reset()

    def _value(self, array: NDArray[Any]) -> Any:
        import onnxruntime

        # On the CPU the value shares the array's memory; the array is kept alive by us.
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)

    def _bind(self, steps: int) -> tuple[Floats, Floats, list[Any]]:
        """Buffers for x and y of `steps` steps, and the bindings that read states 0 and 1."""
        if steps not in self.bound:
            x = self.laid_out(np.zeros((steps, self.model.input_size), np.float32))
            counts = self.counts(steps)
            feed = dict(zip(self.inputs, (x, *self.buffers[0], *counts), strict=True))
            y = self.session.run(self.outputs[:1], feed)[0]
            bindings = []
            for side in range(2):
                binding = self.session.io_binding()
                inputs = (self._value(x), *self.values[side], *map(self._value, counts))
                for name, value in zip(self.inputs, inputs, strict=True):
                    binding.bind_ortvalue_input(name, value)
                outputs = (self._value(y), *self.values[1 - side])
                for name, value in zip(self.outputs, outputs, strict=True):
                    binding.bind_ortvalue_output(name, value)
                bindings.append(binding)
            self.fed.append(counts)
            self.bound[steps] = x, y, bindings
        return self.bound[steps]

    @property
    def _side(self) -> int:
        """Which set of state buffers is the current one."""
        return 0 if self.now is self.bound[1][2][0] else 1

    def reset(self) -> None:
        """Go back to the model's initial state."""
        for buffer, initial in zip(self.buffers[self._side], self.initial(), strict=True):
            buffer[...] = initial

    def step(self, x: Floats) -> Floats:
        """One step: x (I,) -> a fresh (O,)."""
        if self.bidirectional:
            need_no_future(self.model, "ONNX Runtime by step")
        self.x[:] = x
        self.call(self.now)
        self.now, self.next = self.next, self.now
        return self.y.copy()

    def run(self, x: Floats) -> Floats:
        """A block of steps: x (time, I) -> (time, O). Buffers stay bound for each length met."""
        if not len(x):
            return np.empty((0, self.size), np.float32)
        buffer, y, bindings = self._bind(len(x))
        buffer[...] = self.laid_out(x)
        self.call(bindings[self._side])
        self.now, self.next = self.next, self.now
        return y.reshape(len(x), self.size).copy()

    def state(self) -> tuple[Floats, ...]:
        """Copies of the state vectors, each (H,), in the order of Model.states."""
        return tuple(buffer.reshape(-1).copy() for buffer in self.buffers[self._side])

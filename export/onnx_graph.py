"""A Model as an ONNX graph: one LSTM, GRU or RNN node per layer, never unrolled, states in and out.

An LSTM with peepholes is a Scan, because not every runtime computes those of the node right.

Written node by node from the arrays; torch has no part in it.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm import reference
from fastlstm.errors import ExportError, MissingExtraError
from fastlstm.model import GRU, LSTM, RNN, Bidirectional, Difference, Residual

from .card import KEY, state_names, to_json
from .onnx_half import rounded
from .onnx_nodes import LENGTHS
from .onnx_recurrent import RecurrentNodes
from .replay import STREAMS, Exported, check_place, put, replay

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from fastlstm.model import Model, State

# Opset 17 and IR 8 are of 2022: ONNX Runtime 1.13 and later read them, and nothing newer is used.
OPSET, IR_VERSION = 17, 8
NAME = "fastlstm"

SNIPPET = """\
import json, numpy, onnxruntime
session = onnxruntime.InferenceSession({path!r}, providers=["CPUExecutionProvider"])
about = json.loads(session.get_modelmeta().custom_metadata_map["fastlstm"])
state = {{s["input"]: numpy.array([s["initial"]], numpy.float32) for s in about["states"]}}
y, *state = session.run(None, {{"x": numpy.zeros((1, 10, {inputs}), numpy.float32), **state}})
"""
# Two sequences in one call, of 10 and 4 steps.
SNIPPET_LENGTHS = """\
import json, numpy, onnxruntime
session = onnxruntime.InferenceSession({path!r}, providers=["CPUExecutionProvider"])
about = json.loads(session.get_modelmeta().custom_metadata_map["fastlstm"])
feed = {{s["input"]: numpy.float32([s["initial"]] * 2) for s in about["states"]}}
y, *state = session.run(None, {{"x": numpy.zeros((2, 10, {inputs}), numpy.float32), **feed, \
"lengths": numpy.int32([10, 4])}})
"""


def write(model: Model, path: str | Path, *, lengths: bool = False, half: bool = False) -> Exported:
    """Build, check with onnx.checker, replay in ONNX Runtime, then write to `path`.

    `lengths` and `half` are those of `build`.
    """
    from .onnx_sessions import OnnxSession

    path = check_place(path)
    data = build(model, lengths=lengths, half=half).SerializeToString()
    network = rounded(model) if half else model
    try:
        session = OnnxSession(network, data)
        done = replay(network, session, "ONNX Runtime", batch=session.batch, lengths=lengths)
        rounding = _rounding(model, session) if half else 0.0
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        reason = " ".join(str(error).split())
        raise ExportError(
            f"ONNX Runtime cannot run the graph: {reason}; nothing was written"
        ) from None
    put(path, data)
    snippet = (SNIPPET_LENGTHS if lengths else SNIPPET).format(
        path=str(path), inputs=model.input_size
    )
    return Exported(
        path,
        "onnx",
        done.steps,
        done.max_abs_error,
        done.bound,
        snippet,
        ways=done.ways,
        opset=OPSET,
        rounding=rounding,
    )


def _rounding(model: Model, session: Any) -> float:
    """How far the outputs of a session with rounded weights are from those of `model` at most."""
    greatest = 0.0
    for steps, seed in STREAMS:
        x = reference.check_input(model, steps, seed)
        session.reset()
        distance = np.abs(session.run(x) - reference.run(model, x)).max(initial=0)
        greatest = max(greatest, float(distance))
    return greatest


def initial_states(model: Model, batch: int = 1) -> dict[str, NDArray[np.float32]]:
    """What to feed at the start of a stream: by input name, each (batch, H)."""
    return {
        state_names(state)[0]: np.repeat(state.initial[None], batch, axis=0)
        for state in model.states
    }


def build(
    model: Model, *, bare: bool = False, lengths: bool = False, half: bool = False
) -> onnx.ModelProto:
    """The graph, checked by onnx.checker with full shape inference, and by its strict mode.

    Opset 17, IR version 8: ONNX Runtime 1.13 and later read it.

    Inputs: `x` (batch, time, input_size), and for every state vector `h0_l{k}` or `c0_l{k}`
    (batch, H), where k is the layer's position in Model.layers, or `x0_l{k}` of a Difference.
    Outputs: `y` (batch, time, output_size), and `hN_l{k}`, `cN_l{k}`, `xN_l{k}` (batch, H), to be
    fed back. All float32. Batch and time are dynamic; time is at least 1, because ONNX Runtime's
    recurrent nodes hand no state on over 0 steps, and its GRU ends the process there.
    The backward half of a Bidirectional has `h0_l{k}_reverse` and so on, which belong to the end of
    x: there x is a whole sequence, and nothing is to be fed back.

    An LSTM with peepholes is written as a Scan, ONNX's loop over time, whose body is one step in
    plain operators: two of the six runtimes of `fastlstm verify --all`, OpenVINO and OpenCV,
    compute the input P of an LSTM node wrong and say nothing. OpenCV refuses a Scan.

    `bare` leaves out all that is not arithmetic: x (time, batch, input_size), states
    (1, batch, H), y (time, batch, output_size) where the last layer allows, with 1 as a further
    axis before batch where a recurrent layer is under it and there are no `lengths`. It is for
    ONNX Runtime alone, and has peepholes as the node's P.

    `lengths` adds a last input `lengths` (batch,) int32: how many of the steps of x belong to each
    sequence, from 0 to all. What stands after them is not looked at, NaN or not: there y is exactly
    0, the states are those after the sequence's own last step (those given where it has none), and
    a backward half begins at its end. Without it the graph has no such input, because a live stream
    would pay for it at each step. The nodes have lengths as their sequence_lens, which ONNX Runtime
    heeds and OpenVINO, OpenCV and ONNX's own evaluator pass over without a word; the graph is right
    without it (see onnx_recurrent.RecurrentNodes).

    `half` stores weights and biases as float16, each with a Cast to float32 behind it that a
    runtime folds when it loads the file, which is half as big; the arithmetic stays float32.
    Initial states and Affine layers stay float32 (see onnx_half.rounded).

    Raises MissingExtraError without onnx, and ExportError if ONNX's own checker refuses the graph
    or, with `half`, for a weight beyond float16's range.
    """
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx", "onnx", "exporting to ONNX") from None
    if half:
        model = rounded(model)
    proto = _Graph(model, bare=bare, lengths=lengths, half=half).proto()
    try:
        onnx.checker.check_model(proto, full_check=True)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"onnx.checker refuses the graph: {error}") from None
    return proto


class _Graph(RecurrentNodes):
    """One graph: its layers in a chain, between its inputs and its outputs."""

    def proto(self) -> onnx.ModelProto:
        from onnx import helper

        inputs, outputs, about = self.described(self.chain())
        graph = helper.make_graph(self.nodes, NAME, inputs, outputs, self.constants)
        proto = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name=NAME,
            producer_version=_version(),
            domain=NAME,
            doc_string=_doc_string(self.model),
        )
        helper.set_model_props(proto, {KEY: to_json(self.model, **about)})
        return proto

    def chain(self) -> bool:
        """Lay down all layers, from x to y; whether y still has ONNX's axis of directions."""
        model = self.model
        x, wide = self.by_time, False  # (time, batch, size), or (time, 1, batch, size) where wide
        if not self.bare:
            self.node("Transpose", ["x"], x, perm=[1, 0, 2])
        if self.lengths:
            x = self.silenced(x, "x_within")
        inputs: list[tuple[str, bool]] = []  # of each layer, for the residual connections
        for k, layer in enumerate(model.layers):
            inputs.append((x, wide))
            if isinstance(layer, LSTM | GRU | RNN | Bidirectional):
                x = self.narrow(x, wide, f"l{k}_x")
                x, wide = self.recurrent(k, layer, x)
                if wide and not self.bare:
                    x, wide = self.narrow(x, wide, f"l{k}_h"), False
            elif isinstance(layer, Difference):
                x, wide = self.difference(k, self.narrow(x, wide, f"l{k}_x")), False
            elif isinstance(layer, Residual):
                source, source_wide = inputs[k - layer.back]
                if source_wide != wide:
                    x = self.narrow(x, wide, f"l{k}_x")
                    source = self.narrow(source, source_wide, f"l{k}_from")
                    wide = False
                size = model.layers[k - layer.back].input_size
                x = self.residual(k, layer, x, source, size)
            else:
                x = self.pointwise(k, layer, x)
        if self.lengths:
            x = self.silenced(x, "y_within")
        if self.bare:
            self.rename(x, "y")
        else:
            self.node("Transpose", [x], "y", perm=[1, 0, 2])
        return wide

    def described(self, wide: bool) -> tuple[list[Any], list[Any], dict[str, Any]]:
        """The graph's inputs and outputs, and the same for the card; `wide` is that of `chain`."""
        from onnx import TensorProto, helper

        model, states = self.model, self.model.states
        first = ("time", "batch") if self.bare else ("batch", "time")
        last = ("time", *((1,) if wide else ()), "batch") if self.bare else first
        one = (1,) if self.bare else ()
        vectors = [(*one, "batch", state.size) for state in states]
        sources: list[tuple[str, tuple[str | int, ...], str, str]] = [
            ("x", (*first, model.input_size), "float32", "the series, in the units of the data"),
            *(
                (state_names(state)[0], shape, "float32", f"{_place(model, state)} at the start")
                for state, shape in zip(states, vectors, strict=True)
            ),
        ]
        if self.lengths:
            about = "how many steps of x each sequence has, from 0 to time"
            sources.append((LENGTHS, ("batch",), "int32", about))
        results = [
            ("y", (*last, model.output_size), "float32", "the network's output at each step"),
            *(
                (state_names(state)[1], shape, "float32", f"{_place(model, state)} at the end")
                for state, shape in zip(states, vectors, strict=True)
            ),
        ]
        types = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32}

        def values(entries: Iterable[tuple[str, Any, str, str]]) -> list[Any]:
            return [
                helper.make_tensor_value_info(name, types[dtype], shape, about)
                for name, shape, dtype, about in entries
            ]

        keys = ("name", "shape", "dtype", "about")
        card = {
            "inputs": [dict(zip(keys, entry, strict=True)) for entry in sources],
            "outputs": [dict(zip(keys, entry, strict=True)) for entry in results],
        }
        return values(sources), values(results), card


def _place(model: Model, state: State) -> str:
    kind = model.layers[state.layer].kind
    return f"state {state.name} of layer {state.layer} ({kind})"


def _doc_string(model: Model) -> str:
    chain = " -> ".join(
        f"{layer.kind}({layer.input_size}, {layer.output_size})" for layer in model.layers
    )
    carried = (
        "Give it whole sequences: it is bidirectional."
        if model.bidirectional
        else "Begin with the initial states of the metadata entry, then feed each output state "
        "(..N_..) to the input of the same name (..0_..) for the steps that follow."
        if model.states
        else "It carries no state."
    )
    return (
        f"A recurrent network: {chain}. {carried} The metadata entry {KEY!r} is JSON: names, "
        "sizes, initial states, scaling, and an input with the output to expect."
    )


def _version() -> str:
    try:
        return metadata.version(NAME)
    except metadata.PackageNotFoundError:  # run from a source tree
        return ""

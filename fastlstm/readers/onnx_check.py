"""Whether a Model computes what an ONNX graph computes: the graph run in float64 by onnx itself.

The reference evaluator is the only judge, on random series and on ones that saturate the gates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ReaderError
from fastlstm.readers import onnx_guard, onnx_layouts, onnx_lengths
from fastlstm.readers.onnx_tracing import names_in, needed
from fastlstm.readers.places import Carried

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from fastlstm.model import Model
    from fastlstm.readers.onnx_guard import Opened
    from fastlstm.readers.onnx_layouts import Entry, Layout, Result
    from fastlstm.readers.onnx_tracing import Run

# The reference and the evaluator agree to 1e-12 in float64; anything structural is far beyond this.
TOLERANCE = 1e-9
# Where a constant was rounded to float32 on the way into a layer (1 over a divisor, a folded
# BatchNormalization) or into the file (a folded projection) the two differ as two float32 networks
# do, whose distance is measured.
FACTOR, FLOOR = 2.0, 1e-6
# A long chaotic network enlarges float64's roundings as it does float32's, 5e8 times as great.
CHAOS = 1e-7
MOST_STEPS = 20_000


def check(
    opened: Opened,
    entries: list[Entry],
    layout: Layout,
    run: Run,
    result: Result,
    name: str,
    model: Model,
) -> None:
    """Raise ReaderError unless the graph gives the reference's numbers on random input.

    One that takes lengths must give them for the steps of shorter sequences too, whatever stands
    after their ends.
    """
    from onnx.reference import ReferenceEvaluator

    from fastlstm import reference

    if _beyond_evaluator(opened, name):
        return
    proto = _in_float64(opened, name)
    # All sequences of a batch are alike; the reference takes its time for each.
    compared = max(1, min(layout.batch, MOST_STEPS // layout.time))
    whole = np.full(layout.batch, layout.time)
    cases = [(1, 1.0, whole), (2, 30.0, whole)]
    counted = any(entry.kind in onnx_layouts.WHOLE_NUMBERS for entry in entries)
    if counted and layout.time > 1:
        cases.append((3, 1.0, onnx_lengths.shorter(layout.batch, layout.time)))
    # The evaluator's own nodes pass over sequence_lens.
    nodes = onnx_lengths.heeding() if counted else None
    for seed, gain, lengths in cases:
        series = reference.check_input(model, layout.batch * layout.time, seed)
        x = gain * series.astype(np.float64).reshape(layout.batch, layout.time, -1)
        feed = _feed(entries, layout, run, x, lengths)
        try:
            with np.errstate(all="ignore"):
                outputs: Any = ReferenceEvaluator(proto, new_ops=nodes).run(None, feed)
        except NotImplementedError:
            return  # an older onnx, whose evaluator lacks a direction
        except Exception as error:  # somebody's graph may fail in any way
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ReaderError(f"it cannot be run by onnx's reference evaluator: {reason}") from None
        found = np.asarray(outputs[0], np.float64)
        expected, judged = _expected(run, result, model, x[:compared], lengths, np.float64)
        room = TOLERANCE * max(1.0, float(np.abs(expected[judged]).max(initial=0)))
        distance = float("inf")
        if found.shape == expected.shape:
            distance = float(np.abs(found - expected)[judged].max(initial=0))
        if not distance <= room:
            single, _ = _expected(run, result, model, x[:compared], lengths, np.float32)
            strays = float(np.abs(single - expected)[judged].max(initial=0))
            room = FACTOR * strays + FLOOR if run.rounded else max(room, CHAOS * strays)
        # Written so that NaN is refused.
        if not distance <= room:
            kinds = ", ".join(layer.kind for layer in model.layers)
            kinds += "" if lengths is whole else f"; lengths {lengths.tolist()} of {layout.time}"
            raise ReaderError(
                f"it computes something else than the chain that was read from it ({kinds}): "
                f"expected outputs of shape {expected.shape} within {room:.3g}, found "
                f"{found.shape}, {distance:.3g} away"
            )


def _beyond_evaluator(opened: Opened, name: str) -> bool:
    """Whether a node has a setting that onnx's evaluator passes over."""
    nodes = [*needed(opened.proto.graph, [name])]
    nodes += [node for function in opened.functions.values() for node in function.node]
    return any(
        (attribute.name == "input_forget" and attribute.i)
        or (node.op_type == "RNN" and b"relu" in (name.lower() for name in attribute.strings))
        for node in nodes
        for attribute in node.attribute
    )


def _expected(
    run: Run,
    result: Result,
    model: Model,
    x: NDArray[np.float64],
    lengths: NDArray[np.integer[Any]],
    dtype: type,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The graph's output by the reference, element by element, and which of them x says.

    Each element is one of a place; of those of sequences beyond x nothing is said, nor of those
    after a sequence's end.
    """
    from fastlstm import reference

    ends = [
        reference.run_with_state(model, sequence[:count], dtype)
        for sequence, count in zip(x, lengths, strict=False)
    ]
    where = run.trace.where(result.numbers)
    found = np.zeros(result.numbers.shape)
    outputs = np.zeros((len(x), run.trace.time, model.output_size))
    for row, end in zip(outputs, ends, strict=True):
        row[: len(end.output)] = end.output
    counts, time = lengths[where.batch], where.time
    if len(np.unique(time)) < run.trace.time:  # no sequence, but what is there after the last step
        time = np.where(time == run.trace.time - 1, counts - 1, time)
    known = (where.batch < len(x)) & (time < counts)
    last = len(model.layers) - 1
    names = {state.name: k for k, state in enumerate(model.states) if state.layer == last}
    for position in np.unique(where.place):
        place, here = run.trace.places[position], (where.place == position) & known
        if place is result.place:
            found[here] = outputs[where.batch[here], time[here], where.column[here]]
        else:  # a state that the last layer carries
            assert isinstance(place, Carried)
            states = np.stack([end.state[names[place.name]] for end in ends])
            found[here] = states[where.batch[here], where.column[here]]
    return found, known


def _feed(
    entries: list[Entry], layout: Layout, run: Run, x: Any, lengths: NDArray[np.integer[Any]]
) -> dict[str, Any]:
    """The inputs of the graph: the series, states at their start, lengths."""
    values = onnx_layouts.fed(run.opened, entries, layout, run.trace)
    feed: dict[str, Any] = {}
    for entry in entries:
        value = values[entry.name]
        if entry is layout.x:
            feed[entry.name] = layout.arranged(x)
        elif isinstance(value, np.ndarray):
            feed[entry.name] = lengths.astype(value.dtype)
        else:
            start = run.trace.start(value)  # type: ignore[arg-type]
            assert start is not None
            feed[entry.name] = start.astype(np.float64)
    return feed


def _in_float64(opened: Opened, name: str) -> onnx.ModelProto:
    """The part of the graph that leads to its output `name`, with all of float32 widened."""
    import onnx
    import onnx.inliner

    proto = onnx.ModelProto()
    proto.CopyFrom(opened.proto)
    graph = proto.graph
    nodes = needed(graph, [name])
    names = {used for node in nodes for used in names_in(node)}
    copies = [onnx.NodeProto() for _ in nodes]
    for copy, node in zip(copies, nodes, strict=True):
        copy.CopyFrom(node)
    outputs = [output for output in graph.output if output.name == name]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(copies)
    kept = [onnx.ValueInfoProto() for _ in outputs]
    for info, output in zip(kept, outputs, strict=True):
        info.CopyFrom(output)
    del graph.output[:]
    graph.output.extend(kept)
    for constant, array in opened.constants.items():
        if constant in names:
            graph.initializer.append(_wide(array, constant))
    for info in (*graph.input, *graph.output):
        if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            info.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    if proto.functions:  # the evaluator does not hand a function's attributes on
        proto = onnx.inliner.inline_local_functions(proto)
    for node in proto.graph.node:
        _widen(node)
    return proto


def _wide(array: NDArray[Any], name: str) -> onnx.TensorProto:
    import onnx

    if array.dtype == np.float32:
        array = array.astype(np.float64)
    return onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)


def _widen(node: onnx.NodeProto) -> None:
    """A node whose own constants and casts are float64 where they were float32."""
    import onnx

    for attribute in node.attribute:
        if attribute.ref_attr_name:
            continue
        if attribute.type == onnx.AttributeProto.GRAPH:
            for inner in attribute.g.node:
                _widen(inner)
            for tensor in attribute.g.initializer:
                tensor.CopyFrom(_wide(onnx_guard.array(tensor, tensor.name), tensor.name))
        elif attribute.type == onnx.AttributeProto.TENSOR:
            array = onnx_guard.array(attribute.t, onnx_guard.named(node))
            attribute.t.CopyFrom(_wide(array, attribute.t.name))
        elif node.op_type == "RNN" and attribute.name == "activations":
            # ONNX takes names in any case, the evaluator only as they are written there.
            names = [name.capitalize() for name in attribute.strings]
            del attribute.strings[:]
            attribute.strings.extend(names)
        elif node.op_type == "Cast" and attribute.name == "to":
            if attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.DOUBLE
        elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
            floats = attribute.floats if attribute.name == "value_floats" else attribute.f
            array = np.asarray(floats, np.float64)
            attribute.Clear()
            attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
            attribute.t.CopyFrom(onnx.numpy_helper.from_array(array))
    if node.op_type == "ConstantOfShape" and not node.attribute:
        zero = onnx.numpy_helper.from_array(np.zeros(1))
        node.attribute.append(onnx.helper.make_attribute("value", zero))

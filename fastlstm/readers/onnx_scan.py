"""ONNX's Scan: the body run step by step over a traced sequence, to be known again as a cell.

What the steps make are formulas; unrolled.py finds the recurrent layer that they are.
"""

from __future__ import annotations

from collections import ChainMap
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ReaderError
from fastlstm.readers import onnx_guard
from fastlstm.readers.elements import Elements

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    import onnx

    from fastlstm.readers.onnx_node import Value
    from fastlstm.readers.onnx_tracing import Run


def scan(
    run: Run,
    proto: onnx.NodeProto,
    inputs: list[Value],
    values: MutableMapping[str, Value],
    opsets: dict[str, int],
    arguments: dict[str, onnx.AttributeProto] | None,
    depth: int,
) -> list[Value]:
    """The states after the last step, and what each step puts out, one after the other."""
    origin = onnx_guard.named(proto)
    attributes = {attribute.name: attribute for attribute in proto.attribute}
    body = attributes.get("body")
    count = attributes["num_scan_inputs"].i if "num_scan_inputs" in attributes else 0
    if body is None or not body.HasField("g") or not 1 <= count <= len(inputs) or opsets[""] < 9:
        raise ReaderError(f"{origin}: expected a body and inputs to go through, of version 9 on")
    if depth > onnx_guard.MOST_CALLS_DEEP:
        raise ReaderError(f"{origin}: it is nested too deep")
    for name in ("axes", "directions"):
        for end in ("input", "output"):
            found = attributes.get(f"scan_{end}_{name}")
            if found is not None and any(found.ints):
                raise ReaderError(
                    f"{origin}: expected steps along the first axis, from first to last, found "
                    f"scan_{end}_{name} {list(found.ints)}"
                )
    graph = body.g
    states, sequences = inputs[: len(inputs) - count], inputs[len(inputs) - count :]
    names = [entry.name for entry in graph.input]
    wanted = [entry.name for entry in graph.output]
    if len(names) != len(inputs) or len(wanted) < len(states):
        raise ReaderError(
            f"{origin}: expected a body of {len(inputs)} inputs and at least {len(states)} "
            f"outputs, found {len(names)} and {len(wanted)}"
        )
    constants = {
        tensor.name: onnx_guard.array(tensor, f"{origin}: weight {tensor.name!r}")
        for tensor in graph.initializer
    }
    onnx_guard.in_order(graph.node, [*names, *constants, *values], f"the body of the {origin}")
    made = {name for node in graph.node for name in node.output}
    if any(name not in made and name not in names and name not in constants for name in wanted):
        raise ReaderError(f"{origin}: its body has an output that no node makes")
    steps = {np.shape(_numbers(value))[:1] for value in sequences}
    if len(steps) != 1 or steps == {()}:
        raise ReaderError(f"{origin}: expected sequences of as many steps each, found others")
    rows: list[list[Value]] = []
    for step in range(steps.pop()[0]):
        own: dict[str, Value] = dict(
            zip(names, [*states, *(_row(v, step) for v in sequences)], strict=True)
        )
        own.update(constants)
        found = run.nodes(graph.node, ChainMap(own, values), wanted, opsets, arguments, depth + 1)
        states = found[: len(states)]
        rows.append(found[len(states) :])
    if not rows:
        raise ReaderError(f"{origin}: expected at least one step, found none")
    return [*states, *(_stacked(origin, list(column)) for column in zip(*rows, strict=True))]


def _numbers(value: Value) -> Any:
    return value.numbers if isinstance(value, Elements) else value


def _row(value: Value, step: int) -> Value:
    if isinstance(value, Elements):
        return value.moved(lambda a: a[step])
    row: Value = np.asarray(np.asarray(value)[step])
    return row


def _stacked(origin: str, column: list[Value]) -> Value:
    """What the steps put out, with time as a new first axis."""
    traced = [value for value in column if isinstance(value, Elements)]
    if len({np.shape(_numbers(value)) for value in column}) != 1:
        raise ReaderError(f"{origin}: expected one shape at every step, found several")
    if len(traced) == len(column):
        return Elements(traced[0].trace, np.stack([value.numbers for value in traced]))
    if traced or any(not isinstance(value, np.ndarray) for value in column):
        raise ReaderError(f"{origin}: expected values of one kind at every step, found several")
    return np.stack([np.asarray(value) for value in column])

"""The nodes of an ONNX graph in their order, over traced values and constants."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastlstm.errors import ModelError, ReaderError
from fastlstm.readers import onnx_guard, onnx_layouts, onnx_operators, onnx_scan
from fastlstm.readers.elements import Trace
from fastlstm.readers.onnx_node import Node, Room

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    import onnx

    from fastlstm.readers.onnx_guard import Opened
    from fastlstm.readers.onnx_layouts import Entry, Layout
    from fastlstm.readers.onnx_node import Value


@dataclass
class Run:
    """One trace of a graph: its results by name, and what was rounded on the way."""

    opened: Opened
    trace: Trace
    room: Room = field(default_factory=Room)
    rounded: list[str] = field(default_factory=list)
    count: int = 0  # of nodes that were run

    def nodes(
        self,
        nodes: Any,
        values: MutableMapping[str, Value],
        wanted: list[str],
        opsets: dict[str, int],
        arguments: dict[str, onnx.AttributeProto] | None = None,
        depth: int = 0,
    ) -> list[Value]:
        """Run nodes over `values`; return those of the names `wanted`."""
        uses = Counter(name for node in nodes for name in names_in(node))
        uses.update(wanted)
        for proto in nodes:
            origin = onnx_guard.named(proto)
            self.count += 1
            if self.count > onnx_guard.MOST_NODES:
                raise ReaderError(
                    f"{origin}: expected at most {onnx_guard.MOST_NODES:,} nodes in all steps of "
                    "its loops, found more"
                )
            try:
                made = self.node(proto, values, opsets, arguments, depth)
            except ModelError as error:
                raise ReaderError(f"{origin}: {error}") from None
            for name, value in zip(proto.output, made, strict=False):
                if name:
                    values[name] = value
            for name in proto.output[len(made) :]:
                if uses[name]:
                    raise ReaderError(f"{origin}: its output {name!r} is beyond a Model")
            for name in names_in(proto):
                uses[name] -= 1
                if not uses[name]:
                    values.pop(name, None)
        return [values.get(name) for name in wanted]

    def node(
        self,
        proto: onnx.NodeProto,
        values: MutableMapping[str, Value],
        opsets: dict[str, int],
        arguments: dict[str, onnx.AttributeProto] | None,
        depth: int,
    ) -> list[Value]:
        """One node: a function's body, or an operator."""
        origin = onnx_guard.named(proto)
        inputs = [values[name] if name else None for name in proto.input]
        attributes = _attributes(proto, arguments)
        function = self.opened.functions.get((proto.domain, proto.op_type, proto.overload))
        if function is not None:
            if depth > onnx_guard.MOST_CALLS_DEEP:
                raise ReaderError(f"{origin}: it is called too deep")
            for default in function.attribute_proto:
                attributes.setdefault(default.name, default)
            formal = dict.fromkeys(function.input)
            inside = {**formal, **dict(zip(function.input, inputs, strict=False))}
            return self.nodes(
                function.node,
                inside,
                list(function.output),
                onnx_guard.versions(function.opset_import),
                attributes,
                depth + 1,
            )
        if proto.domain not in onnx_guard.STANDARD:
            raise ReaderError(
                f"{origin}: expected an operator of ONNX itself, found one of {proto.domain!r}, "
                "whose meaning is not laid down; export the network without it"
            )
        if "" not in opsets:
            raise ReaderError(f"{origin}: expected a version of ONNX's operators, found none")
        if proto.op_type == "Scan":
            return onnx_scan.scan(self, proto, inputs, values, opsets, arguments, depth)
        node = Node(
            self.trace,
            proto,
            origin,
            inputs,
            opsets[""],
            self.room,
            attributes,
            self.rounded,
        )
        return onnx_operators.results(node)


def _attributes(
    proto: onnx.NodeProto, arguments: dict[str, onnx.AttributeProto] | None
) -> dict[str, onnx.AttributeProto]:
    """The attributes by name; those of a function's body may be the arguments of its call."""
    import onnx

    found = {}
    for attribute in proto.attribute:
        if not attribute.ref_attr_name:
            found[attribute.name] = attribute
        elif attribute.ref_attr_name in (arguments or {}):
            given = onnx.AttributeProto()
            given.CopyFrom((arguments or {})[attribute.ref_attr_name])
            given.name = attribute.name
            found[attribute.name] = given
    return found


def names_in(node: onnx.NodeProto) -> list[str]:
    """The names that a node takes, and those that the nodes of its own graphs take."""
    found = list(node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                found += names_in(inner)
            found += [entry.name for entry in attribute.g.output]
    return found


def needed(graph: onnx.GraphProto, wanted: list[str]) -> list[onnx.NodeProto]:
    """The nodes that lead to the names `wanted`, in order; a file may hold more."""
    names, found = set(wanted), []
    for node in reversed(graph.node):
        if names & set(node.output) - {""}:
            names.update(names_in(node))
            found.append(node)
    return found[::-1]


def traced(
    opened: Opened, found: list[Entry], layout: Layout, wanted: list[str]
) -> tuple[Run, list[Value]]:
    """Trace the graph in that layout; the values of its outputs `wanted`. Raises ReaderError."""
    run = Run(opened, Trace(layout.batch, layout.time))
    values: dict[str, Value] = dict(opened.constants)
    values.update(onnx_layouts.fed(opened, found, layout, run.trace))
    nodes = needed(opened.proto.graph, wanted)
    return run, run.nodes(nodes, values, wanted, opened.opsets)

"""An ONNX file opened with care: what it claims is compared with what is there before it is used.

Nothing here runs a node, follows a path out of the model's folder, or believes a size.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ReaderError

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

# Far beyond any network that a Model can express; an unrolled loop has some 20 nodes a step.
MOST_NODES = 50_000
MOST_CALLS_DEEP = 50
STANDARD = ("", "ai.onnx")

# The field of a TensorProto that holds each type's values where raw_data does not.
FIELDS = {
    "FLOAT": "float_data",
    "DOUBLE": "double_data",
    "INT64": "int64_data",
    "UINT32": "uint64_data",
    "UINT64": "uint64_data",
    **dict.fromkeys(
        ("INT8", "INT16", "INT32", "UINT8", "UINT16", "BOOL", "FLOAT16", "BFLOAT16"), "int32_data"
    ),
}


@dataclass(frozen=True)
class Opened:
    """A file whose names, order and sizes hold."""

    proto: onnx.ModelProto
    folder: Path | None  # of its external data; None for bytes
    constants: dict[str, NDArray[Any]]  # the initializers
    opsets: dict[str, int]  # version by domain, the standard one as ""
    functions: dict[tuple[str, str, str], onnx.FunctionProto]


def opened(source: Any) -> Opened:
    """Read, parse and check a file, or its bytes. Raises ReaderError."""
    import onnx

    data, folder = _bytes(source)
    proto = onnx.ModelProto()
    try:
        # google.protobuf's DecodeError is no ValueError, and its module is not ours to name.
        proto.ParseFromString(data)
    except Exception as error:
        raise ReaderError(
            f"expected an ONNX file, found bytes that are none ({error}); it is truncated, damaged "
            "or of another format"
        ) from None
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise ReaderError("expected an ONNX file with a graph, found none in it")
    graph = proto.graph
    opsets = versions(proto.opset_import)
    if "" not in opsets:
        raise ReaderError("expected the version of ONNX's operators (opset_import), found none")
    newest = onnx.defs.onnx_opset_version()
    if not 1 <= opsets[""] <= newest:
        raise ReaderError(
            f"expected operators of version 1 to {newest}, which the installed onnx knows, found "
            f"{opsets['']}"
        )
    if graph.sparse_initializer:
        raise ReaderError("expected dense weights, found sparse_initializer")
    functions = {(f.domain, f.name, f.overload): f for f in proto.functions}
    _count(graph.node, functions)
    constants: dict[str, NDArray[Any]] = {}
    for tensor in graph.initializer:
        if not tensor.name or tensor.name in constants:
            raise ReaderError(f"expected names of its own for each weight, found {tensor.name!r}")
        constants[tensor.name] = array(tensor, f"weight {tensor.name!r}", folder)
    in_order(graph.node, [*constants, *(entry.name for entry in graph.input)], "the graph")
    outputs = [info.name for info in graph.output]
    made = {*constants, *(entry.name for entry in graph.input)}
    made.update(name for node in graph.node for name in node.output)
    for name in outputs:
        if name not in made or not name or outputs.count(name) > 1:
            raise ReaderError(
                f"output {name!r}: expected a node that makes it, and its name once, found neither "
                "or several"
            )
    for function in proto.functions:
        in_order(function.node, function.input, f"function {function.name!r}")
    return Opened(proto, folder, constants, opsets, functions)


def versions(imports: Any) -> dict[str, int]:
    """Operator version by domain."""
    return {"" if entry.domain in STANDARD else entry.domain: entry.version for entry in imports}


def _bytes(source: Any) -> tuple[bytes, Path | None]:
    """The file's bytes, and the folder that it is in."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), None
    if not isinstance(source, str | os.PathLike):
        raise ReaderError(
            f"expected the path of an ONNX file, or its bytes, found {type(source).__name__}"
        )
    path = Path(source)
    try:
        if path.is_dir():
            raise ReaderError("expected an ONNX file, found a folder")
        if not path.is_file():
            raise ReaderError("no such file")
        # protobuf itself can hold no more in one message.
        if path.stat().st_size >= 2**31:
            raise ReaderError(
                f"expected less than 2 GiB, found {path.stat().st_size:,} bytes; store the weights "
                "as external data"
            )
        return path.read_bytes(), path.parent
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        if isinstance(error, ReaderError):
            raise
        raise ReaderError(f"cannot be read: {error}") from None


def named(node: onnx.NodeProto) -> str:
    """How messages call a node."""
    name = node.name or next((f"-> {output}" for output in node.output if output), "")
    return f"{node.op_type} node {name!r}"


def _count(nodes: Any, functions: dict[tuple[str, str, str], onnx.FunctionProto]) -> None:
    """Refuse more nodes than any network has, functions that call themselves, and deep nesting."""
    counts: dict[tuple[str, str, str], int] = {}
    calling: list[tuple[str, str, str]] = []

    def count(nodes: Any) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            total += 1 + (inside(key) if key in functions else 0)
        return total

    def inside(key: tuple[str, str, str]) -> int:
        if key in calling:
            raise ReaderError(f"function {key[1]!r}: it calls itself, which has no end")
        if len(calling) >= MOST_CALLS_DEEP:
            raise ReaderError(
                f"function {key[1]!r}: expected calls at most {MOST_CALLS_DEEP} deep, found more"
            )
        if key not in counts:
            calling.append(key)
            counts[key] = count(functions[key].node)
            calling.pop()
        return counts[key]

    total = count(nodes)
    for key in functions:
        inside(key)
    if total > MOST_NODES:
        raise ReaderError(
            f"expected at most {MOST_NODES:,} nodes, found {total:,}; where a loop is unrolled, "
            "export a shorter sequence"
        )


def in_order(nodes: Any, given: Any, where: str) -> None:
    """Refuse a name that is taken before it is made, or made twice."""
    known = set(given)
    for node in nodes:
        for name in node.input:
            if name and name not in known:
                raise ReaderError(
                    f"{named(node)}: expected its input {name!r} to be made before it in {where}, "
                    "found it nowhere before: the graph is not in order, has a cycle, or lacks it"
                )
        for name in node.output:
            if name and name in known:
                raise ReaderError(
                    f"{named(node)}: expected a new name for its output, found {name!r}, which "
                    f"{where} has already"
                )
            known.add(name)
    known.discard("")


def array(tensor: onnx.TensorProto, where: str, folder: Path | None = None) -> NDArray[Any]:
    """The values of a tensor, whose sizes and data agree. Raises ReaderError."""
    import onnx

    names = {v: k for k, v in onnx.TensorProto.DataType.items()}
    kind = names.get(tensor.data_type, f"type {tensor.data_type}")
    if kind not in FIELDS:
        raise ReaderError(f"{where}: expected numbers, found {kind}")
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    shape = tuple(tensor.dims)
    if any(size < 0 for size in shape):
        raise ReaderError(f"{where}: expected sizes of at least 0, found shape {shape}")
    count = math.prod(shape)
    wanted = f"{count:,} values for its shape {shape}"
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        data = _external(tensor, where, folder)
        if len(data) != count * dtype.itemsize:
            raise ReaderError(
                f"{where}: expected {wanted}, {count * dtype.itemsize:,} bytes, found "
                f"{len(data):,} bytes of external data"
            )
        return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
    if tensor.HasField("segment"):
        raise ReaderError(f"{where}: expected all values together, found a segment")
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != count * dtype.itemsize:
            raise ReaderError(
                f"{where}: expected {wanted}, {count * dtype.itemsize:,} bytes, found "
                f"{len(tensor.raw_data):,} bytes"
            )
    elif len(getattr(tensor, FIELDS[kind])) != count:
        raise ReaderError(
            f"{where}: expected {wanted}, found {len(getattr(tensor, FIELDS[kind])):,}"
        )
    try:
        found: NDArray[Any] = np.asarray(onnx.numpy_helper.to_array(tensor))
        return found.reshape(shape)
    except (OverflowError, ValueError) as error:  # more axes than NumPy has, or values than a type
        raise ReaderError(f"{where}: its values cannot be read: {error}") from None


def _external(tensor: onnx.TensorProto, where: str, folder: Path | None) -> bytes:
    """The bytes of a tensor that lie in a file beside the model's, and nowhere else."""
    about = {entry.key: entry.value for entry in tensor.external_data}
    location = about.get("location", "")
    if folder is None:
        raise ReaderError(
            f"{where}: its values are external data in {location!r}, which bytes alone do not have "
            "beside them; give the path of the file"
        )
    try:
        home, path = folder.resolve(), (folder / location).resolve()
        if not location or Path(location).is_absolute() or home not in path.parents:
            raise ReaderError(
                f"{where}: expected its external data inside the model's folder, found the "
                f"location {location!r}, which is outside"
            )
        if not path.is_file():
            raise ReaderError(
                f"{where}: expected its external data in {location!r} beside the model, found no "
                "such file; it belongs to the model: copy both"
            )
        size = path.stat().st_size
        offset = int(about.get("offset", 0))
        length = int(about.get("length", size - offset))
        if offset < 0 or length < 0 or offset + length > size:
            raise ReaderError(
                f"{where}: expected {length:,} bytes from {offset:,} on in {location!r}, found "
                f"{size:,} bytes in all"
            )
        with path.open("rb") as file:
            file.seek(offset)
            data: bytes = file.read(length)
            return data
    except (OSError, ValueError) as error:  # ValueError: no number, or a null byte in the path
        if isinstance(error, ReaderError):
            raise
        raise ReaderError(f"{where}: its external data cannot be read: {error}") from None

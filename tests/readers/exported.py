"""A torch module into a Trace, by a small reading of torch's graph of it, for tests alone."""

from __future__ import annotations

import copy
import operator
from typing import Any

import numpy as np

from fastlstm.model import Dense, LayerNorm
from fastlstm.readers import arithmetic
from fastlstm.readers.elements import Elements, Trace


def traced(module: Any, size: int, batch: int = 2, time: int = 4, *, keep: bool = False) -> Any:
    """The list of what `module` puts out for x (batch, time, size), as elements of a new trace.

    `keep` has the states that loops begin with as elements of a Constant; they are folded else.
    """
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    # In float64 torch has no kernel for a whole recurrent layer, so that it takes those apart too.
    double = copy.deepcopy(module).double().eval()
    x = torch.zeros(batch, time, size, dtype=torch.float64)
    with torch.no_grad():
        graph = make_fx(double)(x)
    trace = Trace(batch, time)
    values: dict[str, Any] = {}

    def look(argument: Any) -> Any:
        if isinstance(argument, list | tuple):
            return [look(one) for one in argument]
        return values[argument.name] if hasattr(argument, "op") else argument

    for node in graph.graph.nodes:
        if node.op == "placeholder":
            value = trace.input(size)
        elif node.op == "get_attr":
            value = getattr(graph, node.target).detach().float().numpy()
        elif node.op == "output":
            found = look(node.args[0])
            return found if isinstance(found, list) else [found]
        else:
            value = _call(trace, node, [look(a) for a in node.args])
            if keep and _name(node) in ("new_zeros", "zeros", "expand"):
                value = trace.constant(value, node.name)
        values[node.name] = value
        if node.op == "call_function" and _name(node).endswith("_"):
            values[node.args[0].name] = value  # done in place
    raise AssertionError("a graph without an output")


def _name(node: Any) -> str:
    return getattr(node.target, "_opname", "")


def _call(trace: Trace, node: Any, args: list[Any]) -> Any:
    if node.target is operator.getitem:
        return args[0][args[1]]
    flat = [one for a in args for one in (a if isinstance(a, list) else [a])]
    if any(isinstance(one, Elements) for one in flat):
        return _traced(trace, _name(node).rstrip("_"), node.name, args)
    return _constant(node, args)


def _constant(node: Any, args: list[Any]) -> Any:
    import torch

    def tensor(a: Any) -> Any:
        if isinstance(a, list):
            return [tensor(one) for one in a]
        return torch.from_numpy(np.array(a)) if isinstance(a, np.ndarray) else a

    made = node.target(*tensor(args))
    return [m.numpy() for m in made] if isinstance(made, list | tuple) else made.numpy()


def _traced(trace: Trace, name: str, origin: str, args: list[Any]) -> Any:
    a = args[0]
    b = args[1] if len(args) > 1 else None
    if name in ("new_zeros", "zeros_like"):
        return np.zeros(b if name == "new_zeros" else a.shape, np.float32)
    if name in ("sigmoid", "tanh", "relu"):
        return trace.activate(a, name, origin)
    if name == "native_layer_norm":
        return [trace.apply(a, LayerNorm(*args[2:]), origin), None, None]
    if name in ("matmul", "mm"):
        return trace.apply(a, Dense(np.ascontiguousarray(b.T)), origin)
    if name == "addmm":
        return trace.apply(b, Dense(np.ascontiguousarray(args[2].T), a), origin)
    if name in ("add", "sub", "mul", "rsub"):
        if name == "rsub":
            a, b, name = b, a, "sub"
        if isinstance(a, Elements) and isinstance(b, Elements):
            combine = {"add": arithmetic.add, "sub": arithmetic.subtract}
            return combine.get(name, arithmetic.multiply)(a, b, origin)
        left = isinstance(a, Elements)
        value, constant = (a, b) if left else (b, a)
        constant = np.asarray(constant, np.float32)
        if name == "mul":
            return arithmetic.affine(value, constant, None, origin)
        if name == "add":
            return arithmetic.affine(value, None, constant, origin)
        scale, shift = (1.0, -constant) if left else (-1.0, constant)
        return arithmetic.affine(value, scale, shift, origin)
    if name == "neg":
        return arithmetic.negative(a, origin)
    if name in ("cat", "stack"):
        parts = [p if isinstance(p, Elements) else trace.constant(p, origin) for p in a]
        join = np.concatenate if name == "cat" else np.stack
        return Elements(trace, join([p.numbers for p in parts], axis=b or 0))
    return _moved(name, a, args)


def _moved(name: str, a: Elements, args: list[Any]) -> Any:
    b = args[1] if len(args) > 1 else None
    if name == "getitem":
        return a[b]
    if name in ("split", "unsafe_split", "split_with_sizes", "chunk", "unbind"):
        axis = args[-1] if len(args) > (1 if name == "unbind" else 2) else 0
        length = a.shape[axis]
        if name == "unbind":
            return [a.moved(lambda n, k=k: n.take(k, axis)) for k in range(length)]
        step = -(-length // b) if name == "chunk" else b
        ends = np.cumsum(b) if isinstance(b, list) else np.arange(step, length + step, step)
        parts = np.split(a.numbers, ends[:-1], axis)
        return [Elements(a.trace, part) for part in parts]
    moves: dict[str, Any] = {
        "select": lambda n: n.take(args[2], b),
        "slice": lambda n: np.moveaxis(
            np.moveaxis(n, b or 0, 0)[slice(*[*args[2:5], None][:3] or [None])], 0, b or 0
        ),
        "transpose": lambda n: n.swapaxes(b, args[2]),
        "permute": lambda n: n.transpose(b),
        "t": lambda n: n.T,
        "flip": lambda n: np.flip(n, b),
        "unsqueeze": lambda n: np.expand_dims(n, b),
        "squeeze": lambda n: np.squeeze(n, b if b is None or isinstance(b, int) else tuple(b)),
        "view": lambda n: n.reshape(b),
        "_unsafe_view": lambda n: n.reshape(b),
        "reshape": lambda n: n.reshape(b),
        "expand": lambda n: np.broadcast_to(n, b),
    }
    if name in moves:
        return a.moved(moves[name])
    if name in ("clone", "detach"):
        return a
    raise AssertionError(f"this test's reading does not know {name}")

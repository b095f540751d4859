"""A torch module traced by torch.export, and its graph run on elements instead of numbers.

Every operator either moves elements, is worked out by torch itself because it acts on constants
alone, is known in torch_operators.py, or is refused by the name of its submodule.
"""

from __future__ import annotations

import contextlib
import io
import logging
import operator
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ModelError, ReaderError
from fastlstm.model import Dense
from fastlstm.readers import torch_copies, torch_layers, torch_moves, torch_operators
from fastlstm.readers.elements import Elements, Trace
from fastlstm.readers.places import Carried, Layered
from fastlstm.readers.torch_moves import Call, UnknownOperator, Values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.fx import Graph, Node

    from fastlstm.readers.torch_ways import Way

# The wrapper that calls the module holds it by this name.
PREFIX = "module."


class Program:
    """The graph of one way of calling a module, on sequences of `batch` and `time`."""

    def __init__(self, trace: Trace, original: nn.Module) -> None:
        """`original` has the parameters as the user stores them."""
        self.trace, self.original = trace, original
        self._constants = np.empty(1024)
        self._count = 0

    # Values

    def encoded(self, tensor: Tensor) -> Values:
        """A tensor of constants, as values."""
        import torch

        array = tensor.detach().double().numpy()
        first, self._count = self._count, self._count + array.size
        if self._count > len(self._constants):
            room = np.empty(2 * self._count - len(self._constants))
            self._constants = np.concatenate([self._constants, room])
        self._constants[first : self._count] = array.ravel()
        codes = -1 - torch.arange(first, self._count).reshape(tensor.shape)
        # Laid out in memory as the tensor is, so that it can be viewed in the same ways.
        return Values(torch.empty_like(tensor.detach(), dtype=torch.int64).copy_(codes))

    def decoded(self, values: Values) -> NDArray[np.float64]:
        """The numbers of values that are all constants."""
        found: NDArray[np.float64] = self._constants[-1 - values.codes.numpy()]
        return found

    def elements(self, values: Values, origin: str) -> Elements:
        """Values as elements of the trace, constants among them as places of their own."""
        numbers = values.codes.numpy().copy()
        fixed = numbers < 0
        if not fixed.any():
            return Elements(self.trace, numbers)
        if not numbers.ndim:
            raise ReaderError(f"{origin}: it mixes constants with values of the network")
        filled = np.where(fixed, self._constants[np.where(fixed, -1 - numbers, 0)], 0.0)
        return self._beside(numbers, fixed, filled, origin) or self._among(
            numbers, fixed, filled, origin
        )

    def _beside(self, numbers: Any, fixed: Any, filled: Any, origin: str) -> Elements | None:
        """The same constants beside the values of each step: a Dense of zeros and ones has them.

        None where they are at some steps only, or where this is a single step of a loop.
        """
        columns, row = fixed.reshape(-1, fixed.shape[-1]), filled.reshape(-1, fixed.shape[-1])
        free = np.flatnonzero(~columns[0])
        if (columns != columns[0]).any() or (row != row[0]).any() or not len(free):
            return None
        values = Elements(self.trace, numbers[..., free])
        if len(np.unique(self.trace.where(values.numbers).time)) == 1:
            return None
        matrix = np.zeros((fixed.shape[-1], len(free)), np.float32)
        matrix[free, np.arange(len(free))] = 1
        return self.trace.apply(values, Dense(matrix, row[0].astype(np.float32)), origin)

    def _among(self, numbers: Any, fixed: Any, filled: Any, origin: str) -> Elements:
        """Constants where a loop begins, as places of their own."""
        numbers[fixed] = self.trace.constant(filled, origin).numbers[fixed]
        return Elements(self.trace, numbers)

    def values(self, elements: Elements) -> Values:
        """Elements as values."""
        import torch

        return Values(torch.from_numpy(np.array(elements.numbers, np.int64)))

    def is_state(self, values: Values) -> bool:
        """Whether values are those of recurrent layers, or constants: no output of their own."""
        codes = values.codes.numpy()
        found = self.trace.where(codes[codes >= 0])
        places = [self.trace.places[k] for k in np.unique(found.place)]
        return all(
            isinstance(place, Carried)
            or place.momentary
            or (isinstance(place, Layered) and place.recurrent)
            for place in places
        )

    # The graph

    def run(self, graph: Graph, holder: Any, inputs: Iterator[Any]) -> Any:
        """What the graph puts out; `inputs` are the values of its placeholders in order."""
        found: dict[Node, Any] = {}
        for node in graph.nodes:
            match node.op:
                case "placeholder":
                    found[node] = next(inputs)
                case "get_attr":
                    found[node] = operator.attrgetter(node.target)(holder)
                case "output":
                    return _exchanged(node.args[0], found)
                case _:
                    args = _exchanged(node.args, found)
                    made = self.call(node, args, _exchanged(node.kwargs, found))
                    found[node] = self._shaped(node, made)
        raise AssertionError("a graph without an output")

    def _shaped(self, node: Node, value: Any) -> Any:
        """`value`, whose shape and kind must be those that torch gives it."""
        expected: Any = node.meta.get("val")
        if not isinstance(value, Values) or not hasattr(expected, "shape"):
            return value
        known = all(type(n) is int for n in expected.shape)
        same = not known or value.shape == tuple(expected.shape)
        if not (same and expected.dtype.is_floating_point):
            raise ReaderError(
                f"{self.origin(node, node.name)}: expected {tuple(expected.shape)} of "
                f"{expected.dtype}, as torch has it, worked out {value.shape}; no Model is made of "
                "what is not understood"
            )
        return value

    def call(self, node: Node, args: Any, kwargs: Any) -> Any:
        """One operator."""
        import torch
        from torch.utils import _pytree as pytree

        target: Any = node.target
        if target is operator.getitem:
            return args[0][args[1]]
        given = [v for v in pytree.tree_leaves((args, kwargs)) if isinstance(v, Values)]
        if not isinstance(target, torch._ops.OpOverload):
            return self._outer(node, args, kwargs, given)
        full = target._schema.name.removeprefix("aten::")
        name = full.rstrip("_")
        call = Call(self, target, self.origin(node, name))
        try:
            random = torch.Tag.nondeterministic_seeded in target.tags
            if random and not torch_operators.idle(name, args):
                raise call.refuse("it draws at random in eval mode too, which no Model does")
            if given and (move := torch_moves.handler(name)) is not None:
                return move(call, args, kwargs)
            if all(value.constant for value in given):
                return self._fixed(target, full, args, kwargs)
            result = torch_operators.run(call, name, args, kwargs)
        except ReaderError:
            raise
        except ModelError as error:
            raise call.refuse(str(error)) from None
        except (TypeError, ValueError, IndexError, RuntimeError, AssertionError) as error:
            # torch ran this operator; what is not followed here is no Model, whatever the reason.
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise call.refuse(
                f"no layer of a Model computes {name} in this form: {reason}"
            ) from None
        if full.endswith("_") and isinstance(args[0], Values):
            args[0].codes.copy_(result.codes)
            return args[0]
        return result

    def _outer(self, node: Node, args: Any, kwargs: Any, given: list[Values]) -> Any:
        """What is no operator of torch: a part of the graph in itself, or arithmetic of sizes."""
        target: Any = node.target
        name = getattr(target, "__name__", str(target))
        if name == "wrap_with_set_grad_enabled":
            return self.run(args[1].graph, args[1], iter(args[2:]))
        if given:
            raise UnknownOperator(self.origin(node, name))
        return target(*args, **kwargs)

    def _fixed(self, target: Any, full: str, args: Any, kwargs: Any) -> Any:
        """An operator on constants alone: torch works it out, rounded to float32."""
        import torch
        from torch.utils import _pytree as pytree

        def real(value: Any) -> Any:
            if not isinstance(value, Values):
                return value
            return torch.from_numpy(np.ascontiguousarray(self.decoded(value)).reshape(value.shape))

        def kept(value: Any) -> Any:
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                return self.encoded(value)
            return value

        if full.startswith("empty"):
            # What lies in fresh memory is no value before it is overwritten.
            return self.encoded(torch.full(args[0], float("nan")))
        numbers, options = pytree.tree_map(real, (args, kwargs))
        if full in torch_layers.RECURRENT:
            result = target(*numbers, **options)
        else:
            with torch_copies.rounding():
                result = target(*numbers, **options)
        if full.endswith("_") and isinstance(args[0], Values):
            args[0].codes.copy_(self.encoded(result).codes)
            return args[0]
        return pytree.tree_map(kept, result)

    def origin(self, node: Node, name: str) -> str:
        """The submodule that an operator belongs to, or the operator within somebody's forward."""
        stack = node.meta.get("nn_module_stack") or {}
        path, kind = next(reversed(stack.values()), ("", ""))
        path = path.removeprefix(PREFIX) if path.startswith(PREFIX) else ""
        kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        if kind.startswith("torch.nn.modules."):
            return torch_copies.full_name(self.original, path)
        title = torch_copies.full_name(self.original, path)
        name = name.strip("_")
        return f"{name} in {title}" if path else f"{name} in {title}.forward"


def traced(module: nn.Module, way: Way, size: int, trace: Trace) -> tuple[Program, Values]:
    """What `module` puts out when it is called that way, its weights as the user stores them."""
    import torch

    double = torch_copies.double(module)
    with torch_copies.widened(module):
        exported = _exported(double, way, torch.zeros(trace.batch, trace.time, size))
    program = Program(trace, module)
    x = program.values(trace.input(size))
    inner = exported.graph_module
    outputs = program.run(inner.graph, inner, _inputs(program, exported, x))
    result, *rest = outputs
    if not isinstance(result, Values):
        raise ReaderError(
            f"{type(module).__name__}: expected an output of real values, found whole numbers"
        )
    if result.constant:
        raise ReaderError(
            f"{type(module).__name__}: expected an output that depends on the input, found "
            "constants"
        )
    for other in rest:
        if isinstance(other, Values) and not program.is_state(other):
            raise ReaderError(
                f"{type(module).__name__}: expected y or (y, state) as its result, found several "
                "outputs; a Model has one: put them side by side with torch.cat, or return one"
            )
    return program, result


def _inputs(program: Program, exported: Any, x: Values) -> Iterator[Any]:
    """The values of the placeholders: weights as constants, and the network's input."""
    signature = exported.graph_signature
    named = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    for node in exported.graph_module.graph.nodes:
        if node.op != "placeholder":
            continue
        if node.name not in named:
            yield x
            continue
        name = named[node.name]
        tensor = exported.state_dict.get(name, exported.constants.get(name))
        if not node.users:
            yield None
            continue
        torch_copies.check_stored(program.original, name.removeprefix(PREFIX))
        yield program.encoded(tensor.float()) if tensor.is_floating_point() else tensor


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch.export says of attributes that a module sets, which is no concern here."""
    with warnings.catch_warnings():
        for message in (
            r"The tensor attributes? .* assigned during export",
            r".*_flat_weights",
            r".*export_for_training",
            r"\S*isinstance\(treespec, LeafSpec\)\S* is deprecated",
            r"RNN module weights are not part of single contiguous chunk",
        ):
            warnings.filterwarnings("ignore", message)
        # What cannot be traced is said in the ReaderError, without pages of the graph so far.
        before = logging.root.manager.disable
        logging.disable(logging.ERROR)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                yield
        finally:
            logging.disable(before)


def _exported(module: nn.Module, way: Way, x: Tensor) -> Any:
    import torch

    class Called(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Tensor) -> list[Tensor]:
            return way.run(self.module, x)

    try:
        with _quiet():
            # Before 2.7 only this one leaves recurrent operators whole and writes in place.
            export = getattr(torch.export, "export_for_training", torch.export.export)
            return export(Called().eval(), (x,), strict=False)
    except ReaderError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else "no reason given"
        raise ReaderError(
            f"{type(module).__name__}: expected a forward that torch.export can trace, without "
            f"decisions that depend on values, found {type(error).__name__}: {reason}"
        ) from None


def _exchanged(value: Any, found: dict[Node, Any]) -> Any:
    from torch.fx.node import map_arg

    return map_arg(value, lambda node: found[node])

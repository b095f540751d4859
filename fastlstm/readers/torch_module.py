"""A torch module into a Model: any chain of known layers, alone or inside somebody's own module.

The chain is watched while forward runs, then checked: a module that computes anything else is
refused, never approximated. No torch object is left in the Model.
"""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastlstm.errors import MissingExtraError, ModelError, ReaderError
from fastlstm.model import Layer, Model
from fastlstm.readers import torch_check, torch_layers
from fastlstm.readers.torch_check import first_tensor, full_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

FUNCTIONS = {
    name: name.rstrip("_") for name in ("relu", "relu_", "tanh", "tanh_", "sigmoid", "softmax")
}
# Functions that change nothing on most inputs, so that the check could miss them.
PIECEWISE = (
    "clamp", "clip", "where", "maximum", "minimum", "threshold", "hardtanh", "masked", "nan_to_num",
)  # fmt: skip
# The same for names that are also parts of harmless ones, such as softmax.
PIECEWISE_WHOLE = ("max", "min", "fmax", "fmin", "lt", "le", "gt", "ge")


@dataclass(frozen=True)
class Event:
    """One submodule or activation function at work: what it is and what went through it."""

    name: str
    kind: str  # "layer", or the name of an activation
    layers: list[Layer]
    x: Tensor
    y: Tensor


def read(module: nn.Module, metadata: Mapping[str, Any] | None = None) -> Model:
    """The Model that computes what `module` computes in eval mode, stream by stream.

    Read are nn.LSTM, GRU, RNN (any num_layers, batch_first or not, bidirectional or not, an LSTM
    with or without proj_size), LSTMCell, GRUCell, RNNCell, Linear, Tanh, ReLU, Sigmoid and Softmax
    (as modules or functions), LayerNorm over the last axis, BatchNorm1d by its running statistics,
    Dropout and Identity (they vanish), nn.Sequential, any module whose forward chains these, and
    fastlstm.train's Network. A constant initial state given to a layer is kept.

    The module is run on random input in float64 and compared with the reference. It may return y or
    (y, state), batch or time first. One that returns only the last step's output is accepted: the
    Model then gives that output at every step. One that takes and returns its state, called as
    module(x, state) -> (y, state), is stepped. The module itself is left as it is.

    Raises ReaderError, which names the submodule, for anything a Model cannot express, and
    MissingExtraError without torch.
    """
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "train", "reading a torch module") from None
    twin = getattr(module, "to_model", None)
    if callable(twin):
        model = twin()
        if not isinstance(model, Model):
            raise ReaderError(
                f"{type(module).__name__}.to_model(): expected a fastlstm Model, found "
                f"{type(model).__name__}"
            )
        return model if metadata is None else Model(model.layers, metadata)
    if not isinstance(module, torch.nn.Module):
        raise ReaderError(
            f"expected a torch.nn.Module, found {type(module).__name__}; a state dict alone "
            "does not say what the network computes: load it into its module first"
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise ReaderError(
            f"{type(module).__name__}: expected a module in Python, found TorchScript, whose "
            "forward cannot be watched; give the module that it was made from"
        )
    module = getattr(module, "_orig_mod", module)  # torch.compile's wrapper
    if any(torch.nn.parameter.is_lazy(parameter) for parameter in module.parameters()):
        raise ReaderError(
            f"{type(module).__name__}: expected trained weights, found lazy ones that have no "
            "shape yet; run the module once on real input first"
        )
    with torch_check.in_float64():
        return _read(torch_check.still(module), metadata or {})


def _read(module: nn.Module, metadata: Mapping[str, Any]) -> Model:
    """The Model by the first shape of input for which the module proves to be one."""
    from torch import nn

    refusal = None
    for axes, events, x, y in _runs(module):
        try:
            _follow(module, events, x, y)
            model = Model(tuple(_chain(events)), metadata)
            torch_check.check(module, model, axes)
        except ModelError as error:
            raise ReaderError(f"{type(module).__name__}: {error}") from None
        except ReaderError as error:
            refusal = refusal or error
            # nn.LSTM takes (time, inputs) too, where a dim=1 that meant time would mean values.
            if any(isinstance(part, nn.RNNBase) for part in module.modules()):
                break
        else:
            return model
    assert refusal is not None
    raise refusal


def _chain(events: list[Event]) -> Iterator[Layer]:
    pending: list[Layer] = []
    for event in events:
        if event.kind == "layer":
            pending += event.layers
            continue
        previous = pending[-1] if pending else None
        joins, dense = torch_layers.activation(event.name, previous, event.kind, event.x.numel())
        pending[len(pending) - joins :] = [dense]
    yield from pending


def _runs(
    module: nn.Module,
) -> Iterator[tuple[int, list[Event], Tensor, Tensor | None]]:
    """One step of random input for each number of axes that forward takes: axes, events, x and y.

    One step of one sequence holds the same numbers whether time or batch comes first, whole or
    sliced to its last step, so that no layout can hide a break in the chain.
    """
    import torch

    sizes = dict.fromkeys(filter(None, map(torch_layers.input_size, module.modules())))
    if not sizes:
        raise ReaderError(
            f"{type(module).__name__}: expected at least one of nn.LSTM, GRU, RNN, their Cells, "
            "Linear or LayerNorm, found none"
        )
    failures, ran = [], False
    for shape in ((1, 1), (1,)):
        for size, rest in itertools.product(sizes, ((), (None,))):
            x = torch.randn((*shape, size), generator=torch.Generator().manual_seed(0))
            events: list[Event] = []
            try:
                with _watching(module, events) as double:
                    y = first_tensor(double(x.clone(), *rest))
            except ReaderError:
                raise
            except Exception as error:  # somebody's forward may raise anything
                failures.append(f"{tuple(x.shape)}: {type(error).__name__}: {error}")
                continue
            ran = True
            yield x.ndim, events, x, y
            break
    if not ran:
        # The first: the errors of the rest are only about their wrong shape.
        raise ReaderError(
            f"{type(module).__name__}: expected a forward that takes a tensor (batch, time, "
            "inputs), or (batch, inputs) for one step; it could not be run on an input of shape "
            f"{failures[0].splitlines()[0]}"
        )


def _follow(module: nn.Module, events: list[Event], x: Tensor, y: Tensor | None) -> None:
    """Raise ReaderError where a link's input is not the output of the link before it."""
    if not events:
        raise ReaderError(
            f"{type(module).__name__}: expected its forward to call known layers, found that it "
            "calls none; its own formulas are beyond a Model"
        )
    before, output = "the input", x
    for event in events:
        if not _same(output, event.x):
            raise ReaderError(
                f"{event.name}: expected {before} as its input, found other values: the module "
                "computes something between them, or is no chain, which a Model cannot express"
            )
        before, output = f"the output of {event.name}", event.y
    if y is None or not _same(output, y):
        raise ReaderError(
            f"{type(module).__name__}: expected {before} as its result, found "
            f"{'no tensor' if y is None else 'other values'}: a Model cannot express what it does "
            "after its last layer"
        )


@contextmanager
def _watching(module: nn.Module, events: list[Event]) -> Iterator[nn.Module]:
    """A float64 copy of `module`, every call of whose parts is written into `events`."""
    import torch
    from torch.overrides import TorchFunctionMode

    double = torch_check.double(module)
    originals = dict(module.named_modules())
    inside: list[Tensor] = []  # the inputs of the known submodules that are running now

    def watch(name: str, part: nn.Module, role: str) -> None:
        found: list[Layer] = []

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if role == "unknown" and not inside:
                raise ReaderError(f"{full_name(module, name)}: no layer of a Model computes this")
            x = args[0] if args else kwargs.get("input")
            if not isinstance(x, torch.Tensor):
                raise ReaderError(
                    f"{full_name(module, name)}: expected one tensor as its "
                    f"input, found {type(x).__name__}"
                )
            if role == "layer" and not inside:
                given = args[1] if len(args) > 1 else kwargs.get("hx")
                states = [given] if isinstance(given, torch.Tensor) else list(given or ())
                title = full_name(module, name)
                found[:] = torch_layers.layers(title, originals[name], states)
            inside.append(x.detach().clone())

        def leave(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
            x = inside.pop()
            y = first_tensor(out)
            if inside or role == "vanishing" or y is None:
                return
            kind = "layer"
            if role != "layer":
                kind = next(
                    kind
                    for known, kind in torch_layers.ACTIVATIONS.items()
                    if isinstance(part, getattr(torch.nn, known))
                )
            events.append(Event(full_name(module, name), kind, list(found), x, y.detach().clone()))

        part.register_forward_pre_hook(enter, with_kwargs=True)
        part.register_forward_hook(leave, with_kwargs=True)

    for name, part in double.named_modules():
        role = torch_layers.role(part)
        if role != "transparent":
            watch(name, part, role)

    class Functions(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            kwargs = kwargs or {}
            name = getattr(func, "__name__", "")
            if inside:
                return func(*args, **kwargs)
            if name in PIECEWISE_WHOLE or any(word in name for word in PIECEWISE):
                raise ReaderError(
                    f"{type(module).__name__}: its forward calls {name}, which no layer of a Model "
                    "computes"
                )
            if name not in FUNCTIONS:
                return func(*args, **kwargs)
            x = (args[0] if args else kwargs["input"]).detach().clone()
            y = func(*args, **kwargs)
            title = f"{name} in {type(module).__name__}.forward"
            events.append(Event(title, FUNCTIONS[name], [], x, y.detach().clone()))
            return y

    with Functions():
        yield double


def _same(one: Tensor, other: Tensor) -> bool:
    """Equal values in the same order, whatever the shape; NaN equals NaN."""
    import torch

    if one.numel() != other.numel():
        return False
    return torch.allclose(one.reshape(-1), other.reshape(-1), rtol=0, atol=0, equal_nan=True)

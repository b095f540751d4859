"""The ways in which people call a network: batch or time first, step by step, series of scalars.

Each way takes x (batch, time, inputs) and calls the module as it wants to be called. The same way
is traced first and checked after it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from fastlstm.errors import ReaderError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

# Input sizes that are tried: those that the module's layers and weights say, then all small ones.
MOST_SIZES = 24
SMALL_SIZES = range(1, 17)


@dataclass(frozen=True)
class Way:
    """One way of calling: `run(module, x)` gives what the module puts out, x (batch, time, inputs).

    That is a list of tensors: the output first, then what else it returned, such as its state.

    `kind`: "sequences", "steps" and so on; `axes`: those of the tensor that the module is given;
    `scalar`: it takes series of single values; `alone`: it takes one sequence at a time.
    """

    kind: str
    axes: int
    run: Callable[[Any, Tensor], list[Tensor]]
    scalar: bool = False
    alone: bool = False


class NoTensor(ReaderError):
    """What forward returned holds no tensor where its output is looked for."""


def tensors(out: Any) -> list[Tensor]:
    """All tensors that forward returned, the output before the rest: y, or that of (y, state)."""
    import torch
    from torch.utils import _pytree as pytree

    first = out
    while isinstance(first, tuple | list) and first:
        first = first[0]
    if not isinstance(first, torch.Tensor):
        raise NoTensor(
            "expected a tensor, or (y, state), as its result, found no tensor but "
            f"{type(first).__name__}"
        )
    return [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, torch.Tensor)]


def ways(module: nn.Module) -> Iterator[Way]:
    """All ways, the likeliest first."""
    from torch import nn

    first = next((part for part in module.modules() if isinstance(part, nn.RNNBase)), None)
    sequences = [_batch_first, _time_first]
    if first is not None and not first.batch_first:
        sequences.reverse()
    rests = list(_states(module))
    for alone, arrange, rest in itertools.product((False, True), sequences, rests):
        yield Way("sequences", 3, _sequence(arrange, rest), alone=alone)
    for layout, rest, hand_on in itertools.product(_LAYOUTS, rests[1:], (_second, _rest, _whole)):
        yield Way("steps", layout.axes, _stepped(layout, rest, hand_on), alone=layout.alone)
    yield Way("samples", 2, _samples)
    yield Way("samples", 2, _samples, alone=True)
    yield Way("samples", 1, _vectors, alone=True)
    yield Way("one sequence", 2, _unbatched, alone=True)
    yield Way("series", 2, _scalars, scalar=True)
    yield Way("one series", 1, _series, scalar=True, alone=True)


def sizes(module: nn.Module) -> list[int]:
    """Values that one sample may have: what layers take, every axis of a weight, differences.

    A weight of somebody's own cell takes the sample and the state side by side.
    """
    found: dict[int, None] = {}
    for part in module.modules():
        for name in ("input_size", "in_features", "num_features"):
            size = getattr(part, name, None)
            if isinstance(size, int) and size > 0:
                found[size] = None
        shape = getattr(part, "normalized_shape", None)
        if isinstance(shape, tuple) and shape:
            found[shape[-1]] = None
    for parameter in module.parameters():
        found.update(dict.fromkeys(reversed(parameter.shape)))
    if not found:
        raise ReaderError(
            f"{type(module).__name__}: expected at least one weight, found none, so that nothing "
            "says how many values a sample has; say input_size"
        )
    found.update(dict.fromkeys(a - b for a in list(found) for b in list(found) if a > b))
    return list(found)[:MOST_SIZES]


def _batch_first(x: Tensor) -> Tensor:
    return x


def _time_first(x: Tensor) -> Tensor:
    return x.transpose(0, 1)


def _sequence(arrange: Callable[[Tensor], Tensor], rest: Callable[[int], tuple[Any, ...]]) -> Any:
    return lambda module, x: tensors(module(arrange(x), *rest(x.shape[0])))


class _Layout(NamedTuple):
    """How one sample (batch, inputs) is given to a module that takes one step."""

    axes: int
    alone: bool
    arrange: Callable[[Tensor], Tensor]


_LAYOUTS = (
    _Layout(2, False, lambda sample: sample),
    _Layout(3, False, lambda sample: sample[:, None]),
    _Layout(3, False, lambda sample: sample[None]),
    _Layout(2, True, lambda sample: sample),
    _Layout(3, True, lambda sample: sample[None]),
    _Layout(1, True, lambda sample: sample[0]),
)


def _stepped(
    layout: _Layout,
    rest: Callable[[int], tuple[Any, ...]],
    hand_on: Callable[[Any], tuple[Any, ...]],
) -> Any:
    """Module(x, *state) one step at a time, its new state handed back to it."""

    def run(module: nn.Module, x: Tensor) -> list[Tensor]:
        import torch

        outputs, state = [], rest(x.shape[0])
        for t in range(x.shape[1]):
            out = module(layout.arrange(x[:, t]), *state)
            outputs.append(tensors(out)[0].reshape(x.shape[0], -1))
            state = hand_on(out)
        return [torch.stack(outputs, 1)]

    return run


def _second(out: Any) -> tuple[Any, ...]:
    """The state of (y, state); a Cell's output is its state."""
    import torch

    if isinstance(out, torch.Tensor):
        return (out,)
    _, state = out
    return (state,)


def _rest(out: Any) -> tuple[Any, ...]:
    _, one, other = out
    return one, other


def _whole(out: Any) -> tuple[Any, ...]:
    """As an LSTMCell has it: (h, c), of which h is the output too."""
    return (out,)


def _samples(module: nn.Module, x: Tensor) -> list[Tensor]:
    import torch

    outputs = [tensors(module(x[:, t])) for t in range(x.shape[1])]
    return [torch.stack(steps, 1) for steps in zip(*outputs, strict=True)]


def _vectors(module: nn.Module, x: Tensor) -> list[Tensor]:
    import torch

    outputs = [tensors(module(x[0, t])) for t in range(x.shape[1])]
    return [torch.stack(steps) for steps in zip(*outputs, strict=True)]


def _unbatched(module: nn.Module, x: Tensor) -> list[Tensor]:
    return tensors(module(x[0]))


def _scalars(module: nn.Module, x: Tensor) -> list[Tensor]:
    return tensors(module(x[:, :, 0]))


def _series(module: nn.Module, x: Tensor) -> list[Tensor]:
    return tensors(module(x[0, :, 0]))


def _states(module: nn.Module) -> Iterator[Callable[[int], tuple[Any, ...]]]:
    """What may stand after x in a first call, for a batch: nothing, None, or zeros that fit."""
    import torch
    from torch import nn

    yield lambda batch: ()
    yield lambda batch: (None,)
    recurrent = [part for part in module.modules() if isinstance(part, nn.RNNBase | nn.RNNCellBase)]
    if len(recurrent) != 1:
        return
    part = recurrent[0]

    def zeros(batch: int) -> tuple[Any, ...]:
        if isinstance(part, nn.RNNCellBase):
            axes: tuple[int, ...] = (batch,)
            hidden, two = part.hidden_size, isinstance(part, nn.LSTMCell)
        else:
            axes = (part.num_layers * (1 + part.bidirectional), batch)
            hidden, two = part.proj_size or part.hidden_size, part.mode == "LSTM"
        shapes = [(*axes, hidden), (*axes, part.hidden_size)][: 1 + two]
        return tuple(torch.zeros(shape) for shape in shapes)

    two = len(zeros(1)) == 2
    yield (lambda batch: (zeros(batch),)) if two else zeros
    if two:
        yield zeros

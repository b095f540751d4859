"""A torch module into a Model: traced by torch.export, each operator understood or refused.

What comes of the trace is checked against the module in float64. No torch object is left in the
Model.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastlstm.errors import MissingExtraError, ModelError, ReaderError
from fastlstm.model import Model
from fastlstm.readers import (
    chain,
    torch_check,
    torch_copies,
    torch_operators,
    torch_outputs,
    torch_program,
    torch_states,
)
from fastlstm.readers.elements import Trace, WrongLayout
from fastlstm.readers.torch_moves import UnknownOperator
from fastlstm.readers.torch_ways import SMALL_SIZES, NoTensor, sizes, ways

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from fastlstm.readers.torch_states import Entry
    from fastlstm.readers.torch_ways import Way


def read(
    module: nn.Module | Mapping[str, Any] | str | Path,
    metadata: Mapping[str, Any] | None = None,
    *,
    layers: Sequence[Entry] | None = None,
    input_size: int | None = None,
) -> Model:
    """The Model that computes what `module` computes in eval mode, stream by stream.

    Where there is no code, a state dict or the path of a .safetensors file with torch's names is
    enough, and `layers`, what runs in its order: layers=["lstm", "fc1", "relu", "fc2"]; see
    fastlstm.readers.torch_states.read. That needs no torch.

    A module is traced by torch.export, called in the way that it takes: with sequences, batch or
    time first, of one sequence alone, of single values, or step by step with its state handed back
    to it. Read are nn.LSTM, GRU and RNN in all their forms, LSTMCell, GRUCell and RNNCell in loops,
    Linear, matrix products with constants, Tanh, ReLU, Sigmoid, Softmax, LayerNorm over the last
    axis, BatchNorm by its running statistics, dropout (it vanishes), sums and scalings, skip
    connections, a constant initial state, cells in somebody's own formulas, and whatever only
    moves values; as modules or functions, in any order. fastlstm.train's Network gives its own.

    It may return y or (y, state). One that returns only the last step's output is accepted: the
    Model then gives that output at every step. `input_size`: values in one sample, where the
    module's weights do not say it. Then it is run on random input in float64, several sequences of
    several lengths, and compared with the reference. The module itself is left as it is.

    Raises ReaderError, which names the submodule and the operator, for anything that a Model cannot
    express, and MissingExtraError without torch.
    """
    if isinstance(module, Mapping | str | Path):
        return torch_states.read(module, layers, metadata)
    if layers is not None:
        raise ReaderError(
            "layers: expected none beside a module, whose forward says them; they are for a state"
        )
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
            "expected a torch.nn.Module, its state dict or a .safetensors file, found "
            f"{type(module).__name__}"
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise ReaderError(
            f"{type(module).__name__}: expected a module in Python, found TorchScript, whose "
            "forward cannot be traced; give the module that it was made from"
        )
    module = getattr(module, "_orig_mod", module)  # torch.compile's wrapper
    if any(torch.nn.parameter.is_lazy(parameter) for parameter in module.parameters()):
        raise ReaderError(
            f"{type(module).__name__}: expected trained weights, found lazy ones that have no "
            "shape yet; run the module once on real input first"
        )
    with torch_copies.in_float64():
        return _read(torch_copies.still(module), metadata or {}, input_size)


def _read(module: nn.Module, metadata: Mapping[str, Any], input_size: int | None) -> Model:
    """The Model by the first way of calling for which the module proves to be one."""
    from torch import nn

    recurrent = any(isinstance(part, nn.RNNBase) for part in module.modules())
    refusals: list[ReaderError] = []
    axes = None
    for way, trace, size, unsure in _running(module, input_size):
        # nn.LSTM takes (time, inputs) too, where a dim=1 that meant time would mean values.
        if recurrent and axes is not None and way.axes != axes:
            break
        axes = way.axes
        try:
            program, values = torch_program.traced(module, way, size, trace)
            title = f"the output of {type(module).__name__}"
            output = program.elements(values, title)
            arrangement, place = torch_outputs.arranged(output, title)
            model = Model(chain.layers(place), metadata)
            torch_check.check(module, model, way, arrangement)
        except ModelError as error:
            refusals.append(ReaderError(f"{type(module).__name__}: {error}"))
        except UnknownOperator as error:
            raise error from None
        except ReaderError as error:
            refusals.append(error)
        else:
            if unsure:
                raise ReaderError(
                    f"{type(module).__name__}: expected weights that say how many values a sample "
                    f"has, found that it runs with {size} and with {size + 1}; say input_size"
                )
            return model
    # A refusal for the layout is the least telling: the module only wants to be called otherwise.
    telling = [error for error in refusals if not isinstance(error, WrongLayout)]
    raise (telling or refusals)[0] from None


def _running(module: nn.Module, input_size: int | None) -> Iterator[tuple[Way, Trace, int, bool]]:
    """The ways of calling in which the module runs on random input, a trace and a size for each."""
    import torch

    failures: list[str] = []
    likely = sizes(module) if input_size is None else [input_size]
    small = [n for n in SMALL_SIZES if n not in likely] if input_size is None else []
    dims = {n for tensor in module.state_dict().values() for n in tensor.shape}
    # Numbers of sequences and steps that are no size of the network, so that none is mistaken.
    time, spare = itertools.islice((n for n in (3, 4, 5, 7, 9, 11, 13) if n not in dims), 2)
    batch = 2 if 2 not in dims else spare
    batched: set[tuple[str, int]] = set()  # the names and axes of ways with batches that ran
    double = torch_copies.double(module)

    def runs(way: Way, size: int) -> bool:
        nonlocal double
        x = torch.randn((1 if way.alone else batch, time, size))
        try:
            with torch_copies.widened(module):
                way.run(double, x)
        except NoTensor as error:
            raise ReaderError(f"{type(module).__name__}: {error}") from None
        except Exception as error:  # somebody's forward may raise anything
            line = (str(error).splitlines() or [""])[0]
            failures.append(f"{tuple(x.shape)}: {type(error).__name__}: {line}")
            return False
        double = torch_copies.double(module)  # it may keep state between calls
        return True

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = 0
        for way in ways(module):
            # A network that takes batches is none of one sequence alone.
            if way.alone and (way.kind, way.axes) in batched:
                continue
            able = [1] if way.scalar else likely
            fitting = next(([size] for size in able if runs(way, size)), [])
            if not fitting and not way.scalar and not found:
                fitting = [size for size in small if runs(way, size)]
            if len(fitting) > 1:
                _check_indices(module)
                raise ReaderError(
                    f"{type(module).__name__}: expected weights that say how many values a sample "
                    f"has, found that it runs with {', '.join(map(str, fitting))}; say input_size"
                )
            for size in fitting:
                found += 1
                if not way.alone:
                    batched.add((way.kind, way.axes))
                # Where another size goes too, the weights do not say which it is.
                unsure = input_size is None and not way.scalar and runs(way, size + 1)
                yield way, Trace(1 if way.alone else batch, time), size, unsure
    if found:
        return
    _check_indices(module)
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.LayerNorm) and len(part.normalized_shape) > 1:
            title = torch_copies.full_name(module, name)
            torch_operators.check_norm(title, part.normalized_shape)
    # The first: the errors of the rest are only about their wrong shape.
    raise ReaderError(
        f"{type(module).__name__}: expected a forward that takes a tensor (batch, time, inputs), "
        "or (batch, inputs) for one step; it could not be run on an input of shape "
        f"{failures[0]}"
    )


def _check_indices(module: nn.Module) -> None:
    """Raise ReaderError for a module that looks its input up in a table."""
    from torch import nn

    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding | nn.EmbeddingBag):
            raise ReaderError(
                f"{torch_copies.full_name(module, name)}: expected a module that takes real "
                "values, found one that looks indices up in a table, for which a Model has no "
                "layer; give the part of it that comes after the table"
            )

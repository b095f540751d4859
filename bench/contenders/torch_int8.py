"""torch's dynamic quantisation: LSTM, GRU and Linear with int8 weights, the rest in float32."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastlstm.errors import UnsupportedError
from fastlstm.export.runtimes import version_of

from ..timing.admission import Judge
from .contender import RUN, Contender
from .installed import needs_of
from .torch_chain import Chain, ChainSession, Stage, groups, no_state, stacked_initial, stage_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastlstm.model import Model

NAME = "torch int8"


def int8_chain(model: Model, quantize: Callable[[Any], Any] | None = None) -> Chain:
    """The chain of `model` with int8 weights; raises UnsupportedError for what torch lacks.

    `quantize` takes a list of nn.LSTM, nn.GRU and nn.Linear to their quantised twins: None is
    torch.ao.quantization.quantize_dynamic.
    """
    from torch import nn

    parts = list(groups(model))
    position, plain = 0, {}
    for k, group in enumerate(parts):
        module = _plain(group, position)
        position += len(group)
        if module is not None:
            plain[k] = module
    if not plain:
        raise UnsupportedError(
            f"{NAME}: expected an LSTM, a GRU or a Dense among the layers, found "
            f"{', '.join(sorted({layer.kind for layer in model.layers}))}: nothing to quantise"
        )
    quantised = (quantize or _quantised)(nn.ModuleList(plain.values()).eval())
    twins = dict(zip(plain, quantised, strict=True))
    return Chain(
        [
            _stage(twins[k], group) if k in twins else stage_of(group)
            for k, group in enumerate(parts)
        ]
    )


def _plain(group: list[Any], position: int) -> Any:
    """The module of torch with a group's weights, or None for what stays in float32."""
    from fastlstm.train import cells, plain_layers

    first = group[0]
    if isinstance(first, plain_layers.Dense):
        return _linear(first)
    if isinstance(first, cells.LSTM | cells.GRU) and not first.proj_size:
        return _recurrent(group)
    if isinstance(first, cells.Recurrent) and first.kind != "RNN":
        raise UnsupportedError(
            f"{NAME}: layer {position} ({first.kind}) has a projection, peepholes or its reset "
            "before the product, which torch cannot quantise"
        )
    return None


def _linear(dense: Any) -> Any:
    from torch import nn

    linear = nn.Linear(dense.in_features, dense.out_features, dense.bias is not None)
    linear.load_state_dict(dense.state_dict())
    return linear.requires_grad_(False)


def _recurrent(group: list[Any]) -> Any:
    """nn.LSTM or nn.GRU; with biases of zeros where there are none, because torch insists."""
    import torch
    from torch import nn

    first = group[0]
    kind = nn.LSTM if first.kind == "LSTM" else nn.GRU
    module = kind(
        first.input_size,
        first.hidden_size,
        len(group),
        batch_first=True,
        bidirectional=first.bidirectional,
    ).requires_grad_(False)
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    for k, layer in enumerate(group):
        for direction in layer.directions:
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                source = getattr(layer, f"{name}_l0{direction}", None)
                if source is not None:
                    getattr(module, f"{name}_l{k}{direction}").copy_(source)
    return module


def _quantised(modules: Any) -> Any:
    """torch.ao.quantization of the list, with the engine that torch has chosen."""
    import torch
    from torch import nn

    kinds = {nn.LSTM, nn.GRU, nn.Linear}
    with _no_age_warnings():
        quantize: Any = torch.ao.quantization.quantize_dynamic
        return quantize(modules, kinds, dtype=torch.qint8)


@contextmanager
def _no_age_warnings() -> Iterator[None]:
    """Quiet about the age of torch.ao.quantization, whose successor is no part of torch."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        # How its observers are set up, which it does itself.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.ao\..*")
        yield


def _stage(module: Any, group: list[Any]) -> Stage:
    """One module, a quantised one called as its own forward does without that one's checks."""
    from fastlstm.train import plain_layers

    if isinstance(group[0], plain_layers.Dense):
        return _dense_stage(module, group[0].activation)
    return _recurrent_stage(module, group)


def _dense_stage(module: Any, activation: str) -> Stage:
    import torch
    from torch import nn

    product: Callable[[Any], Any] = module.forward
    if not isinstance(module, nn.Linear):
        packed = module._packed_params._packed_params
        # The overload itself: looking for it takes as long as the product of a small layer.
        linear: Any = torch.ops.quantized.linear_dynamic.default

        def product(x: Any) -> Any:
            return linear(x, packed, True)

    if activation == "linear":
        return Stage(lambda x, state, inputs: (product(x), state), no_state)
    if activation == "softmax":
        return Stage(lambda x, state, inputs: (torch.softmax(product(x), -1), state), no_state)
    activate: Callable[[Any], Any] = getattr(torch, activation)
    return Stage(lambda x, state, inputs: (activate(product(x)), state), no_state)


def _recurrent_stage(module: Any, group: list[Any]) -> Stage:
    import torch
    from torch import nn

    initial = stacked_initial(group)
    if isinstance(module, nn.LSTM | nn.GRU):
        whole = module.forward
        return Stage(lambda x, state, inputs: whole(x, state), initial)
    weights = [packed.param for packed in module._all_weight_values]
    settings = (True, len(group), 0.0, False, module.bidirectional, True)
    if group[0].kind == "GRU":
        gru: Any = torch.quantized_gru
        return Stage(lambda x, state, inputs: gru(x, state, weights, *settings), initial)
    lstm: Any = torch.quantized_lstm
    kind: dict[str, Any] = {"dtype": torch.qint8, "use_dynamic": True}

    def call_lstm(x: Any, state: Any, inputs: list[Any]) -> tuple[Any, Any]:
        y, h, c = lstm(x, state, weights, *settings, **kind)
        return y, (h, c)

    return Stage(call_lstm, initial)


def _open(model: Model) -> ChainSession:
    _check_unrounded(model)
    return ChainSession(NAME, model, int8_chain(model))


def _check_unrounded(model: Model, quantize: Callable[[Any], Any] = list) -> None:
    """Raise ArithmeticError unless the chain, with its float32 weights, is the reference's network.

    What int8 makes of a network is compared with no bound that a swapped gate could not keep.
    """
    session = ChainSession(NAME, model, int8_chain(model, quantize))
    verdict = Judge(model).check(session, replace(INT8, precision="float32"), RUN)
    if verdict.reason:
        raise ArithmeticError(f"before its weights are rounded: {verdict.reason}")


INT8 = Contender(
    NAME,
    "one thread, inference mode, quantize_dynamic of LSTM, GRU and Linear by the engine "
    "that torch chooses, the other layers in float32",
    _open,
    needs_of("torch eager, by step"),
    version_of("torch"),
    precision="int8",
)
CONTENDERS = (INT8,)

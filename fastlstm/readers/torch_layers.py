"""One torch submodule into Model layers: weights copied as NumPy float32, nothing guessed.

It knows single submodules only; what order they run in is found by torch_module.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ModelError, ReaderError
from fastlstm.model import GRU, LSTM, RNN, Affine, Array, Bidirectional, Dense, Layer, LayerNorm

if TYPE_CHECKING:
    from torch import Tensor, nn

RECURRENT: dict[str, Any] = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}
ACTIVATIONS = {"ReLU": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid", "Softmax": "softmax"}
# In eval mode these hand their input on as it is, or only look at it in another shape.
VANISHING = (
    "Identity", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout",
    "FeatureAlphaDropout", "Flatten", "Unflatten",
)  # fmt: skip
CONTAINERS = ("Module", "Sequential", "ModuleList", "ModuleDict")


def role(module: nn.Module) -> str:
    """What a submodule is to a chain: layer, activation, vanishing, transparent or unknown.

    `transparent` is a module that holds others, or somebody's own class: what it does is seen
    from the known submodules that it calls.
    """
    from torch import nn

    known = nn.RNNBase | nn.RNNCellBase | nn.Linear | nn.BatchNorm1d | nn.LayerNorm
    if isinstance(module, known):
        return "layer"
    if isinstance(module, tuple(getattr(nn, name) for name in ACTIVATIONS)):
        return "activation"
    if isinstance(module, tuple(getattr(nn, name) for name in VANISHING)):
        return "vanishing"
    ours = type(module).__module__.startswith("torch.nn.modules.")
    return "unknown" if ours and type(module).__name__ not in CONTAINERS else "transparent"


def input_size(module: nn.Module) -> int | None:
    """Values in one sample of a layer, or None where the module has no say in that."""
    for name in ("input_size", "in_features", "num_features"):
        size = getattr(module, name, None)
        if isinstance(size, int) and size > 0:
            return size
    shape = getattr(module, "normalized_shape", None)
    return shape[-1] if isinstance(shape, tuple) and shape else None


def layers(name: str, module: nn.Module, states: list[Tensor]) -> list[Layer]:
    """The Model layers of one submodule of role "layer"; `states` are those it was called with.

    states: nothing, or h (and c) of shape (num_layers, batch, H), twice num_layers where the module
    is bidirectional, or (batch, H) for a Cell; the first of the batch becomes the learned initial
    state unless it is zero. Raises ReaderError by `name`.
    """
    from torch import nn

    if isinstance(module, nn.RNNBase):
        return _recurrent(name, module, states)
    if isinstance(module, nn.RNNCellBase):
        return [_cell(name, module, states)]
    if isinstance(module, nn.BatchNorm1d):
        return [Affine(*folded(name, module))]
    if isinstance(module, nn.LayerNorm):
        return [_layer_norm(name, module)]
    assert isinstance(module, nn.Linear)
    weight = _array(name, module, "weight")
    assert weight is not None
    return [Dense(weight, _array(name, module, "bias"))]


def activation(name: str, previous: Layer | None, kind: str, size: int) -> tuple[bool, Dense]:
    """A Dense that applies `kind`, and whether it takes the place of the layer before it.

    After a Linear the activation joins that layer; elsewhere it stands on an identity matrix,
    which is exact.
    """
    if isinstance(previous, Dense) and previous.activation == "linear":
        return True, Dense(previous.weight, previous.bias, kind)
    if size < 1:
        raise ReaderError(f"{name}: expected values to act on, found none")
    return False, Dense(np.eye(size, dtype=np.float32), None, kind)


def folded(name: str, module: nn.BatchNorm1d) -> tuple[Array, Array]:
    """Scale and shift of a BatchNorm in eval mode, worked out in float64, rounded once."""
    if module.running_mean is None or module.running_var is None:
        raise ReaderError(
            f"{name}: expected running statistics, found none "
            "(track_running_stats=False): what it computes depends on the rest of the batch, which "
            "one live stream does not have"
        )
    mean, variance = (_array(name, module, k) for k in ("running_mean", "running_var"))
    assert mean is not None
    assert variance is not None
    weight, bias = _array(name, module, "weight"), _array(name, module, "bias")
    scale = 1 / np.sqrt(variance.astype(np.float64) + module.eps)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return scale.astype(np.float32), shift.astype(np.float32)


def _layer_norm(name: str, module: nn.LayerNorm) -> LayerNorm:
    shape = tuple(module.normalized_shape)
    if len(shape) != 1:
        raise ReaderError(
            f"{name}: expected a norm over the last axis alone, the values of one step, found "
            f"normalized_shape {shape}: over {len(shape)} axes its mean takes in other steps, "
            "which a live stream does not have yet"
        )
    weight, bias = _array(name, module, "weight"), _array(name, module, "bias")
    try:
        return LayerNorm(
            np.ones(shape, np.float32) if weight is None else weight, bias, float(module.eps)
        )
    except ModelError as error:
        raise ReaderError(f"{name}: {error}") from None


def _recurrent(name: str, module: nn.RNNBase, states: list[Tensor]) -> list[Layer]:
    kind = "RNN" if module.mode.startswith("RNN") else module.mode
    options = {"nonlinearity": str(module.nonlinearity)} if kind == "RNN" else {}
    parameters = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    if module.proj_size:
        parameters.append("weight_hr")
    directions = ("", "_reverse") if module.bidirectional else ("",)

    def one_way(k: int, d: int) -> Any:
        return RECURRENT[kind](
            **{
                f"{parameter}_l0": _array(name, module, f"{parameter}_l{k}{directions[d]}")
                for parameter in parameters
            },
            # torch's order of states: layer by layer, forward before backward.
            **_initial([state[k * len(directions) + d] for state in states]),
            **options,
        )

    if module.bidirectional:
        return [Bidirectional(one_way(k, 0), one_way(k, 1)) for k in range(module.num_layers)]
    return [one_way(k, 0) for k in range(module.num_layers)]


def _cell(name: str, module: nn.RNNCellBase, states: list[Tensor]) -> Layer:
    from torch import nn

    kinds = ((nn.LSTMCell, "LSTM"), (nn.GRUCell, "GRU"), (nn.RNNCell, "RNN"))
    kind = next((kind for cell, kind in kinds if isinstance(module, cell)), None)
    if kind is None:
        raise ReaderError(f"{name}: no layer of a Model computes this")
    options = {"nonlinearity": str(module.nonlinearity)} if kind == "RNN" else {}
    layer: Layer = RECURRENT[kind](
        **{
            f"{parameter}_l0": _array(name, module, parameter)
            for parameter in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        },
        **_initial(states),
        **options,
    )
    return layer


def _initial(states: list[Tensor]) -> dict[str, Any]:
    """The learned initial state of one layer, by field name; zeros stay out of the model."""
    found = {}
    for name, state in zip(("h0", "c0"), states, strict=False):
        vector = state.reshape(-1, state.shape[-1])[0].detach().float().cpu().numpy()
        if vector.any():
            found[name] = vector
    return found


def _array(name: str, module: nn.Module, parameter: str) -> Array | None:
    """A detached float32 copy; float16 and bfloat16 widen exactly, wider types are refused."""
    import torch

    tensor = getattr(module, parameter, None)
    if not isinstance(tensor, torch.Tensor):
        return None
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ReaderError(
            f"{name}.{parameter}: expected float32, float16 or bfloat16, found "
            f"{str(tensor.dtype).removeprefix('torch.')}; say module.float() if that loss is "
            "acceptable"
        )
    array: Array = tensor.detach().to("cpu", torch.float32).numpy().copy()
    if not np.isfinite(array).all():
        where = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
        raise ReaderError(
            f"{name}.{parameter}: expected finite values, found {array[where]} at index {where}; "
            "the training that made it has probably diverged"
        )
    return array

"""The nn.Module twin of Model: the same layers, parameter names, shapes and gate order, trainable.

Its recurrent layers are in cells.py. It must never import the trainer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fastlstm import model as hub
from fastlstm.errors import ModelError
from fastlstm.train.cells import (
    GRU,
    LSTM,
    REVERSE,
    RNN,
    LoopedGRU,
    LoopedLSTM,
    Recurrent,
    States,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


class Dense(nn.Linear):
    """The twin of fastlstm.model.Dense: nn.Linear and an activation after it."""

    def __init__(
        self, input_size: int, output_size: int, activation: str = "linear", bias: bool = True
    ) -> None:
        """Random weights as nn.Linear draws them."""
        super().__init__(input_size, output_size, bias)
        if activation not in hub.ACTIVATIONS:
            raise ModelError(
                f"Dense.activation: expected one of {', '.join(hub.ACTIVATIONS)}, "
                f"found {activation!r}"
            )
        self.activation = activation

    def forward(self, input: Tensor) -> Tensor:
        """(..., input_size) -> (..., output_size)."""
        z = super().forward(input)
        if self.activation == "linear":
            return z
        if self.activation == "softmax":
            return torch.softmax(z, -1)
        activate: Callable[[Tensor], Tensor] = getattr(torch, self.activation)
        return activate(z)


class Affine(nn.Module):
    """The twin of fastlstm.model.Affine. Its arrays are buffers: measured, not trained."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Any, shift: Any) -> None:
        """Both arrays: (size,)."""
        super().__init__()
        self.register_buffer("scale", torch.tensor(np.asarray(scale), dtype=torch.float32))
        self.register_buffer("shift", torch.tensor(np.asarray(shift), dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size)."""
        return x * self.scale + self.shift


class Network(nn.Module):
    """A chain of layers whose `state_dict()` has exactly the names and shapes of a model file."""

    def __init__(self, layers: Iterable[nn.Module], dropout: float = 0.0) -> None:
        """`dropout` acts, in training only, between a recurrent layer and the layer after it."""
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dropout = float(dropout)

    @classmethod
    def from_sizes(
        cls,
        input_size: int,
        layers: Sequence[Mapping[str, Any]],
        *,
        dropout: float = 0.0,
        learned_initial_state: bool = False,
    ) -> Network:
        """A network with random weights.

        Each entry of `layers` has a `kind`: LSTM, GRU or RNN with `hidden_size` (and `bias`,
        `bidirectional`; an LSTM's `proj_size`, `peephole`; a GRU's `reset`; an RNN's
        `nonlinearity`); Dense with `output_size` (and `bias`, `activation`); Affine with `scale`
        and `shift`. A layer's input size is what the one before it puts out.

        Layers that nn.LSTM, nn.GRU and nn.RNN know run in these, on cuDNN where there is a GPU.
        Peepholes, reset "before" and a proj_size not below hidden_size are loops in plain torch
        operations, which are slower.
        """
        built: list[nn.Module] = []
        size = input_size
        for entry in layers:
            options = {name: value for name, value in entry.items() if name != "kind"}
            layer, size = _build(entry["kind"], size, options)
            if learned_initial_state and isinstance(layer, Recurrent):
                layer.learn_initial_state()
            built.append(layer)
        return cls(built, dropout)

    @classmethod
    def from_model(cls, model: hub.Model) -> Network:
        """The same network, in float32 and in eval mode; torch's random state stays as it was."""
        with torch.random.fork_rng(devices=[]):
            network = cls(_twin(layer) for layer in model.layers)
        with torch.no_grad():
            for module, layer in zip(network.layers, model.layers, strict=True):
                for name, array in layer.arrays.items():
                    getattr(module, name).copy_(torch.from_numpy(array.copy()))
        return network.eval()

    def to_model(self, metadata: Mapping[str, Any] | None = None) -> hub.Model:
        """The weights as they are now, in float32, as a Model; dropout vanishes."""
        layers = [_arrays(module) for module in self.layers]
        return hub.Model(tuple(layers), metadata or {})

    def initial_state(self, x: Tensor) -> States:
        """The state before the first step of each sequence in x (batch, time, input_size)."""
        recurrent = (layer for layer in self.layers if isinstance(layer, Recurrent))
        return tuple(vector for layer in recurrent for vector in layer.initial(x))

    def forward(self, x: Tensor, state: States | None = None) -> tuple[Tensor, States]:
        """Over x (batch, time, input_size) -> y (batch, time, output_size), and the state after it.

        The state is a flat tuple of (batch, H) tensors in the order of Model.states; None is the
        initial state.
        """
        before = self.initial_state(x) if state is None else tuple(state)
        after: States = ()
        last = len(self.layers) - 1
        for position, layer in enumerate(self.layers):
            if isinstance(layer, Recurrent):
                count = layer.state_count
                x, new = layer(x, before[len(after) : len(after) + count])
                after += new
                if self.dropout and position < last:
                    x = nn.functional.dropout(x, self.dropout, self.training)
            else:
                x = layer(x)
        return x, after


def _recurrent(kind: str, input_size: int, hidden_size: int, **options: Any) -> Recurrent:
    """One recurrent layer with random weights: the library's, or a loop where it has none."""
    if kind == "RNN":
        return RNN(input_size, hidden_size, batch_first=True, **options)
    if kind == "GRU":
        reset = options.pop("reset", "after")
        if reset not in hub.RESETS:
            raise ModelError(f"GRU.reset: expected one of {', '.join(hub.RESETS)}, found {reset!r}")
        if reset == "before":
            return LoopedGRU(input_size, hidden_size, **options)
        return GRU(input_size, hidden_size, batch_first=True, **options)
    peephole, projected = options.pop("peephole", False), options.get("proj_size", 0)
    # torch tells a projection from the sizes of h and c, so it takes only smaller ones.
    if peephole or projected >= hidden_size:
        return LoopedLSTM(input_size, hidden_size, peephole=peephole, **options)
    return LSTM(input_size, hidden_size, batch_first=True, **options)


def _build(kind: str, input_size: int, options: dict[str, Any]) -> tuple[nn.Module, int]:
    """One layer with random weights, and its output size."""
    if kind in ("LSTM", "GRU", "RNN"):
        recurrent = _recurrent(kind, input_size, **options)
        return recurrent, recurrent.output_size
    if kind == "Dense":
        dense = Dense(input_size, **options)
        return dense, dense.out_features
    if kind == "Affine":
        return Affine(**options), input_size
    kinds = ", ".join(name for name in hub.LAYERS if name != "Bidirectional")
    raise ModelError(f"expected a kind among {kinds}, found {kind!r}")


def _twin(layer: hub.Layer) -> nn.Module:
    """A module of the layer's kind, sizes and settings; its weights are still to be copied."""
    if isinstance(layer, hub.Affine):
        return Affine(layer.scale, layer.shift)
    if isinstance(layer, hub.Dense):
        bias = layer.bias is not None
        return Dense(layer.input_size, layer.output_size, layer.activation, bias)
    both = isinstance(layer, hub.Bidirectional)
    half = layer.forward if isinstance(layer, hub.Bidirectional) else layer
    options: dict[str, Any] = {**half.options, "bidirectional": both}
    arrays = {name.removesuffix(REVERSE) for name in layer.arrays}
    options["bias"] = "bias_ih_l0" in arrays
    if half.kind == "LSTM":
        options["proj_size"] = half.output_size if "weight_hr_l0" in arrays else 0
        options["peephole"] = "peephole_l0" in arrays
    module = _recurrent(half.kind, half.input_size, half.hidden_size, **options)
    for name, parameter in module.named_parameters():
        # One half may lack what the other has: this is what does nothing in its place.
        nn.init.eye_(parameter) if "weight_hr" in name else nn.init.zeros_(parameter)
    for name, size in module.state_sizes():
        if name in layer.arrays:
            module.register_parameter(name, nn.Parameter(torch.zeros(size)))
    return module


def _arrays(module: nn.Module) -> hub.Layer:
    """The module as a layer of the Model."""
    # A subclass may compute anything, and the Model would not.
    if type(module) not in (LSTM, GRU, RNN, LoopedLSTM, LoopedGRU, Dense, Affine):
        raise ModelError(
            "Network: expected a layer of this file or of cells.py, as from_sizes makes them, "
            f"found {type(module).__name__}"
        )
    arrays = {
        name: tensor.detach().to("cpu", torch.float32).numpy()
        for name, tensor in module.state_dict().items()
    }
    options = {
        name: getattr(module, name)
        for name in ("nonlinearity", "activation", "reset")
        if isinstance(getattr(module, name, None), str)
    }
    kind = module.kind if isinstance(module, Recurrent) else type(module).__name__
    if isinstance(module, Recurrent) and module.bidirectional:
        return hub.Bidirectional.from_arrays(arrays, cell=kind, **options)
    make: Any = hub.LAYERS[kind]
    layer: hub.Layer = make(**arrays, **options)
    return layer

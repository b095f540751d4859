"""The nn.Module twin of Model: the same layers, parameter names, shapes and gate order, trainable.

Built on nn.LSTM and kin, so that a GPU runs them on cuDNN. It must never import the trainer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from fastlstm import model as hub
from fastlstm.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

States: TypeAlias = tuple[Tensor, ...]


class _Recurrent(nn.RNNBase):
    """One layer of nn.LSTM, nn.GRU or nn.RNN with its state as flat (batch, H) tensors."""

    state_names: tuple[str, ...] = ("h",)

    def learn_initial_state(self) -> None:
        """Make the initial state a parameter: h0 (and c0), each (H,), zeros to begin with."""
        for name in self.state_names:
            self.register_parameter(f"{name}0", nn.Parameter(torch.zeros(self.hidden_size)))

    def initial(self, x: Tensor) -> States:
        """The state before the first step, one row for each sequence of x (batch, time, I)."""
        learned = (getattr(self, f"{name}0", None) for name in self.state_names)
        return tuple(
            x.new_zeros(x.size(0), self.hidden_size)
            if vector is None
            else vector.expand(x.size(0), self.hidden_size)
            for vector in learned
        )

    def weights(self) -> list[Tensor]:
        """The layer's weights in the one order that torch.lstm and its kin take."""
        return [weight for weight in self._flat_weights if weight is not None]

    def settings(self) -> tuple[bool, int, float, bool, bool, bool]:
        """The trailing arguments that torch.lstm, torch.gru and torch.rnn_* share."""
        return self.bias, 1, 0.0, self.training, False, True


class LSTM(_Recurrent, nn.LSTM):
    """The twin of fastlstm.model.LSTM."""

    state_names = ("h", "c")

    def forward(self, x: Tensor, state: States) -> tuple[Tensor, States]:  # type: ignore[override]
        """Over x (batch, time, I), from h and c (batch, H): y (batch, time, H), new h and c."""
        hx = [vector.unsqueeze(0).contiguous() for vector in state]
        y, h, c = torch.lstm(x, hx, self.weights(), *self.settings())
        return y, (h.squeeze(0), c.squeeze(0))


class GRU(_Recurrent, nn.GRU):
    """The twin of fastlstm.model.GRU."""

    def forward(self, x: Tensor, state: States) -> tuple[Tensor, States]:  # type: ignore[override]
        """Over x (batch, time, I), from h (batch, H): y (batch, time, H), new h."""
        h = state[0].unsqueeze(0).contiguous()
        y, h = torch.gru(x, h, self.weights(), *self.settings())
        return y, (h.squeeze(0),)


class RNN(_Recurrent, nn.RNN):
    """The twin of fastlstm.model.RNN."""

    def forward(self, x: Tensor, state: States) -> tuple[Tensor, States]:  # type: ignore[override]
        """Over x (batch, time, I), from h (batch, H): y (batch, time, H), new h."""
        h = state[0].unsqueeze(0).contiguous()
        run = torch.rnn_relu if self.nonlinearity == "relu" else torch.rnn_tanh
        y, h = run(x, h, self.weights(), *self.settings())
        return y, (h.squeeze(0),)


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
        `nonlinearity`); Dense with `output_size` (and `bias`, `activation`); Affine with `scale`
        and `shift`. A layer's input size is what the one before it puts out.
        """
        built: list[nn.Module] = []
        size = input_size
        for entry in layers:
            options = {name: value for name, value in entry.items() if name != "kind"}
            layer, size = _build(entry["kind"], size, options)
            if learned_initial_state and isinstance(layer, _Recurrent):
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
        recurrent = (layer for layer in self.layers if isinstance(layer, _Recurrent))
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
            if isinstance(layer, _Recurrent):
                count = len(layer.state_names)
                x, new = layer(x, before[len(after) : len(after) + count])
                after += new
                if self.dropout and position < last:
                    x = nn.functional.dropout(x, self.dropout, self.training)
            else:
                x = layer(x)
        return x, after


_KINDS: dict[str, Callable[..., _Recurrent]] = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}


def _build(kind: str, input_size: int, options: dict[str, Any]) -> tuple[nn.Module, int]:
    """One layer with random weights, and its output size."""
    if kind in _KINDS:
        recurrent = _KINDS[kind](input_size, batch_first=True, **options)
        return recurrent, recurrent.hidden_size
    if kind == "Dense":
        dense = Dense(input_size, **options)
        return dense, dense.out_features
    if kind == "Affine":
        return Affine(**options), input_size
    raise ModelError(f"expected a kind among {', '.join(hub.LAYERS)}, found {kind!r}")


def _twin(layer: hub.Layer) -> nn.Module:
    """A module of the layer's kind, sizes and settings; its weights are still to be copied."""
    if isinstance(layer, hub.Affine):
        return Affine(layer.scale, layer.shift)
    options: dict[str, Any] = dict(layer.options)
    if isinstance(layer, hub.Dense):
        return Dense(layer.input_size, layer.output_size, bias=layer.bias is not None, **options)
    if options.pop("reset", "after") != "after":
        raise ModelError("Network: expected reset 'after', as nn.GRU has it, found 'before'")
    options["bias"] = layer.bias_ih_l0 is not None
    module = _KINDS[layer.kind](layer.input_size, layer.hidden_size, batch_first=True, **options)
    for name in layer.state_names:
        if f"{name}0" in layer.arrays:
            module.register_parameter(f"{name}0", nn.Parameter(torch.zeros(layer.hidden_size)))
    return module


def _arrays(module: nn.Module) -> hub.Layer:
    """The module as a layer of the Model."""
    arrays = {
        name: tensor.detach().to("cpu", torch.float32).numpy()
        for name, tensor in module.state_dict().items()
    }
    kind = type(module).__name__
    if kind not in hub.LAYERS or type(module).__module__ != __name__:
        raise ModelError(
            f"Network: expected a layer of this file ({', '.join(hub.LAYERS)}), "
            f"found {type(module).__name__}"
        )
    options = {
        name: getattr(module, name)
        for name in ("nonlinearity", "activation")
        if isinstance(getattr(module, name, None), str)
    }
    return hub.LAYERS[kind](**arrays, **options)

"""The nn.Module twin of Model: the same layers, parameter names, shapes and gate order, trainable.

Its recurrent layers are in cells.py, the others in plain_layers.py. It must never import the
trainer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
from fastlstm.train.plain_layers import Affine, BatchNorm, Dense, Difference, LayerNorm, Residual
from fastlstm.train.resonant import resonate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


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
        forget_gate_bias: float | None = None,
    ) -> Network:
        """A network with random weights.

        Each entry of `layers` has a `kind`: LSTM, GRU or RNN with `hidden_size` (and `bias`,
        `bidirectional`; an LSTM's `proj_size`, `peephole`; a GRU's `reset`; an RNN's
        `nonlinearity`, and `resonant`, what resonate takes); Dense with `output_size` (and `bias`,
        `activation`); Affine with `scale` and `shift`; LayerNorm (and `eps`, `bias`), BatchNorm and
        Difference, which take nothing; Residual with `layers`, its inner chain (and `columns` of
        what goes in, one to be added to each value that comes out: by default all in their order,
        or the only one to all). A layer's input size is what the one before it puts out.

        `forget_gate_bias` is what the biases of an LSTM's forget gates add up to at first; a
        network that begins by remembering learns long dependencies sooner (Gers, Schmidhuber and
        Cummins 2000; 1 is usual). None leaves them to chance.

        Layers that nn.LSTM, nn.GRU and nn.RNN know run in these, on cuDNN where there is a GPU.
        Peepholes, reset "before" and a proj_size not below hidden_size are loops over time, which
        take some three times as long as nn.LSTM on a CPU.
        """
        built, _ = _chain(input_size, layers)
        for layer in built:
            if learned_initial_state and isinstance(layer, Recurrent | Difference):
                layer.learn_initial_state()
            if forget_gate_bias is not None and isinstance(layer, Recurrent):
                _set_forget_gate(layer, forget_gate_bias)
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

    def initial_state(self, x: Tensor, rows: int | None = None) -> States:
        """The state before the first step of each sequence in x (batch, time, input_size).

        With `rows`, of so many sequences, whatever the shape of x.
        """
        count = x.size(0) if rows is None else rows
        states: States = ()
        for layer in self.layers:
            if isinstance(layer, Recurrent):
                states += layer.initial(x, count)
            elif isinstance(layer, Difference):
                states += (layer.initial(count, x),)
        return states

    def forward(self, x: Tensor, state: States | None = None) -> tuple[Tensor, States]:
        """Over x (batch, time, input_size) -> y (batch, time, output_size), and the state after it.

        The state is a flat tuple of (batch, H) tensors in the order of Model.states; None is the
        initial state.
        """
        before = self.initial_state(x) if state is None else tuple(state)
        return self._through(x, before, None)

    def packed(self, x: Tensor, sizes: Tensor) -> Tensor:
        """Over whole sequences of several lengths: x (values, input_size) -> (values, output_size).

        As in torch's PackedSequence: sorted by length, the longest first; the first step of all,
        then the second step of those that have one, and so on. `sizes` (steps,), int64 on the CPU,
        says how many run at each step. No padding is computed.
        """
        return self._through(x, self.initial_state(x, int(sizes[0])), sizes)[0]

    def last_step(self, x: Tensor) -> Tensor:
        """Many to one: x (batch, time, input_size) -> the output at the last step (batch, O)."""
        y: Tensor = self(x)[0]
        return y[:, -1]

    def _through(self, x: Tensor, before: States, sizes: Tensor | None) -> tuple[Tensor, States]:
        after: States = ()
        last = len(self.layers) - 1
        inputs: list[Tensor] = []
        for position, layer in enumerate(self.layers):
            inputs.append(x)
            if isinstance(layer, Recurrent):
                state = before[len(after) : len(after) + layer.state_count]
                if sizes is None:
                    x, new = layer(x, state)
                else:
                    x, new = layer.packed(x, state, sizes)
                after += new
                if self.dropout and position < last:
                    x = nn.functional.dropout(x, self.dropout, self.training)
            elif isinstance(layer, Difference):
                state = before[len(after) : len(after) + 1]
                if sizes is None:
                    x, value = layer(x, *state)
                    after += (value,)
                else:
                    x = layer.packed(x, state[0], sizes)
                    after += state
            elif isinstance(layer, Residual):
                x = layer(x, inputs[position - layer.back])
            else:
                x = layer(x)
        return x, after


def _recurrent(kind: str, input_size: int, hidden_size: int, **options: Any) -> Recurrent:
    """One recurrent layer with random weights: the library's, or a loop where it has none."""
    if kind == "RNN":
        resonant = options.pop("resonant", None)
        layer = RNN(input_size, hidden_size, batch_first=True, **options)
        if resonant is not None:
            resonate(layer, **resonant)
        return layer
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


def _chain(size: int, layers: Sequence[Mapping[str, Any]]) -> tuple[list[nn.Module], int]:
    """Layers with random weights, residual chains laid out flat, and their output size."""
    built: list[nn.Module] = []
    for entry in layers:
        options = {name: value for name, value in entry.items() if name != "kind"}
        if entry["kind"] == "Residual" and "layers" in options:
            inner, out = _chain(size, options["layers"])
            columns = options.get("columns")
            if columns is None:
                columns = [0] * out if size == 1 else range(size)
            _check_residual(size, len(inner), out, columns)
            built += [*inner, Residual(len(inner), columns)]
            size = out
            continue
        layer, size = _build(entry["kind"], size, options)
        built.append(layer)
    return built, size


def _check_residual(size: int, inner: int, out: int, columns: Sequence[int]) -> None:
    """Refuse now what a Model would refuse after the training."""
    if not inner:
        raise ModelError("Residual.layers: expected at least one layer, found none")
    if len(columns) != out:
        raise ModelError(
            f"Residual: expected an inner chain that puts out {len(columns)} values, one "
            f"for each that is added to it, found {out}"
        )
    if any(not 0 <= k < size for k in columns):
        raise ModelError(
            f"Residual.columns: expected columns from 0 to {size - 1} of the {size} values that go "
            f"in, found {min(columns) if min(columns) < 0 else max(columns)}"
        )


def _build(kind: str, input_size: int, options: dict[str, Any]) -> tuple[nn.Module, int]:
    """One layer with random weights, and its output size."""
    if kind in ("LSTM", "GRU", "RNN"):
        recurrent = _recurrent(kind, input_size, **options)
        return recurrent, recurrent.output_size
    if kind == "Dense":
        dense = Dense(input_size, **options)
        return dense, dense.out_features
    if kind in _SAME_SIZE:
        return _SAME_SIZE[kind](input_size, **options), input_size
    if kind == "Affine":
        return Affine(**options), input_size
    if kind == "Residual":
        return Residual(**options), input_size
    known = [name for name in hub.LAYERS if name != "Bidirectional"]
    raise ModelError(f"expected a kind among {', '.join((*known, 'BatchNorm'))}, found {kind!r}")


_SAME_SIZE: dict[str, type[nn.Module]] = {
    "LayerNorm": LayerNorm,
    "BatchNorm": BatchNorm,
    "Difference": Difference,
}


def _set_forget_gate(layer: Recurrent, bias: float) -> None:
    """Let both biases of an LSTM's forget gate add up to `bias`; other layers stay as they are."""
    if layer.kind != "LSTM" or not layer.bias:
        return
    gate = slice(layer.hidden_size, 2 * layer.hidden_size)  # i f g o
    with torch.no_grad():
        for direction in layer.directions:
            getattr(layer, f"bias_ih_l0{direction}")[gate] = bias
            getattr(layer, f"bias_hh_l0{direction}")[gate] = 0.0


def _twin(layer: hub.Layer) -> nn.Module:
    """A module of the layer's kind, sizes and settings; its weights are still to be copied."""
    if isinstance(layer, hub.Affine):
        return Affine(layer.scale, layer.shift)
    if isinstance(layer, hub.Dense):
        bias = layer.bias is not None
        return Dense(layer.input_size, layer.output_size, layer.activation, bias)
    if isinstance(layer, hub.LayerNorm):
        return LayerNorm(layer.input_size, layer.eps, layer.bias is not None)
    if isinstance(layer, hub.Residual):
        return Residual(layer.back, layer.columns)
    if isinstance(layer, hub.Difference):
        difference = Difference(layer.size)
        if layer.x0 is not None:
            difference.learn_initial_state()
        return difference
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
    if type(module) not in _TWINS:
        raise ModelError(
            "Network: expected a layer of cells.py or plain_layers.py, as from_sizes makes them, "
            f"found {type(module).__name__}"
        )
    if isinstance(module, BatchNorm):
        return module.folded()
    if isinstance(module, Residual):
        return hub.Residual(module.back, tuple(module.columns))
    arrays = {
        name: tensor.detach().to("cpu", torch.float32).numpy()
        for name, tensor in module.state_dict().items()
    }
    options: dict[str, Any] = {
        name: getattr(module, name)
        for name in ("nonlinearity", "activation", "reset")
        if isinstance(getattr(module, name, None), str)
    }
    if isinstance(module, LayerNorm):
        options["eps"] = module.eps
    if isinstance(module, Difference):
        options["size"] = module.size
    kind = module.kind if isinstance(module, Recurrent) else type(module).__name__
    if isinstance(module, Recurrent) and module.bidirectional:
        return hub.Bidirectional.from_arrays(arrays, cell=kind, **options)
    make: Any = hub.LAYERS[kind]
    layer: hub.Layer = make(**arrays, **options)
    return layer


_TWINS = (
    LSTM, GRU, RNN, LoopedLSTM, LoopedGRU,
    Dense, Affine, LayerNorm, BatchNorm, Difference, Residual,
)  # fmt: skip
